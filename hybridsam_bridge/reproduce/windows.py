"""What several studies share: windows of long sequences, and networks of dense layers."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.objectives.data import Trajectories


def windows(data: Trajectories, length: int, stride: int | None = None, *, with_start: bool = False) -> Trajectories:
    """Windows of ``length`` points, each from its own first state: more, shorter solves for training.

    Args:
        data: B sequences of measured states on evenly spaced times, with nothing missing.
        stride: points between the starts of windows; None takes ``length`` (no overlap).
        with_start: bring the time at which each window starts as context (n, 1); the windows' own times start at 0.
    """
    steps = data.ts.diff()
    if not bool(data.mask.all()) or not torch.allclose(steps, steps[0].expand(len(steps))):
        raise InvalidInput("windows: needs evenly spaced times and no missing values.")
    if not 2 <= length <= len(data.ts):
        raise InvalidInput(f"length: must be 2 to {len(data.ts)}, the points of a sequence, got {length}.")
    starts = range(0, len(data.ts) - length + 1, stride or length)
    y = torch.cat([data.y[:, s : s + length] for s in starts])
    context = torch.cat([data.ts[s].expand(len(data), 1) for s in starts]) if with_start else None
    return Trajectories(data.ts[:length] - data.ts[0], y, y0=y[:, 0], context=context)


def mlp(*sizes: int) -> nn.Sequential:
    """Dense layers of these sizes with tanh between them, in float64, weights from torch's global generator."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers[:-1]).double()
