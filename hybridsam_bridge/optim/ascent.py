"""The perturbation of sharpness-aware minimization, free of overflow and underflow."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from hybridsam_bridge.errors import InvalidInput


@dataclass(frozen=True)
class Item:
    """One perturbed parameter with the radius and the kind of its group."""

    param: torch.Tensor
    rho: float
    adaptive: bool


@dataclass(frozen=True)
class Ascent:
    """``norm`` of the gradient over all items, and one (parameter, ε) an item: none where it is 0 or nan."""

    norm: float
    moves: list[tuple[torch.Tensor, torch.Tensor]]


def ascent(items: Iterable[Item], eta: float) -> Ascent:
    """ε = ρ T u / ||u|| with u = T g, the norm over all items together; T = |w| + eta where adaptive, else 1.

    The norm is that of u / max|u| times max|u|, in float64: gradients of 1e-200 or 1e200, which a stiff
    model can well have, neither vanish nor overflow when squared.
    """
    items = [item for item in items if item.param.grad is not None]
    scaled = [_scaled_gradient(item, eta) for item in items]
    largest = max((float(u.abs().max()) for u in scaled if u.numel()), default=0.0)
    if any(not bool(torch.isfinite(u).all()) for u in scaled):
        return Ascent(math.nan, [])
    if largest == 0.0:
        return Ascent(0.0, [])
    units = [u / largest for u in scaled]
    length = math.sqrt(sum(float(torch.linalg.vector_norm(u, dtype=torch.float64)) ** 2 for u in units))
    moves = []
    for item, unit in zip(items, units, strict=True):
        move = unit * (item.rho / length)
        if item.adaptive:
            move = move * (item.param.abs() + eta)
        moves.append((item.param, move.to(item.param.dtype)))
    return Ascent(largest * length, moves)


def _scaled_gradient(item: Item, eta: float) -> torch.Tensor:
    grad = item.param.grad
    assert grad is not None, "items without a gradient were left out"
    if grad.is_sparse:
        raise InvalidInput("SAM: a perturbed parameter has a sparse gradient; use sparse=False in its layer.")
    grad = grad if grad.dtype in (torch.float32, torch.float64) else grad.float()
    return grad * (item.param.abs() + eta) if item.adaptive else grad


def all_finite(params: Iterable[torch.Tensor]) -> bool:
    """Whether every gradient that is there is finite."""
    return all(bool(torch.isfinite(p.grad).all()) for p in params if p.grad is not None)
