"""Tables of what surrounds the solver: threads, the bridge to Julia, SAM's second pass, a new process."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from hybridsam_bridge.backends import julia_backend
from hybridsam_bridge.bench import robertson
from hybridsam_bridge.bench.gradients import need_julia
from hybridsam_bridge.bench.tables import Table
from hybridsam_bridge.bench.timing import interleaved, ratio
from hybridsam_bridge.config import configure, settings
from hybridsam_bridge.fields.base import VectorField
from hybridsam_bridge.fields.roles import neural_parameters
from hybridsam_bridge.optim import SAM
from hybridsam_bridge.solve import solve

TINY_CALLS = 200


def threads(rounds: int) -> Table:
    """W2 on one Julia thread and on two; gradients must be equal to the last bit."""
    need_julia("threads")
    out = Table("threads", "W2 on one and on two Julia threads", ("threads", "gradient ms", "forward ms"))
    work = robertson.w2()
    runs: dict[str, Callable[[], object]] = {}
    for count in (2, 1):  # Julia starts with as many as the first run asks for
        runs[f"gradient {count}"] = _on(count, work.gradient("julia"))
        runs[f"forward {count}"] = _on(count, work.forward("julia"))
    before = settings().threads
    try:
        timings = interleaved(runs, rounds)
    finally:
        configure(threads=before)
    for count in (1, 2):
        out.add(count, 1e3 * timings[f"gradient {count}"].median, 1e3 * timings[f"forward {count}"].median)
    speedup = ratio(timings["gradient 1"], timings["gradient 2"])
    out.figures["two threads over one"] = speedup
    same = all((timings["gradient 1"].result[k] == timings["gradient 2"].result[k]).all() for k in ("k", "y0"))
    out.notes.append(f"Two threads are {speedup:.2f} times as fast (target 1.7); gradients equal to the bit: {same}.")
    if (os.cpu_count() or 1) < 2:
        out.notes.append("This machine has one core.")
    return out


def _on(count: int, run: Callable[[], object]) -> Callable[[], object]:
    def limited() -> object:
        configure(threads=count)
        return run()

    return limited


class Decay(VectorField):
    """The smallest model: two rates."""

    state_shape = (2,)

    def __init__(self) -> None:
        super().__init__()
        self.k = torch.nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        return -self.k * y


def bridge(rounds: int) -> Table:
    """Time outside Julia: as a share of a W2 gradient, and a call of a solve that takes next to no time itself."""
    need_julia("bridge")
    out = Table("bridge", "time spent outside Julia", ("work", "whole ms", "in Julia ms", "outside µs", "share"))
    whole, inside = _shares(robertson.w2().gradient("julia"), rounds)
    out.add("W2 gradient", 1e3 * whole, 1e3 * inside, 1e6 * (whole - inside), (whole - inside) / whole)
    out.figures["share of W2"] = (whole - inside) / whole
    model, ts = Decay(), torch.tensor([0.0, 1.0], dtype=torch.float64)
    y0 = torch.ones(2, dtype=torch.float64)

    def forward() -> None:
        with torch.no_grad():
            solve(model, y0, ts, backend="julia")

    def gradient() -> None:
        model.zero_grad()
        solve(model, y0, ts, backend="julia").ys.sum().backward()

    for name, run, calls in (("tiny solve", forward, 1), ("tiny solve and backward", gradient, 2)):
        whole, inside = _shares(run, TINY_CALLS)
        out.add(name, 1e3 * whole, 1e3 * inside, 1e6 * (whole - inside), (whole - inside) / whole)
        out.figures[f"{name}: µs a call"] = 1e6 * (whole - inside) / calls
    out.notes.append(
        "Outside Julia are input checks, parameters, the pipe to the worker, copies and torch's autograd; "
        "targets: 10 % of W2, 150 µs a call (a solve and a backward pass are two calls)."
    )
    return out


def _shares(run: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds of a run, and of the part of it spent in Julia."""
    for _ in range(3):
        run()
    whole, inside = [], []
    for _ in range(rounds):
        before, began = julia_backend.seconds_in_julia(), time.perf_counter()
        run()
        whole.append(time.perf_counter() - began)
        inside.append(julia_backend.seconds_in_julia() - before)
    outside = statistics.median(a - b for a, b in zip(whole, inside, strict=True))
    return statistics.median(whole), statistics.median(whole) - outside


def sam(rounds: int) -> Table:
    """A step of SAM on the network against a step of its base optimizer, on W2."""
    need_julia("sam")
    out = Table("sam", "an optimizer's step on W2", ("optimizer", "step ms", "ratio"))
    runs: dict[str, Callable[[], object]] = {"Adam": _steps(None), "SAM(Adam)": _steps(0.05)}
    timings = interleaved(runs, rounds)
    for name, timing in timings.items():
        out.add(name, 1e3 * timing.median, ratio(timing, timings["Adam"]))
    out.figures["SAM step / plain step"] = ratio(timings["SAM(Adam)"], timings["Adam"])
    return out


def _steps(rho: float | None) -> Callable[[], object]:
    work = robertson.w2()
    field, y0, ts = work.model, torch.tensor(work.y0), torch.tensor(work.ts)
    weights = torch.tensor(robertson.WEIGHTS, dtype=torch.float64)
    adam = torch.optim.Adam(neural_parameters(field), lr=1e-6)  # next to no motion: every step solves the same problem
    optimizer = adam if rho is None else SAM(adam, rho=rho)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (solve(field, y0, ts, rtol=work.rtol, atol=work.atol, backend="julia").ys * weights).sum()
        loss.backward()
        return loss

    return lambda: optimizer.step(closure)


FRESH = """
import time
began = time.perf_counter()
import torch
imported = time.perf_counter()
from hybridsam_bridge.bench.robertson import Robertson, RobertsonNet
from hybridsam_bridge.solve import solve
def gradient(field):
    start = time.perf_counter()
    y0 = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    solve(field, y0, torch.tensor([0.0, 1.0], dtype=torch.float64), backend="julia").ys.sum().backward()
    return time.perf_counter() - start
gradient(Robertson())
first = time.perf_counter()
print(imported - began, first - imported, gradient(RobertsonNet()))
"""


def start(rounds: int) -> Table:
    """A new process, from torch's import to gradients."""
    need_julia("start")
    out = Table("start", "a new process", ("stage", "s"))
    found = []
    for _ in range(min(rounds, 3)):
        done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
        found.append([float(x) for x in done.stdout.split()])
    names = ("import torch", "from there to the first gradient", "gradient of a second model")
    for name, values in zip(names, zip(*found, strict=True), strict=True):
        out.add(name, statistics.median(values))
        out.figures[name] = statistics.median(values)
    return out
