"""The SciPy backend: one sample at a time, slow and independent of everything else here.

It is the reference that the other backends are checked against. Gradients come from a continuous adjoint by
backward solves of its own (``scipy_adjoint``).
"""

from __future__ import annotations

import time

import numpy as np

from hybridsam_bridge import methods
from hybridsam_bridge.backends.base import (
    Availability,
    Backend,
    Choice,
    Floats,
    Forward,
    Gradients,
    Options,
    Request,
    Tape,
)
from hybridsam_bridge.backends.scipy_adjoint import adjoint
from hybridsam_bridge.backends.scipy_steps import Limits, Path, integrate
from hybridsam_bridge.errors import UnsupportedOperation
from hybridsam_bridge.fields.numpy_functions import NumpyFunctions
from hybridsam_bridge.fields.plan import Plan
from hybridsam_bridge.problem import Status

AUTO_METHOD = "LSODA"
# Jumps at the outputs restart the backward solve: a one-step method begins at its full order, and Newton's
# iteration in SciPy's BDF gives up on ROBER's adjoint.
BACKWARD = {"BDF": "Radau", "LSODA": "Radau"}


class SciPyTape(Tape):
    """The interpolants of every sample and what they were solved with."""

    def __init__(self, plan: Plan, request: Request, options: Options, paths: list[Path]):
        # Copies: the caller may fill y0, ts and context anew before the backward pass.
        self.plan, self.request, self.options = plan, Request(*map(np.array, request)), options
        self.paths: list[Path] | None = paths
        n = request.y0.shape[1]
        self.nbytes = sum(path.steps for path in paths) * (5 * n + 2) * 8  # about: cubic to quintic pieces

    def release(self) -> None:
        self.paths = None
        self.nbytes = 0


class SciPyBackend(Backend):
    """``scipy.integrate``'s solvers with analytic Jacobians; rejected steps are not reported by SciPy (0)."""

    name = "scipy"

    def availability(self) -> Availability:
        return Availability(True, "SciPy is a dependency of the package")

    def choose(self, plan: Plan, method: str, adjoint: str, linear: str) -> Choice:
        methods.require_plain(self.name, linear, plan.mass is not None)
        why = []
        if adjoint == "auto":
            adjoint = "gauss"
            why.append("adjoint: gauss, the only one of the SciPy backend.")
        elif adjoint not in ("gauss", "none"):
            raise UnsupportedOperation(
                f'The scipy backend has no adjoint {adjoint!r}; use adjoint="gauss" or "auto", or backend="julia" or '
                '"torch" for the discrete adjoint.'
            )
        if method == "auto":
            method = AUTO_METHOD
            why.append("method: LSODA, which switches between a stiff and a non-stiff method as it goes.")
        else:
            methods.require(method, self.name)
        return Choice(method, adjoint, " ".join(why))

    def solve(self, plan: Plan, request: Request, options: Options) -> Forward:
        _refuse_forced_steps(options)
        start = time.perf_counter()
        limits = _limits(options, start)
        size, times = len(request.y0), request.ts
        ys = np.full((size, len(times), plan.n), np.nan)
        paths = []
        for b in range(size):
            path = Path([float(times[0])], status=Status.NOT_RUN)
            if time.perf_counter() < limits.deadline or b == 0:
                functions = NumpyFunctions(plan, request.context[b], request.p)
                span = float(times[0]), request.y0[b], float(times[-1])
                path = integrate(options.method, functions.f, functions.jac, *span, options.rtol, options.atol, limits)
            _fill(ys[b], times, request.y0[b], path)
            paths.append(path)
        keep = options.adjoint != "none"
        return Forward(
            ys=ys,
            status=np.array([int(path.status) for path in paths], dtype=np.int64),
            reached=np.array([path.reached for path in paths]),
            steps=np.array([path.steps for path in paths], dtype=np.int64),
            rejected=np.zeros(size, dtype=np.int64),
            f=np.array([path.f for path in paths], dtype=np.int64),
            jac=np.array([path.jac for path in paths], dtype=np.int64),
            seconds=time.perf_counter() - start,
            tape=SciPyTape(plan, request, options, paths) if keep else None,
            step_times=[np.array(path.ts) for path in paths] if options.record_steps else None,
        )

    def vjp(self, tape: Tape, grad_ys: Floats) -> Gradients:
        assert isinstance(tape, SciPyTape)
        if tape.paths is None:
            raise RuntimeError("This solve's tape was freed; call backward(retain_graph=True) to go back twice.")
        start = time.perf_counter()
        request, options = tape.request, tape.options
        limits = _limits(options, start)
        size, nc = len(request.y0), request.context.shape[1]
        out = Gradients(
            y0=np.zeros_like(request.y0),
            ts=np.zeros_like(request.ts),
            context=np.zeros_like(request.context),
            p=np.zeros_like(request.p),
            status=np.zeros(size, dtype=np.int64),
            reached=np.full(size, float(request.ts[0])),
        )
        for b, path in enumerate(tape.paths):
            if path.status != Status.SUCCESS:
                continue  # a failed sample gives zero gradient
            functions = NumpyFunctions(tape.plan, request.context[b], request.p)
            method = BACKWARD.get(options.method, options.method)
            grads = adjoint(functions, path, request.ts, grad_ys[b], method, options.rtol, limits, nc)
            out.status[b] = int(grads.status)
            if grads.status != Status.SUCCESS:
                out.reached[b] = grads.reached
                continue
            out.y0[b], out.context[b] = grads.y0, grads.context
            out.ts += grads.ts
            out.p += grads.p
        out.seconds = time.perf_counter() - start
        return out


def _limits(options: Options, start: float) -> Limits:
    return Limits(options.max_steps, np.inf if options.time_limit is None else start + options.time_limit)


def _fill(ys: Floats, times: Floats, y0: Floats, path: Path) -> None:
    ys[0] = y0
    for j in range(1, len(times)):
        if not path.pieces or times[j] > path.reached:
            break
        ys[j] = path(times[j])


def _refuse_forced_steps(options: Options) -> None:
    if options.steps is not None:
        raise UnsupportedOperation(
            "The scipy backend cannot force steps: SciPy's solvers choose their own. Leave steps=None, or use "
            'backend="julia" or "torch" with a Rosenbrock method.'
        )
