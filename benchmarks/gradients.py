"""How long does a gradient take? W1 and W2 here, in diffrax (Kvaerno5, vmap, float64) and on SciPy, in one run.

    python benchmarks/gradients.py [--backend julia] [--repeat 20]

Reports the first call apart from the steady state (the median), ratios, and the time from import to first gradient in
a new process. SciPy solves sample by sample: one sample of W2 is timed and counted 32 times.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
import workloads as w

import hybridsam_bridge as hsb


def timed(run: Callable[[], object], repeat: int) -> tuple[float, float]:
    """Seconds of the first call, and the median of the later ones."""
    began = time.perf_counter()
    run()
    first = time.perf_counter() - began
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return first, statistics.median(times)


def ours(name: str, backend: str, repeat: int, samples: int = w.W2_BATCH) -> dict[str, float]:
    """W1 or W2 (its first ``samples``) through hsb.solve and backward."""
    weights = torch.tensor(w.W1_WEIGHTS)
    if name == "W1":
        field, ts, rtol, atol = w.Robertson(), torch.tensor(w.W1_TIMES), w.W1_RTOL, w.W1_ATOL
        y0 = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    else:
        field, ts, rtol, atol = w.RobertsonNet(), torch.tensor(w.W2_TIMES), w.W2_RTOL, w.W2_ATOL
        y0 = w.w2_initial()[:samples].requires_grad_(True)
    result: dict[str, float] = {}

    def gradient() -> None:
        field.zero_grad(set_to_none=True)
        y0.grad = None
        sol = hsb.solve(field, y0, ts, rtol=rtol, atol=atol, backend=backend)
        (sol.ys * weights).sum().backward()
        result["steps"] = float(sol.stats.steps.mean())
        result["dk1"] = float(field.k.grad[0])

    def forward() -> None:
        with torch.no_grad():
            hsb.solve(field, y0, ts, rtol=rtol, atol=atol, backend=backend)

    result["first"], result["steady"] = timed(gradient, repeat)
    result["forward"] = timed(forward, repeat)[1]
    return result


def diffrax_gradient(name: str, repeat: int) -> dict[str, float]:
    """The same in diffrax."""
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    single = name == "W1"
    times = w.W1_TIMES if single else w.W2_TIMES
    rtol, atol = (w.W1_RTOL, w.W1_ATOL) if single else (w.W2_RTOL, w.W2_ATOL)
    layers = [] if single else [(m.weight.detach().numpy(), m.bias.detach().numpy()) for m in w.RobertsonNet().net[::2]]
    params = (jnp.array([0.04, 3e7, 1e4]), layers)
    y0 = jnp.array([1.0, 0.0, 0.0]) if single else jnp.array(w.w2_initial().numpy())

    def field(t, y, args):
        k, net = args
        a, b, c = y
        dy = jnp.stack([-k[0] * a + k[2] * b * c, k[0] * a - k[1] * b * b - k[2] * b * c, k[1] * b * b])
        if net:
            h = y * jnp.array([1.0, 1e4, 1.0])
            for i, (matrix, bias) in enumerate(net):
                h = matrix @ h + bias
                h = jnp.tanh(h) if i < len(net) - 1 else h
            dy = dy + 1e-3 * jnp.array([1.0, 1e-4, 1.0]) * h
        return dy

    def loss(params, y0):
        def one(y):
            sol = diffrax.diffeqsolve(
                diffrax.ODETerm(field),
                diffrax.Kvaerno5(),
                times[0],
                times[-1],
                None,
                y,
                params,
                saveat=diffrax.SaveAt(ts=jnp.array(times)),
                stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
                max_steps=4096,
            )
            return (sol.ys * w.W1_WEIGHTS).sum()

        return one(y0) if single else jax.vmap(one)(y0).sum()

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
    value: dict[str, float] = {}

    def run() -> None:
        out = jax.block_until_ready(gradient(params, y0))
        value["dk1"] = float(out[0][0][0])

    first, steady = timed(run, repeat)
    return {"first": first, "steady": steady, **value}


def on_scipy(name: str) -> dict[str, float]:
    """The SciPy backend, once after the first call; W2 by one of its samples."""
    samples = 1 if name == "W2" else w.W2_BATCH
    row = ours(name, "scipy", 1, samples)
    scale = w.W2_BATCH if name == "W2" else 1
    return {"first": row["first"], "steady": scale * row["steady"], "dk1": row["dk1"]}


FRESH = """
import time
began = time.perf_counter()
import sys, torch
imported = time.perf_counter()
import hybridsam_bridge as hsb, workloads as w
def gradient(field):
    start = time.perf_counter()
    y0 = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    hsb.solve(field, y0, torch.tensor([0.0, 1.0], dtype=torch.float64), backend=sys.argv[1]).ys.sum().backward()
    return time.perf_counter() - start
gradient(w.Robertson())
first = time.perf_counter()
print(imported - began, first - imported, gradient(w.RobertsonNet()))
"""


def fresh(backend: str) -> dict[str, float]:
    """Seconds in a new process: torch's import, from there to the first gradient, gradient of a second model."""
    command = [sys.executable, "-c", FRESH, backend]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=os.path.dirname(__file__) or ".")
    names = ("import torch", "first gradient", "second model")
    return dict(zip(names, map(float, result.stdout.split()), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", default="julia")
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--no-diffrax", action="store_true")
    parser.add_argument("--no-scipy", action="store_true")
    parser.add_argument("--json")
    options = parser.parse_args()
    table = {"new process": {"hsb": fresh(options.backend)}}
    print("new process", {key: float(f"{value:.3g}") for key, value in table["new process"]["hsb"].items()})
    for name in ("W1", "W2"):
        row = {"hsb": ours(name, options.backend, options.repeat)}
        if not options.no_diffrax:
            row["diffrax"] = diffrax_gradient(name, max(3, options.repeat // 4))
            row["ratio"] = {"diffrax": row["diffrax"]["steady"] / row["hsb"]["steady"]}
            agree = np.isclose(row["hsb"]["dk1"], row["diffrax"]["dk1"], rtol=1e-2)
            row["ratio"]["gradients agree"] = bool(agree)
        if not options.no_scipy:
            row["scipy"] = on_scipy(name)
            row.setdefault("ratio", {})["scipy"] = row["scipy"]["steady"] / row["hsb"]["steady"]
        table[name] = row
        print(name)
        for tool, numbers in row.items():
            print("  ", tool, {key: float(f"{value:.4g}") for key, value in numbers.items()})
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(table, file, indent=2)


if __name__ == "__main__":
    main()
