"""Step-size control of a batch: every row has its own error, step and history."""

from __future__ import annotations

import torch

from hybridsam_bridge.backends.embedded.functions import Functions
from hybridsam_bridge.backends.embedded.tableaus import Tableau

Tensor = torch.Tensor

_SAFETY, _SHRINK_MOST, _GROW_MOST = 0.9, 5.0, 10.0
_SMALLEST_ERROR = 1e-4  # what the controller takes for the previous error at least


def error_norm(error: Tensor, u: Tensor, new: Tensor, rtol: float, atol: Tensor) -> Tensor:
    """Root mean square of error / (atol + rtol max(|u|, |new|)), (N,)."""
    scale = torch.maximum(u.abs(), new.abs()).mul_(rtol).add_(atol)
    ratio = error / scale
    return (ratio * ratio).mean(1).sqrt_()


class Controller:
    """The PI controller of Hairer and Wanner (IV.2), with exponents 0.7/k and 0.4/k for a method of order k."""

    def __init__(self, tableau: Tableau):
        self._now, self._before = 0.7 / tableau.order, 0.4 / tableau.order

    def factors(self, error: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """What to divide a step by if it was accepted, and if it was rejected; before is the last error."""
        grown = error.pow(self._now)
        rejected = (grown / _SAFETY).clamp_(max=_SHRINK_MOST)
        accepted = (grown / before.pow(self._before) / _SAFETY).clamp_(1 / _GROW_MOST, _SHRINK_MOST)
        return accepted, torch.where(torch.isfinite(error), rejected, _SHRINK_MOST)

    @staticmethod
    def remember(error: Tensor) -> Tensor:
        return error.clamp(min=_SMALLEST_ERROR)


def initial_step(
    functions: Functions, tableau: Tableau, t: Tensor, u: Tensor, c: Tensor, span: float, rtol: float, atol: Tensor
) -> tuple[Tensor, Tensor]:
    """First steps (N,) by Hairer, Nørsett and Wanner (II.4), and f at the start (N, n)."""
    scale = atol + rtol * u.abs()
    scale = torch.where(scale > 0, scale, torch.finfo(scale.dtype).tiny)

    def norm(x: Tensor) -> Tensor:
        return (x / scale).square().mean(1).sqrt()

    f = functions.rhs(t, u, c)
    d0, d1 = norm(u), norm(f)
    tiny = (d0 < 1e-5) | (d1 < 1e-5)
    first = torch.where(tiny, torch.full_like(d0, 1e-6), 0.01 * d0 / d1).clamp(max=span)
    d2 = norm(functions.rhs(t + first, u + first[:, None] * f, c) - f) / first
    largest = torch.maximum(d1, d2)
    flat = torch.clamp(first * 1e-3, min=1e-6)
    second = torch.where(largest <= 1e-15, flat, (0.01 / largest).pow(1 / (tableau.order + 1)))
    step = torch.minimum(100 * first, second)
    step = torch.where(torch.isfinite(step) & (step > 0), step, first)
    return step.clamp(max=span), f
