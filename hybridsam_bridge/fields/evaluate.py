"""Right-hand sides at given states, without a solve: what penalties and diagnostics look at."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from hybridsam_bridge.errors import InvalidInput, UnsupportedOperation
from hybridsam_bridge.fields.base import Field, flatten
from hybridsam_bridge.fields.hybrid import Additive, Pair
from hybridsam_bridge.fields.plan import Plan, Shape


def evaluate_field(
    field: Field, ts: torch.Tensor, ys: torch.Tensor, context: torch.Tensor | None = None
) -> torch.Tensor:
    """dy/dt of ``field`` at ``ys``, differentiable in the states and the parameters.

    Args:
        ts: ``(T,)``. ys: ``(*batch, T, *state_shape)``. context: ``(*batch, *any)``.

    Returns:
        the shape of ``ys``, float64.

    Raises:
        UnsupportedOperation: the field has Julia source, which runs only inside a solve.
    """
    return _evaluate(field.parts(_context_shape(field, ys, context)), field, ts, ys, context)


def evaluate_parts(
    field: Additive, ts: torch.Tensor, ys: torch.Tensor, context: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The science and the gated network of an ``Additive`` apart; see ``evaluate_field``."""
    science, neural = field.split(_context_shape(field, ys, context))
    return _evaluate(science, field, ts, ys, context), _evaluate(neural, field, ts, ys, context)


def find_additive(model: torch.nn.Module) -> Additive:
    """The outermost ``Additive`` in a model. Raises ``InvalidInput`` if there is none."""
    for sub in model.modules():
        if isinstance(sub, Additive):
            return sub
    raise InvalidInput(f"model: {type(model).__name__} has no hsb.Additive whose parts could be told apart.")


def _context_shape(field: Field, ys: torch.Tensor, context: torch.Tensor | None) -> Shape | None:
    if context is None:
        return None
    batch = ys.ndim - 1 - len(field.state_shape)
    return tuple(context.shape[batch:])


def _evaluate(
    pairs: Iterable[Pair], field: Field, ts: torch.Tensor, ys: torch.Tensor, context: torch.Tensor | None
) -> torch.Tensor:
    pairs = tuple(pairs)
    plan = Plan([part for part, _ in pairs], tuple(field.state_shape), _context_shape(field, ys, context), "parts")
    if not plan.is_torch:
        raise UnsupportedOperation(
            f"{type(field).__name__} has Julia source, which is evaluated only inside a solve; write that part as an "
            "hsb.VectorField to use it here."
        )
    p = flatten([value for _, values in pairs for value in values])
    flat = ys.reshape(-1, len(ts), plan.n).double()
    c = flat.new_zeros(len(flat), 0) if context is None else context.reshape(len(flat), -1).double()
    over_time = torch.func.vmap(plan, in_dims=(0, 0, None, None))
    return torch.func.vmap(over_time, in_dims=(None, 0, 0, None))(ts.double(), flat, c, p).reshape(ys.shape)
