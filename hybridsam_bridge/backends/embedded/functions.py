"""The batched functions of a plan: rows of (t, u, c) in, rows or sums out, traced once a model and device.

Rows are (N,), (N, n), (N, nc). A function that cannot be traced runs under vmap as it is. Only the right-hand
side is traced for every plan; plans with the same one share the rest, whatever their weights.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch

from hybridsam_bridge.errors import UnsupportedOperation
from hybridsam_bridge.fields import derivatives
from hybridsam_bridge.fields.plan import Plan
from hybridsam_bridge.fields.simplify import NotTraceable
from hybridsam_bridge.fields.tracing import Program, trace_batched

Tensor = torch.Tensor
Params = Sequence[Tensor]


_MOST_KNOWN = 64
_lock = threading.Lock()
_programs: OrderedDict[Any, dict[str, Program | None]] = OrderedDict()


def _known(same: Any, rhs: Program | None) -> dict[str, Program | None]:
    """The programs kept under ``same`` (None: kept nowhere), the least recently used ones forgotten."""
    if same is None:
        return {"rhs": rhs}
    with _lock:
        programs = _programs.setdefault(same, {"rhs": rhs})
        _programs.move_to_end(same)
        if len(_programs) > _MOST_KNOWN:
            _programs.popitem(last=False)
    return programs


class Functions:
    """A plan's functions at parameters p (P,), on p's device. Bound on first use."""

    def __init__(self, plan: Plan, p: Tensor):
        self.plan = plan
        self.params = [x.contiguous() for x in derivatives.split_all(plan, p.detach())]
        self.device = p.device
        self.timed = derivatives.depends_on_time(plan, p.device)
        self._bound: dict[str, Callable[..., Any]] = {}

    def rhs(self, t: Tensor, u: Tensor, c: Tensor) -> Tensor:
        """f (N, n)."""
        return self._call("rhs", t, u, c)

    def rhs_jac(self, t: Tensor, u: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """f (N, n), J (N, n, n) and f_t (N, n), the last None where f does not depend on t."""
        return self._call("rhs_jac", t, u, c)

    def state_vjp(self, t: Tensor, u: Tensor, c: Tensor, mu: Tensor) -> Tensor:
        """Jᵀ mu (N, n)."""
        return self._call("state_vjp", t, u, c, mu)

    def curvature(self, t: Tensor, u: Tensor, c: Tensor, m: Tensor, v: Tensor) -> Tensor:
        """∇_u [Σ_ab m_ab J_ab + Σ_a v_a f_t,a] (N, n), for m (N, n, n) and v (N, n)."""
        return self._call("curvature", t, u, c, m, v)

    def parameter_vjp(self, t: Tensor, u: Tensor, c: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        """∇_p Σ mu·f (P,), summed over the rows, and ∇_c (N, nc)."""
        return self._flat(self._call("parameter_vjp", t, u, c, mu))

    def parameter_curvature(self, t: Tensor, u: Tensor, c: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """∇_p Σ [m·J + v·f_t] (P,), summed over the rows, and ∇_c (N, nc)."""
        return self._flat(self._call("parameter_curvature", t, u, c, m, v))

    def _flat(self, grads: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        gc, *gp = grads
        empty = torch.zeros(0, dtype=torch.float64, device=self.device)
        return torch.cat([g.reshape(-1) for g in gp]) if gp else empty, gc

    def _call(self, name: str, *rows: Tensor) -> Any:
        bound = self._bound.get(name)
        if bound is None:
            bound = self._bound[name] = self._bind(name)
        return bound(*rows)

    def _bind(self, name: str) -> Callable[..., Any]:
        fn = _BUILDERS[name](self.plan, self.timed)
        programs = self._programs()
        if name not in programs:
            programs[name] = self._trace(name, fn)
        program = programs[name]
        if program is None:
            return lambda *rows: fn(*rows, self.params)
        return program.bind(self.params)

    def _programs(self) -> dict[str, Program | None]:
        """The traced functions so far, by name: those of every plan whose right-hand side is the same program."""
        key = ("embedded", str(self.device))
        if key not in self.plan.memo:
            rhs = self._trace("rhs", _BUILDERS["rhs"](self.plan, self.timed))
            shapes = tuple(tuple(x.shape) for x in self.params)
            same = None if rhs is None else (rhs.identity(), shapes, self.plan.n, self.plan.nc, str(self.device))
            self.plan.memo[key] = _known(same, rhs)
        return self.plan.memo[key]

    def _trace(self, name: str, fn: Callable[..., Any]) -> Any:
        n, nc = self.plan.n, self.plan.nc
        shapes: dict[str, list[tuple[int, ...]]] = {
            "rhs": [],
            "rhs_jac": [],
            "state_vjp": [(n,)],
            "parameter_vjp": [(n,)],
            "curvature": [(n, n), (n,)],
            "parameter_curvature": [(n, n), (n,)],
        }
        like: Any = {"dtype": torch.float64, "device": self.device}
        example = [torch.ones(shape, **like) for shape in [(), (n,), (nc,), *shapes[name]]]
        try:
            return trace_batched(fn, example, self.params, [True] * len(example))
        except NotTraceable:
            _check_batchable(self.plan, fn, example, self.params)
            return None


def _check_batchable(plan: Plan, fn: Callable[..., Any], example: list[Tensor], params: Params) -> None:
    """Refuse a field that vmap cannot take, before the first step."""
    try:
        fn(*[x.expand(2, *x.shape).contiguous() for x in example], params)
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
        raise UnsupportedOperation(
            f"{plan.name}.forward cannot be evaluated on a batch: {reason} Write choices on values with torch.where, "
            'draw random numbers outside of it, or use backend="scipy", which runs any torch code.'
        ) from error


def batched_rhs(plan: Plan) -> Callable[..., Tensor]:
    """f of rows, as (t, u, c, params) -> (N, n), differentiable to any order."""
    f = derivatives.rhs(plan)
    return lambda t, u, c, params: torch.func.vmap(lambda t, u, c: f(t, u, c, params))(t, u, c)


def batched_rhs_jac(plan: Plan, timed: bool) -> Callable[..., tuple[Tensor, Tensor, Tensor | None]]:
    """f, J and f_t (or None) of rows."""
    g = derivatives.rhs_and_jacobian(plan, timed)

    def rows(t: Tensor, u: Tensor, c: Tensor, params: Params) -> tuple[Tensor, Tensor, Tensor | None]:
        if timed:
            return torch.func.vmap(lambda t, u, c: g(t, u, c, params))(t, u, c)
        return (*torch.func.vmap(lambda t, u, c: g(t, u, c, params)[:2])(t, u, c), None)

    return rows


def _state_vjp(plan: Plan, timed: bool) -> Callable[..., Tensor]:
    f = batched_rhs(plan)
    return lambda t, u, c, mu, params: torch.func.vjp(lambda u: f(t, u, c, params), u)[1](mu)[0]


def _parameter_vjp(plan: Plan, timed: bool) -> Callable[..., Sequence[Tensor]]:
    f = batched_rhs(plan)

    def rows(t: Tensor, u: Tensor, c: Tensor, mu: Tensor, params: Params) -> Sequence[Tensor]:
        gc, gp = torch.func.vjp(lambda c, ps: f(t, u, c, ps), c, list(params))[1](mu)
        return [gc, *gp]

    return rows


def _contracted(plan: Plan, timed: bool) -> Callable[..., Tensor]:
    """Σ over rows of m·J + v·f_t, a scalar."""
    g = batched_rhs_jac(plan, timed)

    def total(t: Tensor, u: Tensor, c: Tensor, m: Tensor, v: Tensor, params: Params) -> Tensor:
        _, jac, dt = g(t, u, c, params)
        out = (m * jac).sum()
        return out if dt is None else out + (v * dt).sum()

    return total


def _curvature(plan: Plan, timed: bool) -> Callable[..., Tensor]:
    total = _contracted(plan, timed)
    return lambda t, u, c, m, v, params: torch.func.grad(lambda u: total(t, u, c, m, v, params))(u)


def _parameter_curvature(plan: Plan, timed: bool) -> Callable[..., Sequence[Tensor]]:
    total = _contracted(plan, timed)

    def rows(t: Tensor, u: Tensor, c: Tensor, m: Tensor, v: Tensor, params: Params) -> Sequence[Tensor]:
        gc, gp = torch.func.grad(lambda c, ps: total(t, u, c, m, v, ps), argnums=(0, 1))(c, list(params))
        return [gc, *gp]

    return rows


_BUILDERS: dict[str, Callable[[Plan, bool], Callable[..., Any]]] = {
    "rhs": lambda plan, timed: batched_rhs(plan),
    "rhs_jac": batched_rhs_jac,
    "state_vjp": _state_vjp,
    "parameter_vjp": _parameter_vjp,
    "curvature": _curvature,
    "parameter_curvature": _parameter_curvature,
}
