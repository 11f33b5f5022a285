"""Table of W3: gradient of a reaction-diffusion system with a convolutional network, at equal accuracy."""

from __future__ import annotations

from collections.abc import Callable

from hybridsam_bridge.bench import fitzhugh, fitzhugh_diffrax
from hybridsam_bridge.bench.fitzhugh import Result
from hybridsam_bridge.bench.gradients import need_julia
from hybridsam_bridge.bench.tables import Table
from hybridsam_bridge.bench.timing import Timing, interleaved, ratio

TITLE = (
    "gradient of FitzHugh-Nagumo on 32 x 32 x 2 + 2-16-16-2 tanh network of 3 x 3 convolutions, batch 8, 15 outputs to "
    "t = 1.5, for all parameters and y0"
)
COLUMNS = ("tool", "first call s", "median ms", "error of y", "error of gradient", "julia at least as accurate: times")
TOLERANCES = (1e-1, 1e-2, 5e-3, 1e-3, 1e-4)  # of this package's runs; see _against


def table(rounds: int) -> Table:
    """Times of W3 and errors against a tight solution by torchdiffeq (by this package where that is missing)."""
    need_julia("W3")
    work = fitzhugh.w3()
    out = Table("W3", TITLE, COLUMNS)
    own = {f"julia Tsit5 rtol {rtol:g}": work.run(rtol) for rtol in TOLERANCES}
    runs: dict[str, Callable[[], Result]] = dict(own)
    try:
        runs["torchdiffeq dopri5 rtol 1e-4"] = work.torchdiffeq(rtol=1e-4, atol=1e-6)
        for step in (0.1, 0.05):
            runs[f"torchdiffeq rk4 step {step:g}"] = work.torchdiffeq(method="rk4", options={"step_size": step})
        reference = work.torchdiffeq(rtol=1e-8, atol=1e-10)()
        out.notes.append("Errors: largest of any output, and relative to the gradient's norm, against dopri5 at 1e-8.")
    except ImportError as error:
        reference = work.run(1e-9)()
        out.notes.append(f"torchdiffeq is left out: {error}. Errors are against this package's Tsit5 at rtol 1e-9.")
    try:
        runs["diffrax Tsit5 rtol 1e-4"] = fitzhugh_diffrax.gradient(work, 1e-4)
    except ImportError as error:
        out.notes.append(f"diffrax is left out: {error}.")
    timings = interleaved(runs, rounds)
    errors = {name: timing.result.errors(reference) for name, timing in timings.items()}
    for name, timing in timings.items():
        times = None if name in own else _against(name, list(own), timings, errors)
        out.add(name, timing.first, 1e3 * timing.median, *errors[name], times)
        if times is not None:
            out.figures[f"{name} / julia at least as accurate"] = times
    return out


def _against(
    name: str, own: list[str], timings: dict[str, Timing], errors: dict[str, tuple[float, float]]
) -> float | None:
    """How many times faster the quickest own run is of those no less accurate in solution and in gradient, if any."""
    fit = [run for run in own if all(a <= b for a, b in zip(errors[run], errors[name], strict=True))]
    return max((ratio(timings[name], timings[run]) for run in fit), default=None)
