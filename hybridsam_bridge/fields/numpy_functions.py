"""NumPy callables of a torch plan: the right-hand side and its derivatives at one sample.

Traced once a plan (``fields.tracing``), so that a call costs little more than its operators; a field that
cannot be traced (branching on values) runs as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hybridsam_bridge.fields import derivatives
from hybridsam_bridge.fields.plan import Plan
from hybridsam_bridge.fields.simplify import NotTraceable
from hybridsam_bridge.fields.tracing import trace

Floats = NDArray[np.float64]


class NumpyFunctions:
    """f, Jacobian and vector-Jacobian products at fixed context c (nc,) and parameters p (P,)."""

    def __init__(self, plan: Plan, context: Floats, p: Floats):
        self._plan = plan
        self._c = torch.from_numpy(context)
        self._params = derivatives.split_all(plan, torch.from_numpy(p))
        self._t = torch.zeros((), dtype=torch.float64)
        fixed = [self._c, *self._params]
        self._rhs, self._jac, self._vjp = (_bind(plan, kind, fixed) for kind in ("rhs", "jac", "vjp"))

    def f(self, t: float, y: Floats) -> Floats:
        """dy/dt (n,) at y (n,)."""
        with torch.inference_mode():
            return self._rhs(self._t.fill_(t), torch.from_numpy(y)).numpy().copy()

    def jac(self, t: float, y: Floats) -> Floats:
        """df_i/dy_j (n, n)."""
        with torch.inference_mode():
            return self._jac(self._t.fill_(t), torch.from_numpy(y)).numpy().copy()

    def state_vjp(self, t: float, y: Floats, lam: Floats) -> Floats:
        """Σ_i lam_i df_i/dy (n,)."""
        with torch.inference_mode():
            return self._vjp(self._t.fill_(t), torch.from_numpy(y), torch.from_numpy(lam)).numpy().copy()

    def parameter_vjp(self, ts: Floats, ys: Floats, lams: Floats) -> tuple[Floats, Floats]:
        """Σ over N points of lam · df/dc (nc,) and lam · df/dp (P,); ts (N,), ys and lams (N, n)."""
        p = torch.cat([x.reshape(-1) for x in self._params]) if self._params else torch.zeros(0, dtype=torch.float64)
        p, c = p.clone().requires_grad_(), self._c.clone().requires_grad_()
        if not len(ts):
            return np.zeros(len(c)), np.zeros(len(p))
        f = derivatives.rhs(self._plan)
        t, y, lam = (torch.from_numpy(np.ascontiguousarray(x)) for x in (ts, ys, lams))
        with torch.enable_grad():
            params = derivatives.split_all(self._plan, p)
            try:
                dy = torch.func.vmap(lambda t, y: f(t, y, c, params))(t, y)
            except RuntimeError:  # branching on values: point by point
                dy = torch.stack([f(a, b, c, params) for a, b in zip(t, y, strict=True)])
            if not dy.requires_grad:
                return np.zeros(len(c)), np.zeros(len(p))
            gc, gp = torch.autograd.grad(dy, (c, p), lam, allow_unused=True)
        return tuple(np.zeros(len(x)) if g is None else g.numpy() for g, x in ((gc, c), (gp, p)))  # type: ignore


def _bind(plan: Plan, kind: str, fixed: Sequence[torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The traced function of (t, y[, lam]), or the function itself where tracing fails."""
    one = torch.zeros((), dtype=torch.float64)
    state = torch.ones(plan.n, dtype=torch.float64)
    varying = [one, state, state.clone()] if kind == "vjp" else [one, state]  # the tracer tells them apart by identity
    fn = _FUNCTIONS[kind](plan)

    def call(*args: Any) -> torch.Tensor:
        t, y, *lam, rest = args
        return fn(t, y, rest[0], *lam, rest[1:])

    key = ("numpy", kind)
    if key not in plan.memo:
        try:
            plan.memo[key] = trace(call, varying, fixed)
        except NotTraceable:
            plan.memo[key] = None
    program = plan.memo[key]
    if program is None:
        return _eager(plan, kind, list(fixed))
    with torch.inference_mode():
        return program.bind(fixed)


def _eager(plan: Plan, kind: str, fixed: list[torch.Tensor]) -> Callable[..., torch.Tensor]:
    f, c, params = derivatives.rhs(plan), fixed[0], fixed[1:]

    def rows(t: torch.Tensor, y: torch.Tensor, lams: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            y = y.clone().requires_grad_()
            dy = f(t.clone(), y, c, params)
            if not dy.requires_grad:
                return [torch.zeros_like(y) for _ in lams]
            grads = [torch.autograd.grad(dy, y, lam.clone(), retain_graph=True, allow_unused=True)[0] for lam in lams]
            return [torch.zeros_like(y) if g is None else g.detach() for g in grads]

    if kind == "rhs":
        return lambda t, y: f(t, y, c, params)
    if kind == "jac":
        return lambda t, y: torch.stack(rows(t, y, list(torch.eye(plan.n, dtype=torch.float64))))
    return lambda t, y, lam: rows(t, y, [lam])[0]


_FUNCTIONS: dict[str, Callable[[Plan], Callable[..., torch.Tensor]]] = {
    "rhs": derivatives.rhs,
    "jac": lambda plan: lambda *args: derivatives.rhs_and_jacobian(plan)(*args)[1],
    "vjp": derivatives.state_vjp,
}
