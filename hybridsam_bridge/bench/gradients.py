"""Tables of W1 and W2: gradients of small stiff models, on every backend and in diffrax."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from hybridsam_bridge import backends
from hybridsam_bridge.bench import robertson, robertson_diffrax
from hybridsam_bridge.bench.robertson import Result, Workload
from hybridsam_bridge.bench.tables import Table
from hybridsam_bridge.bench.timing import interleaved, ratio
from hybridsam_bridge.errors import BackendUnavailable

TITLES = {
    "W1": "gradient of Robertson's kinetics to t = 1e5, 41 outputs, for 3 rates and y0",
    "W2": "gradient of a batch of 32, Robertson + 3-64-64-3 tanh network to t = 100, 21 outputs, for all parameters",
}
SCIPY_SAMPLES = 1  # SciPy solves sample by sample: this many of a batch are timed, and their time is scaled up


def workload(name: str) -> Workload:
    return robertson.w1() if name == "W1" else robertson.w2()


def table(name: str, rounds: int) -> Table:
    """Times of W1 or W2; the ratios are to the first backend that is there."""
    work = workload(name)
    out = Table(name, f"{TITLES[name]}, rtol {work.rtol:g}", ("tool", "first call s", "median ms", "ratio", "dk apart"))
    batch = 1 if work.y0.ndim == 1 else len(work.y0)
    runs: dict[str, Callable[[], Result]] = {}
    scale: dict[str, float] = {}
    if backends.get("julia").availability().ready:
        runs["julia backend, Rodas5P"] = work.gradient("julia")
    else:
        out.notes.append("The Julia backend is not set up (hybridsam-bridge doctor says why): left out.")
    runs["torch backend, Rodas5P"] = on_one_thread(work.gradient("torch"))
    try:
        runs["diffrax Kvaerno5"] = robertson_diffrax.gradient(work)
    except ImportError as error:
        out.notes.append(f"diffrax is left out: {error}.")
    slow = "scipy backend" if batch == 1 else f"scipy backend ({SCIPY_SAMPLES} of {batch} samples, scaled)"
    runs[slow] = work.gradient("scipy", None if batch == 1 else SCIPY_SAMPLES)
    scale[slow] = batch / SCIPY_SAMPLES if batch > 1 else 1.0
    timings = interleaved(runs, rounds)
    base = next(iter(timings))
    for tool, timing in timings.items():
        factor = scale.get(tool, 1.0)
        apart = _apart(timing.result["k"], timings[base].result["k"]) if factor == 1.0 else None
        times = factor * ratio(timing, timings[base])
        out.add(tool, timing.first, 1e3 * factor * timing.median, times, apart)
        out.figures[f"{tool} / {base}"] = times
    return out


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a / b - 1).max())


def on_one_thread(run: Callable[[], Result]) -> Callable[[], Result]:
    """Torch on one thread: a batch of three-vectors gains nothing from more."""

    def limited() -> Result:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return run()
        finally:
            torch.set_num_threads(threads)

    return limited


def need_julia(what: str) -> None:
    """Raise ``BackendUnavailable`` where a table needs Julia and it is not there."""
    state = backends.get("julia").availability()
    if not state.ready:
        raise BackendUnavailable(f"{what} measures the Julia backend: {state.why} {state.fix}")
