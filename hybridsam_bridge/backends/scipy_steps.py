"""Stepping SciPy's solvers one step at a time, so that limits hold and every end has a status."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import BDF, DOP853, LSODA, RK45, Radau

from hybridsam_bridge.problem import Status

Floats = NDArray[np.float64]

_SOLVERS = {"Radau": Radau, "BDF": BDF, "LSODA": LSODA, "RK45": RK45, "DOP853": DOP853}
_NEWTON = ("Radau", "BDF")  # meet a non-finite stage themselves, by a smaller step
_SHRINK = 0.2


@dataclass
class Limits:
    """``max_steps`` accepted steps; ``deadline`` on the clock of ``time.perf_counter``."""

    max_steps: int
    deadline: float


@dataclass
class Path:
    """One sample's way from t0 to the end, or as far as it came: step ends ``ts`` and interpolants between."""

    ts: list[float]
    pieces: list[Any] = field(default_factory=list)
    status: Status = Status.SUCCESS
    f: int = 0
    jac: int = 0

    @property
    def reached(self) -> float:
        return self.ts[-1]

    @property
    def steps(self) -> int:
        return len(self.ts) - 1

    def __call__(self, t: float) -> Floats:
        """The state at t, in either direction of time; at a step's end that of the earlier step."""
        if self.ts[-1] >= self.ts[0]:
            i = int(np.searchsorted(self.ts, t, side="left")) - 1
        else:
            i = int(np.searchsorted(-np.asarray(self.ts), -t, side="left")) - 1
        return self.pieces[min(max(i, 0), len(self.pieces) - 1)](t)


class _TimeUp(Exception):
    pass


class _NonFinite(Exception):
    pass


class _Watched:
    """The right-hand side: counted, stopped at the deadline, its non-finite values noticed."""

    def __init__(self, f: Callable[[float, Floats], Floats], deadline: float, newton: bool):
        self._f, self._deadline, self._newton = f, deadline, newton
        self.calls = 0
        self.last_finite = True

    def __call__(self, t: float, y: Floats) -> Floats:
        self.calls += 1
        if time.perf_counter() > self._deadline:
            raise _TimeUp
        dy = self._f(t, y)
        self.last_finite = bool(np.isfinite(dy).all())
        if not self.last_finite and not self._newton:
            raise _NonFinite
        return dy


def integrate(
    method: str,
    f: Callable[[float, Floats], Floats],
    jac: Callable[[float, Floats], Floats],
    t0: float,
    y0: Floats,
    t1: float,
    rtol: float,
    atol: Floats,
    limits: Limits,
) -> Path:
    """Integrate y' = f(t, y) from t0 to t1 (either direction). Failures are statuses of the path."""
    path = Path([t0])
    counts = {"jac": 0}

    def counted(t: float, y: Floats) -> Floats:
        counts["jac"] += 1
        return jac(t, y)

    watched = _Watched(f, limits.deadline, method in _NEWTON)
    extra = {} if method in ("RK45", "DOP853") else {"jac": counted}
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # SciPy's warnings become statuses here
            if not np.isfinite(f(t0, y0)).all():
                raise _NonFinite
            solver = _SOLVERS[method](watched, t0, y0, t1, rtol=rtol, atol=atol, **extra)
            path.status = _run(solver, path, watched, limits)
    except _TimeUp:
        path.status = Status.TIME_LIMIT
    except _NonFinite:
        path.status = Status.NON_FINITE
    except (ValueError, np.linalg.LinAlgError):  # SciPy's LU refuses a non-finite or singular matrix
        path.status = Status.NONLINEAR_SOLVER if watched.last_finite else Status.NON_FINITE
    path.f, path.jac = watched.calls, counts["jac"]
    return path


def _run(solver: Any, path: Path, watched: _Watched, limits: Limits) -> Status:
    while solver.status == "running":
        if path.steps >= limits.max_steps:
            return Status.MAX_STEPS
        _step(solver)
        if solver.status == "failed":
            return _reason(solver, watched)
        if not np.isfinite(solver.y).all():
            return Status.NON_FINITE
        if solver.t == path.ts[-1]:
            return Status.STEP_TOO_SMALL
        path.pieces.append(solver.dense_output())
        path.ts.append(float(solver.t))
    return Status.SUCCESS


def _step(solver: Any) -> None:
    """One step; an explicit method that met a non-finite stage tries again with a smaller step."""
    if not isinstance(solver, (RK45, DOP853)):
        solver.step()
        return
    while True:
        try:
            solver.step()
            return
        except _NonFinite:
            solver.h_abs *= _SHRINK
            if solver.h_abs < 10 * np.spacing(abs(solver.t)):
                raise


def _reason(solver: Any, watched: _Watched) -> Status:
    if not watched.last_finite:
        return Status.NON_FINITE
    if isinstance(solver, LSODA):
        istate = solver._lsoda_solver._integrator.istate
        return Status.NONLINEAR_SOLVER if istate == -5 else Status.STEP_TOO_SMALL
    return Status.STEP_TOO_SMALL
