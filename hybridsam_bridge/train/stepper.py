"""One training step that never leaves weights that are not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from hybridsam_bridge.errors import BackendCrashed, HybridSAMError, InvalidInput, SolveFailed
from hybridsam_bridge.optim.ascent import all_finite
from hybridsam_bridge.train.parallel import Group

FAILURE_POLICIES = ("skip", "drop", "stop")


class _Failed(Exception):
    """The step must not be taken; leaves the optimizer's step, which restores what it perturbed."""


class Stepper:
    """Takes steps and counts those not taken, and samples dropped by the loss.

    A step fails where a solve does, or where the loss or a gradient is not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss_fn: Callable[[nn.Module, Any], torch.Tensor],
        on_failure: str,
        max_failures: int,
        group: Group,
    ):
        self.model, self.optimizer, self.loss_fn = model, optimizer, loss_fn
        self.on_failure, self.max_failures, self.group = on_failure, max_failures, group
        self.skipped, self.dropped, self.in_a_row = 0, 0, 0

    def take(self, batch: Any, weight: float, number: int) -> float:
        """One step. Returns the loss before it; nan where it was not taken."""

        def closure() -> torch.Tensor:
            self.optimizer.zero_grad()
            return self._loss_and_gradient(batch, weight)

        before = getattr(self.optimizer, "skipped", 0)
        try:
            loss: Any = self.optimizer.step(closure)  # type: ignore[arg-type]
        except _Failed as failure:
            return self._failed(str(failure), failure.__cause__, number)
        if getattr(self.optimizer, "skipped", 0) > before:
            return self._failed("a gradient is not finite", None, number)
        self.in_a_row = 0
        return self.group.mean(float(loss.detach()), weight)

    def _loss_and_gradient(self, batch: Any, weight: float) -> torch.Tensor:
        error: Exception | None = None
        reason = ""
        try:
            loss = self.loss_fn(self.model, batch)
            self.dropped += int(getattr(self.loss_fn, "dropped", 0))
            if not bool(torch.isfinite(loss)):
                reason = f"the loss is {float(loss.detach())}"
        except (SolveFailed, BackendCrashed) as failure:
            error, reason = failure, str(failure)
        # All processes decide together: one that stayed away from backward would leave the others waiting.
        if self.group.any(bool(reason)):
            raise _Failed(reason or "a solve failed in another process") from error
        try:
            (loss * weight if weight != 1.0 else loss).backward()
        except (SolveFailed, BackendCrashed) as failure:
            raise _Failed(str(failure)) from failure
        if not all_finite(p for group in self.optimizer.param_groups for p in group["params"]):
            raise _Failed("a gradient is not finite")
        return loss

    def _failed(self, reason: str, cause: BaseException | None, number: int) -> float:
        self.skipped += 1
        self.in_a_row += 1
        reason = reason.rstrip(".")
        if self.on_failure == "stop":
            self._raise(f"Training stopped at step {number}: {reason}.", cause)
        if self.in_a_row >= self.max_failures:
            self._raise(
                f"Training stopped at step {number} after {self.in_a_row} failed steps in a row: {reason}.", cause
            )
        return math.nan

    @staticmethod
    def _raise(text: str, cause: BaseException | None) -> None:
        hint = "Lower the learning rate or rho, bound the parameters, or start closer."
        if isinstance(cause, SolveFailed):
            raise SolveFailed(text, status=cause.status, sample=cause.sample, time=cause.time, hint=hint) from cause
        kind = type(cause) if isinstance(cause, BackendCrashed) else InvalidInput
        error: HybridSAMError = kind(f"{text} {hint}")
        raise error from cause

    def state_dict(self) -> dict[str, int]:
        return {"skipped": self.skipped, "dropped": self.dropped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.skipped, self.dropped, self.in_a_row = state["skipped"], state["dropped"], state["in_a_row"]
