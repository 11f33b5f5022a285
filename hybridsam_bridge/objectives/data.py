"""Measured trajectories, and the loss of a model on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.objectives.noise import Gaussian, Noise

Batch = dict[str, torch.Tensor]


class Trajectories(Dataset):
    """Measurements of B trajectories on one grid of times, with holes where nothing was measured.

    Args:
        ts: ``(T,)`` strictly increasing; the first is the time of the initial state.
        y: ``(B, T, *observed)``; NaN marks a missing value.
        y0: ``(B, *state_shape)`` known initial states, or None (the model then has its own).
        context: ``(B, *any)`` per-sample inputs of the field, or None.
        inputs: ``(B, *any)`` what an ``hsb.ParameterEncoder`` encodes, or None.

    Items are dicts of single samples; ``collate`` joins them to a batch with keys ts, y, mask (False where
    missing) and, where given, y0, context and inputs.
    """

    def __init__(
        self,
        ts: torch.Tensor,
        y: torch.Tensor,
        y0: torch.Tensor | None = None,
        context: torch.Tensor | None = None,
        inputs: torch.Tensor | None = None,
    ):
        if ts.ndim != 1 or len(ts) < 2 or not bool((ts[1:] > ts[:-1]).all()):
            raise InvalidInput("ts: must hold at least two strictly increasing times.")
        if y.ndim < 2 or y.shape[1] != len(ts):
            raise InvalidInput(f"y: must be (B, T, ...) with T = {len(ts)} times, got shape {tuple(y.shape)}.")
        self.given = {"y0": y0, "context": context, "inputs": inputs}
        for name, value in self.given.items():
            if value is not None and len(value) != len(y):
                raise InvalidInput(f"{name}: has {len(value)} samples, y has {len(y)}.")
        self.ts = ts
        self.mask = ~torch.isnan(y)
        if not bool(self.mask.any()):
            raise InvalidInput("y: every value is missing (NaN).")
        self.y = torch.where(self.mask, y, torch.ones_like(y))  # a number that every noise model can take

    @classmethod
    def from_samples(
        cls,
        ts: Sequence[torch.Tensor],
        y: Sequence[torch.Tensor],
        y0: torch.Tensor | None = None,
        context: torch.Tensor | None = None,
        inputs: torch.Tensor | None = None,
    ) -> Trajectories:
        """Samples with times of their own, ``ts[i]`` (T_i,) and ``y[i]`` (T_i, *observed), on the union grid.

        All are taken to start at the earliest time of all.
        """
        if len(ts) != len(y) or not len(ts):
            raise InvalidInput(f"ts: one sequence of times a sample is needed, got {len(ts)} for {len(y)} samples.")
        grid = torch.unique(torch.cat([torch.as_tensor(t) for t in ts]))
        full = torch.full((len(y), len(grid), *y[0].shape[1:]), torch.nan, dtype=y[0].dtype)
        for i, (t, value) in enumerate(zip(ts, y, strict=True)):
            if len(t) != len(value):
                raise InvalidInput(f"y: sample {i} has {len(value)} values at {len(t)} times.")
            full[i, torch.searchsorted(grid, t)] = value
        return cls(grid, full, y0, context, inputs)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> Batch:
        item = {"ts": self.ts, "y": self.y[index], "mask": self.mask[index]}
        item.update({name: value[index] for name, value in self.given.items() if value is not None})
        return item

    def collate(self, items: Sequence[Batch]) -> Batch:
        """One batch of items; the times are common."""
        batch = {key: torch.stack([item[key] for item in items]) for key in items[0] if key != "ts"}
        return {"ts": self.ts, **batch}

    def whole(self) -> Batch:
        """All samples as one batch."""
        return self.collate([self[i] for i in range(len(self))])

    def until(self, time: float) -> Trajectories:
        """The measurements up to ``time`` (at least two grid points), for growing horizons."""
        count = max(2, int((self.ts <= time).sum()))
        y = torch.where(self.mask, self.y, torch.full_like(self.y, torch.nan))
        return Trajectories(self.ts[:count], y[:, :count], **self.given)


class DataLoss(nn.Module):
    """Mean negative log-likelihood of a batch's measurements, plus penalties: ``loss(model, batch)``.

    Each sample's loss is the mean over its measured values. A sample whose solve failed (on_failure="nan")
    is left out of the mean and counted in ``dropped``; its gradient is zero. If all failed, the loss is NaN.

    Args:
        noise: how measurements scatter; ``Gaussian()`` by default.
        penalties: objects called as ``penalty(model, batch)`` that return a number to add.
        predict: ``predict(model, batch)`` -> ``(B, T, *observed)``; by default the model is called with the
            batch's ts, y0, context and inputs.
    """

    def __init__(
        self,
        noise: Noise | None = None,
        penalties: Sequence[Callable[[nn.Module, Batch], torch.Tensor]] = (),
        predict: Callable[[nn.Module, Batch], torch.Tensor] | None = None,
    ):
        super().__init__()
        self.noise: Noise = Gaussian() if noise is None else noise
        self.penalties = list(penalties)
        self.predict = predict or predict_batch
        self.dropped = 0

    def forward(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        losses, good = self.per_sample(model, batch)
        self.dropped = int((~good).sum())
        total = losses.sum() / good.sum()
        for penalty in self.penalties:
            total = total + penalty(model, batch)
        return total

    def total(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Negative log-likelihood summed over all measured values, without penalties."""
        return self._entries(model, batch)[0].sum()

    def per_sample(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of each sample (B,), zero where its solve failed, and which did not fail (B,)."""
        nll, good = self._entries(model, batch)
        return nll.flatten(1).sum(1) / batch["mask"].flatten(1).sum(1).clamp(min=1), good

    def _entries(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        predicted = self.predict(model, batch)
        observed, mask = batch["y"], batch["mask"]
        predicted = predicted.expand(observed.shape) if predicted.ndim < observed.ndim else predicted
        if predicted.shape != observed.shape:
            raise InvalidInput(f"y: has shape {tuple(observed.shape)}, the model predicts {tuple(predicted.shape)}.")
        good = torch.isfinite(predicted.detach()).flatten(1).all(1)
        # A NaN that is only multiplied by zero still poisons the gradient: replace it before it is used.
        used = mask & good.reshape(-1, *[1] * (mask.ndim - 1))
        nll = self.noise(torch.where(used, predicted, observed), observed)
        return torch.where(used, nll, torch.zeros_like(nll)), good


def predict_batch(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Call the model with what the batch has of ts, y0, context and inputs."""
    given: dict[str, Any] = {key: batch[key] for key in ("y0", "context", "inputs") if key in batch}
    return model(batch["ts"], **given)
