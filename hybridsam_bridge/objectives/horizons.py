"""Long chaotic or oscillating data: horizons that grow, and multiple shooting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from hybridsam_bridge.errors import InvalidInput, UnsupportedOperation
from hybridsam_bridge.fields.base import Field, VectorField
from hybridsam_bridge.fields.hybrid import is_torch
from hybridsam_bridge.models.initial_value import InitialValueModel
from hybridsam_bridge.objectives.data import Batch, Trajectories
from hybridsam_bridge.objectives.noise import Gaussian


class GrowingHorizon:
    """Training data that reach further as training goes on: pass it to ``Trainer.fit`` in place of the data.

    Args:
        data: the trajectories.
        stages: (step, time) pairs, steps increasing from 0: from that step on the data up to that time are used;
            a time of None means all.
    """

    def __init__(self, data: Trajectories, stages: Sequence[tuple[int, float | None]]):
        steps = [step for step, _ in stages]
        if not stages or steps[0] != 0 or any(b <= a for a, b in pairwise(steps)):
            raise InvalidInput(f"stages: steps must increase from 0, got {steps}.")
        self.stages = [(step, (data if time is None else data.until(float(time))).whole()) for step, time in stages]

    def at(self, step: int) -> Batch:
        """The batch to use at a step."""
        return next(batch for start, batch in reversed(self.stages) if start <= step)


class MultipleShooting(nn.Module):
    """The data loss over short segments with initial states of their own, tied together at their ends.

    All segments of all trajectories are solved as one batch, so errors grow over a segment only, and the loss
    stays smooth where a single long solve of a chaotic system has none of that. Called as
    ``loss(model, batch)``; the batch is ignored (the loss holds the data and one state for each segment's start,
    which are parameters: hand them to the optimizer, too).

    Args:
        model: an ``hsb.InitialValueModel``; its field must be in torch unless ``autonomous``.
        data: the trajectories; every value counts once, those at a joint in the segment that ends there.
        segments: how many, of equal numbers of time points (the last may be shorter).
        weight: of the mean squared gap between a segment's end and the next one's start, in units of ``scale``.
        starts: ``(B, segments, *state_shape)`` initial guess of the segments' states; None takes the data (where
            states are measured) at the segments' first times.
        scale: typical size of each state, ``state_shape``; None takes the spread of ``starts``.
        noise: as in ``hsb.DataLoss``.
        autonomous: the field does not depend on t, so that it needs no shifted clock.

    Attributes:
        gap: the last mean squared gap.

    Source: Bock & Plitt, "A multiple shooting algorithm for direct solution of optimal control problems", IFAC
    1984; as a penalty for neural ODEs: Turan & Jäschke, IEEE Control Systems Letters 2022 (arXiv:2109.06786).
    """

    scale: torch.Tensor
    grid: torch.Tensor
    offset: torch.Tensor
    end: torch.Tensor
    y: torch.Tensor
    mask: torch.Tensor

    def __init__(
        self,
        model: InitialValueModel,
        data: Trajectories,
        segments: int,
        weight: float = 1.0,
        *,
        starts: torch.Tensor | None = None,
        scale: torch.Tensor | None = None,
        noise: nn.Module | None = None,
        autonomous: bool = False,
    ):
        super().__init__()
        if not isinstance(segments, int) or not 1 <= segments <= len(data.ts) - 1:
            raise InvalidInput(
                f"segments: must be from 1 to {len(data.ts) - 1} (the steps between times), got {segments!r}."
            )
        if not (math.isfinite(weight) and weight >= 0):
            raise InvalidInput(f"weight: must be finite and not negative, got {weight!r}.")
        if not autonomous and not is_torch(model.field):
            raise UnsupportedOperation(
                "MultipleShooting: a field with Julia source cannot be given a shifted clock; pass autonomous=True if "
                "it does not depend on t."
            )
        self.noise = Gaussian() if noise is None else noise
        self.weight, self.autonomous, self.gap = float(weight), autonomous, math.nan
        length = -(-(len(data.ts) - 1) // segments)
        self.first = list(range(0, len(data.ts) - 1, length))
        self.last = [min(i + length, len(data.ts) - 1) for i in self.first]
        self._lay_out(data)
        if starts is None:
            starts = self._starts_from_data(data, tuple(model.field.state_shape))
        wanted = (len(data), len(self.first), *model.field.state_shape)
        if tuple(starts.shape) != wanted:
            raise InvalidInput(f"starts: must have shape {wanted}, got {tuple(starts.shape)}.")
        self.starts = nn.Parameter(starts.detach().clone().double())
        spread = self.starts.detach().flatten(0, 1).std(0, correction=0) if scale is None else torch.as_tensor(scale)
        self.register_buffer("scale", spread.double().clamp(min=1e-12))

    def _lay_out(self, data: Trajectories) -> None:
        """Times relative to each segment's start, joined to one grid, and the data on that grid."""
        ts = data.ts.double()
        relative = [ts[a : b + 1] - ts[a] for a, b in zip(self.first, self.last, strict=True)]
        # Differences of a regular grid disagree in the last digits: those are one time.
        unit = float(torch.cat(relative).max()) * 1e-9
        ticks = [torch.round(r / unit).long() for r in relative]
        grid = torch.unique(torch.cat(ticks))
        shape = (len(data), len(self.first), len(grid), *data.y.shape[2:])
        y, mask = torch.ones(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.bool)
        for s, (a, b) in enumerate(zip(self.first, self.last, strict=True)):
            at = torch.searchsorted(grid, ticks[s])
            own = slice(0 if s == 0 else 1, None)  # a joint belongs to the segment that ends there
            y[:, s, at[own]] = data.y[:, a : b + 1][:, own].double()
            mask[:, s, at[own]] = data.mask[:, a : b + 1][:, own]
        self.register_buffer("grid", grid.double() * unit)
        self.register_buffer("offset", ts[self.first])
        self.register_buffer("end", torch.stack([torch.searchsorted(grid, t[-1]) for t in ticks]))
        self.register_buffer("y", y)
        self.register_buffer("mask", mask)
        self.context = data.given["context"]

    def _starts_from_data(self, data: Trajectories, state_shape: tuple[int, ...]) -> torch.Tensor:
        if tuple(data.y.shape[2:]) != state_shape or not bool(data.mask[:, self.first].all()):
            raise InvalidInput("starts: the data do not hold every state at every segment's start; pass starts.")
        starts = data.y[:, self.first].double().clone()
        y0 = data.given["y0"]
        if y0 is not None:
            starts[:, 0] = y0.double()
        return starts

    def forward(self, model: InitialValueModel, batch: Batch | None = None) -> torch.Tensor:
        """Mean negative log-likelihood plus the weighted gap."""
        ys = self.solve(model)
        predicted = ys if model.observe is None else model.observe(ys)
        nll = self.noise(torch.where(self.mask, predicted, self.y), self.y)
        fit = torch.where(self.mask, nll, torch.zeros_like(nll)).sum() / self.mask.sum()
        index = torch.arange(len(self.first) - 1)
        ends = ys[:, index, self.end[:-1]]
        gaps = ((ends - self.starts[:, 1:]) / self.scale).square()
        gap = gaps.mean() if gaps.numel() else gaps.sum()
        self.gap = float(gap.detach())
        return fit + self.weight * gap

    def solve(self, model: InitialValueModel) -> torch.Tensor:
        """States of all segments on the common relative grid, ``(B, segments, T, *state_shape)``."""
        count = self.starts.shape[0] * len(self.first)
        context = None
        if self.context is not None:
            own = self.context.reshape(len(self.context), 1, -1).double()
            context = own.expand(-1, len(self.first), -1).reshape(count, *self.context.shape[1:])
        if not self.autonomous:
            clock = self.offset.repeat(self.starts.shape[0]).reshape(count, 1)
            context = clock if context is None else torch.cat([context.reshape(count, -1), clock], 1)
        moved = self._moved(model)
        solution = moved.solve(self.grid, self.starts.flatten(0, 1), context)
        model.__dict__["last"] = moved.last
        return solution.ys.reshape(*self.starts.shape[:2], *solution.ys.shape[1:])

    def _moved(self, model: InitialValueModel) -> InitialValueModel:
        """The model with the shifted clock, kept so that its field is traced once."""
        kept = self.__dict__.get("_kept")
        if kept is None or kept[0] is not model:
            shape = None if self.context is None else tuple(self.context.shape[1:])
            field = model.field if self.autonomous else _Shifted(model.field, shape)
            kept = (model, InitialValueModel(field, **model.solver))
            self.__dict__["_kept"] = kept
        return kept[1]


class _Shifted(VectorField):
    """A field whose clock starts at the last number of the context."""

    def __init__(self, field: Field, context_shape: tuple[int, ...] | None):
        super().__init__()
        self.field, self.inner_shape = field, context_shape
        self.state_shape = tuple(field.state_shape)

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        assert context is not None, "the clock is in the context"
        inner = None if self.inner_shape is None else context[:-1].reshape(self.inner_shape)
        return self.field(t + context[-1], y, inner)
