"""How much of the right-hand side the network explains."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hybridsam_bridge.fields.evaluate import evaluate_parts
from hybridsam_bridge.fields.hybrid import Additive


@dataclass(frozen=True)
class Share:
    """Shares between 0 (all science) and 1 (all network).

    Attributes:
        total: of each component of the state, ``state_shape``: ∫|network| dt / ∫(|science| + |network|) dt, the
            mean over the batch of both integrals.
        over_time: ``(*batch, T, *state_shape)``, the same ratio at each time.
        science, neural: ``(*batch, T, *state_shape)``, the two parts of dy/dt.
    """

    total: torch.Tensor
    over_time: torch.Tensor
    science: torch.Tensor
    neural: torch.Tensor


@torch.no_grad()
def explained_share(field: Additive, ts: torch.Tensor, ys: torch.Tensor, context: torch.Tensor | None = None) -> Share:
    """The network's share of dy/dt along trajectories ``ys`` ``(*batch, T, *state_shape)`` at ``ts`` (T,).

    Integrals by the trapezoidal rule, so ``ts`` should resolve the motion. A state at rest has share zero.

    Raises:
        UnsupportedOperation: a part is Julia source, which runs only inside a solve.
    """
    science, neural = evaluate_parts(field, ts, ys, context)
    time = ys.ndim - 1 - len(field.state_shape)
    theirs, own = science.abs(), neural.abs()
    over_time = _ratio(own, theirs + own)
    integrals = [torch.trapezoid(part, ts.double(), dim=time) for part in (own, theirs + own)]
    total = [part.reshape(-1, *field.state_shape).mean(0) for part in integrals]
    return Share(_ratio(*total), over_time, science, neural)


def _ratio(part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    return torch.where(whole > 0, part / whole.clamp(min=torch.finfo(whole.dtype).tiny), torch.zeros_like(whole))
