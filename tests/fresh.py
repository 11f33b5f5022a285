"""Code run in a fresh interpreter, for tests of start-up and survival."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

HERE = os.path.dirname(__file__)
PRELUDE = """
import torch, hybridsam_bridge as hsb
from problems import Robertson, f64
from hybridsam_bridge.backends import worker

def gradient(backend="julia", **options):
    y0 = f64(1, 0, 0).requires_grad_()
    sol = hsb.solve(Robertson(), y0, f64(0, 40), backend=backend, **options)
    return torch.autograd.grad(sol.ys[-1, 2], y0)[0]

def assert_right():
    # dy3/dy1(0) at t = 40, to the digits that the default tolerances give
    assert abs(gradient()[0].item() - 0.21552) < 1e-4
"""


def run(code: str, *, prelude: str = PRELUDE, check: bool = True, timeout: float = 250, **environment: str):
    """Run code in a fresh interpreter that finds the tests' modules; returns the completed process."""
    # A process that was started in the background ignores Ctrl-C, and hands that on.
    listening = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    source = listening + prelude + textwrap.dedent(code)
    env = {**os.environ, "PYTHONPATH": HERE, **environment}
    result = subprocess.run(
        [sys.executable, "-c", source], env=env, capture_output=True, text=True, timeout=timeout, check=False
    )
    if check:
        assert result.returncode == 0, result.stderr
    return result
