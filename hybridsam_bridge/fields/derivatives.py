"""Derivatives of a plan's right-hand side for one sample, as torch functions to be traced or vmapped.

All take (t, y, c, *more, params): 0-d t, y (n,), c (nc,), params one list of tensors over all parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from hybridsam_bridge.fields.plan import Plan, TorchPart
from hybridsam_bridge.fields.simplify import NotTraceable
from hybridsam_bridge.fields.tracing import uses_first

Params = Sequence[torch.Tensor]


def split_all(plan: Plan, p: torch.Tensor) -> list[torch.Tensor]:
    """Every part's parameters as views of the flat p (P,), in one list."""
    return [x for i in range(len(plan.parts)) for x in plan.split(i, p)]


def rhs(plan: Plan) -> Callable[..., torch.Tensor]:
    """f(t, y, c, params) -> dy (n,)."""
    parts = [part for part in plan.parts if isinstance(part, TorchPart)]

    def f(t: torch.Tensor, y: torch.Tensor, c: torch.Tensor, params: Params) -> torch.Tensor:
        start, total = 0, None
        for part in parts:
            count = len(part.parameters)
            value = part.fn(t, y, c, params[start : start + count])
            total = value if total is None else total + value
            start += count
        assert total is not None, "a plan has at least one part"
        return total

    return f


def rhs_and_jacobian(
    plan: Plan, time: bool = False
) -> Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
    """(t, y, c, params) -> dy (n,), its Jacobian (n, n), and its time derivative (n,) (None unless ``time``).

    Rows by reverse mode: n products for a square Jacobian, and a leaner trace than forward mode.
    """
    f = rhs(plan)

    def g(
        t: torch.Tensor, y: torch.Tensor, c: torch.Tensor, params: Params
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        rows = torch.eye(plan.n, dtype=y.dtype, device=y.device)
        value = torch.func.vjp(lambda t, y: f(t if time else t.detach(), y, c, params), t, y)
        dt, jac = torch.func.vmap(value[1])(rows)
        return value[0], jac, dt if time else None

    return g


def state_vjp(plan: Plan) -> Callable[..., torch.Tensor]:
    """(t, y, c, lam, params) -> Jᵀ lam (n,)."""
    f = rhs(plan)

    def g(t: torch.Tensor, y: torch.Tensor, c: torch.Tensor, lam: torch.Tensor, params: Params) -> torch.Tensor:
        return torch.func.vjp(lambda y: f(t, y, c, params), y)[1](lam)[0]

    return g


def depends_on_time(plan: Plan, device: torch.device) -> bool:
    """Whether f's graph uses t at all, in comparisons too; what cannot be traced is taken to."""
    if "depends_on_time" not in plan.memo:
        f = rhs(plan)
        with torch.inference_mode(False):
            t = torch.zeros((), dtype=torch.float64, device=device)
            y, c, p = (torch.ones(size, dtype=t.dtype, device=device) for size in (plan.n, plan.nc, plan.n_params))
            params = split_all(plan, p)
            try:
                used = uses_first(lambda t, y, c, params: f(t, y, c, params), [t, y, c], params)
            except NotTraceable:
                used = True
        plan.memo["depends_on_time"] = used
    return plan.memo["depends_on_time"]
