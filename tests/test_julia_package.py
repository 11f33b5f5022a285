"""The Julia package's own tests (julia/test/runtests.jl) run in Julia."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hybridsam_bridge.backends import locate

# Through juliacall, as everywhere else: Julia started by itself has other flags and would compile everything anew.
CODE = """
import sys
from hybridsam_bridge.backends.runtime import boot, literal
boot(sys.argv[1])(f"Base.include(Main, {literal(sys.argv[2])})")
"""


@pytest.mark.julia
def test_julia_package():
    located, folder = locate.find(), locate.library()
    tests = folder / "test" / "runtests.jl"
    environment = os.environ | locate.environment(located, threads=2)
    command = [sys.executable, "-c", CODE, str(folder), str(tests)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Test Summary" in result.stdout
