"""LookSAM: the second pass only every few steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.optim.ascent import Item
from hybridsam_bridge.optim.sam import SAM, _check_number


class LookSAM(SAM):
    """SAM whose second gradient is taken every ``every`` steps and reused in between.

    A full step splits the gradient g_s at the perturbed point into its part along the clean gradient g and
    the rest g_v; the following steps use g + alpha (||g|| / ||g_v||) g_v, norms over all parameters. Costs
    1 + 1/every gradients a step; ``every=1`` is SAM.

    Args:
        every: steps from one second pass to the next.
        alpha: weight of the reused direction (the paper takes 0.5 to 1). The others are those of ``SAM``.

    Source: Liu et al., "Towards efficient and scalable sharpness-aware minimization", CVPR 2022
    (arXiv:2203.02714), Algorithm 1.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        rho: float = 0.05,
        every: int = 5,
        alpha: float = 0.7,
        perturb: Iterable[torch.Tensor] | None = None,
        *,
        clip_grad_norm: float | None = None,
    ):
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise InvalidInput(f"every: must be a positive integer, got {every!r}.")
        _check_number("alpha", alpha, least=0.0)
        self.every = every
        self.alpha = float(alpha)
        self.count = 0
        self.direction: list[torch.Tensor | None] = []
        super().__init__(base_optimizer, rho, False, perturb, clip_grad_norm=clip_grad_norm)

    def _sharp_step(self, closure: Callable[[], Any], grad_scaler: Any, items: list[Item]) -> Any:
        if grad_scaler is not None:
            raise InvalidInput("LookSAM.step: does not take a grad_scaler; use hsb.SAM with mixed precision.")
        full = self.count % self.every == 0 or not self.direction
        self.count += 1
        if full:
            return super()._sharp_step(closure, grad_scaler, items)
        self.zero_grad()
        loss = closure()
        self._add_direction()
        self._descend(grad_scaler, check=True)
        return loss

    def _climb_and_look(self, closure: Callable[[], Any], items: list[Item], randomness: Any, loss: Any) -> float:
        params = self._params()
        clean = [None if p.grad is None else p.grad.clone() for p in params]
        self.direction = []
        norm = super()._climb_and_look(closure, items, randomness, loss)
        if norm > 0.0:  # neither zero nor nan: a second pass ran
            self._keep_direction(clean, [p.grad for p in params])
        return norm

    def _keep_direction(self, clean: list[torch.Tensor | None], sharp: list[torch.Tensor | None]) -> None:
        square = _dot(clean, clean)
        if square == 0.0:
            return
        along = _dot(clean, sharp) / square
        self.direction = [
            None if s is None else (s.clone() if g is None else s - along * g)
            for g, s in zip(clean, sharp, strict=True)
        ]

    def _add_direction(self) -> None:
        grads = [p.grad for p in self._params()]
        rest = _dot(self.direction, self.direction) ** 0.5
        if rest == 0.0:
            return
        gain = self.alpha * _dot(grads, grads) ** 0.5 / rest
        for grad, step in zip(grads, self.direction, strict=False):
            if grad is not None and step is not None:
                grad.add_(step, alpha=gain)

    def _own_state(self) -> dict[str, Any]:
        return {**super()._own_state(), "count": self.count, "direction": self.direction}

    def _load_own_state(self, state: dict[str, Any]) -> None:
        super()._load_own_state(state)
        self.count = int(state.get("count", 0))
        self.direction = [None if v is None else v.clone() for v in state.get("direction", [])]


def _dot(left: list[torch.Tensor | None], right: list[torch.Tensor | None]) -> float:
    return sum(
        float(torch.sum(a.double() * b.double()))
        for a, b in zip(left, right, strict=False)
        if a is not None and b is not None
    )
