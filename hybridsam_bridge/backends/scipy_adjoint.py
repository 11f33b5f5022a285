"""The continuous adjoint of one sample by SciPy's own solvers.

For a loss with cotangents g_j of the outputs y(t_j), λ' = -J(y(t))ᵀ λ runs from the last time to the first on
the forward solve's interpolant and jumps by g_j at t_j. Then dL/dy0 = λ(t_0), dL/dp = ∫ λᵀ f_p dt (context
likewise), dL/dt_j = g_j · f(t_j, y_j) and dL/dt_0 = -λ(t_0)·f(t_0, y_0). The integrals are taken by Gauss-
Legendre quadrature over each backward step. (Cao, Li, Petzold and Serban, SIAM J. Sci. Comput. 24 (2003)
1076; the quadrature as in Norcliffe and Deisenroth, TMLR 2023.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridsam_bridge.backends.scipy_steps import Limits, Path, integrate
from hybridsam_bridge.fields.numpy_functions import NumpyFunctions
from hybridsam_bridge.problem import Status

Floats = NDArray[np.float64]

_NODES = 4  # exact for degree 7, above the product of two cubic interpolants


@dataclass
class SampleGradients:
    """Cotangents of one sample; the numbers count only if ``status`` is SUCCESS."""

    y0: Floats
    ts: Floats
    context: Floats
    p: Floats
    status: Status = Status.SUCCESS
    reached: float = 0.0


def adjoint(
    functions: NumpyFunctions,
    path: Path,
    ts: Floats,
    grad_ys: Floats,
    method: str,
    rtol: float,
    limits: Limits,
    nc: int,
) -> SampleGradients:
    """Pull ``grad_ys`` (T, n) of the states at ``ts`` (T,) back along ``path``."""
    n = grad_ys.shape[1]
    out = SampleGradients(np.zeros(n), np.zeros(len(ts)), np.zeros(nc), np.zeros(0))
    lam = np.zeros(n)
    nodes: list[tuple[Floats, Floats, Floats]] = []  # (times, states, weighted λ) of the quadrature
    largest = np.zeros(n)
    for j in range(len(ts) - 1, 0, -1):
        if grad_ys[j].any():
            out.ts[j] = grad_ys[j] @ functions.f(ts[j], path(ts[j]))
            lam = lam + grad_ys[j]
        if not lam.any():
            continue
        largest = np.maximum(largest, np.abs(lam))
        back = _backward(functions, path, ts[j], ts[j - 1], lam, largest, method, rtol, limits)
        if back.status != Status.SUCCESS:
            out.status, out.reached = back.status, back.reached
            return out
        limits = Limits(limits.max_steps - back.steps, limits.deadline)
        nodes += [_quadrature(path, back, k) for k in range(back.steps)]
        lam = back.pieces[-1](ts[j - 1])
    out.ts[0] = -lam @ functions.f(ts[0], path(ts[0]))
    out.y0 = lam + grad_ys[0]
    times, states, lams = (np.concatenate(x) for x in zip(*nodes)) if nodes else (ts[:0], grad_ys[:0], grad_ys[:0])
    out.context, out.p = functions.parameter_vjp(times, states, lams)
    return out


def _backward(
    functions: NumpyFunctions,
    path: Path,
    start: float,
    end: float,
    lam: Floats,
    largest: Floats,
    method: str,
    rtol: float,
    limits: Limits,
) -> Path:
    def f(t: float, lam: Floats) -> Floats:
        return -functions.state_vjp(t, path(t), lam)

    def jac(t: float, lam: Floats) -> Floats:
        return -functions.jac(t, path(t)).T

    # The components of λ have units of their own (loss per state): each is held to its own size so far, and
    # to a millionth of the largest where it started from nothing.
    scale = np.maximum(largest, 1e-6 * np.max(largest))
    return integrate(method, f, jac, start, lam, end, rtol, 1e-2 * rtol * scale, limits)


_X, _W = np.polynomial.legendre.leggauss(_NODES)


def _quadrature(path: Path, back: Path, k: int) -> tuple[Floats, Floats, Floats]:
    end, start = back.ts[k], back.ts[k + 1]
    half = 0.5 * (end - start)
    times = 0.5 * (end + start) + half * _X
    states = np.stack([path(t) for t in times])
    lams = back.pieces[k](times).T * (half * _W)[:, None]
    return times, states, np.ascontiguousarray(lams)
