"""Which inputs a network saw in training, and how far others lie from them. Needs no retraining and no truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.fields.base import Field
from hybridsam_bridge.fields.hybrid import Additive, call_part
from hybridsam_bridge.fields.roles import NEURAL, parameter_roles
from hybridsam_bridge.models.initial_value import InitialValueModel
from hybridsam_bridge.objectives import Trajectories
from hybridsam_bridge.trust.spaces import Array
from hybridsam_bridge.trust.trials import run_model

MAX_STATES = 400  # of a set of trajectories, evenly taken; fields are evaluated one state at a time
_MARGIN = 0.02  # of the visited width, so that a rounding beyond the edge does not count

Inputs = Callable[[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


@dataclass
class Coverage:
    """How a set of network inputs lies to those of the training.

    Attributes:
        residual: root mean square of what lies outside the span of the training inputs, over that of the inputs.
        outside: fraction of inputs with a coordinate beyond the visited range, in the principal axes of the
            training inputs.
        dimension: numbers in one input of the network. rank: directions that the training visited.
    """

    residual: float
    outside: float
    dimension: int
    rank: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


class VisitedInputs:
    """Span and range of the training inputs ``(m, d)``.

    Directions with less than ``tolerance`` of the largest singular value count as not visited.
    """

    def __init__(self, inputs: Array, tolerance: float = 1e-2):
        if inputs.ndim != 2 or not len(inputs):
            raise InvalidInput(f"inputs: must be (samples, dimension) with at least one sample, got {inputs.shape}.")
        _, values, right = np.linalg.svd(inputs, full_matrices=False)
        kept = values > tolerance * values[0] if values[0] > 0 else np.zeros(len(values), dtype=bool)
        self.axes = right[kept].T
        coordinates = inputs @ self.axes
        low, high = coordinates.min(axis=0), coordinates.max(axis=0)
        self.low, self.high = low - _MARGIN * (high - low), high + _MARGIN * (high - low)

    def compare(self, inputs: Array) -> Coverage:
        """Coverage of other inputs ``(m, d)``."""
        coordinates = inputs @ self.axes
        rest = inputs - coordinates @ self.axes.T
        size = float(np.sqrt(np.mean(inputs**2)))
        beyond = ((coordinates < self.low) | (coordinates > self.high)).any(axis=1)
        return Coverage(
            residual=float(np.sqrt(np.mean(rest**2))) / size if size > 0 else 0.0,
            outside=float(np.mean(beyond)),
            dimension=inputs.shape[1],
            rank=self.axes.shape[1],
        )


def network_inputs(
    model: nn.Module,
    ts: torch.Tensor,
    ys: torch.Tensor,
    context: torch.Tensor | None = None,
    inputs: Inputs | None = None,
) -> Array | None:
    """What reaches the network's first layer along trajectories: ``(m, d)``, or None if there is no network.

    A network applied point by point on a grid gives one input a point (d is its number of channels); one that
    takes the whole state gives d of its size; a convolution gives its patches.

    A field (also that of an ``hsb.InitialValueModel``) is evaluated at the states given. Any other module, such as
    ``hsb.OutputCorrected``, is called with ts, the first states and the context, and solves its own trajectories.

    Args:
        ts: ``(T,)``. ys: ``(B, T, *state_shape)``; states with NaN are left out. context: ``(B, *any)`` or None.
        inputs: for networks without a Linear or Conv layer in front: ``inputs(model, t, y, context)`` -> ``(m, d)``.
    """
    layers = [] if inputs is not None else _first_layers(model)
    if inputs is None and not layers:
        return None
    caught: list[torch.Tensor] = []
    seen: list[nn.Module] = []

    def catch(module: nn.Module, args: tuple[Any, ...]) -> None:
        if not seen:
            seen.append(module)  # only the layer reached first sees the network's input
        if seen[0] is module:
            caught.append(_rows(module, args[0].detach()))

    handles = [layer.register_forward_pre_hook(catch) for layer in layers]
    field = model.field if isinstance(model, InitialValueModel) else model
    try:
        with torch.no_grad():
            if inputs is None and not isinstance(field, Field):
                run_model(model, Trajectories(ts, ys, y0=ys[:, 0], context=context), {})
            for b, i in _states(ys) if inputs is not None or isinstance(field, Field) else ():
                c = None if context is None else context[b]
                if inputs is not None:
                    caught.append(torch.atleast_2d(inputs(model, ts[i], ys[b, i], c)).detach())
                elif isinstance(field, Additive):  # its science may be Julia source, and says nothing here
                    call_part(field.neural, ts[i], ys[b, i], c)
                else:
                    field(ts[i], ys[b, i], c)
    finally:
        for handle in handles:
            handle.remove()
    if not caught:
        return None
    found = torch.cat(caught).double()
    return found[torch.isfinite(found).all(-1)].numpy()


def _states(ys: torch.Tensor) -> list[tuple[int, int]]:
    good = torch.nonzero(torch.isfinite(ys).flatten(2).all(-1)).tolist()
    stride = max(1, -(-len(good) // MAX_STATES))
    return [(b, i) for b, i in good[::stride]]


def _first_layers(model: nn.Module) -> list[nn.Module]:
    """Layers of networks that could be first: linear and convolutional ones with neural parameters."""
    roles = parameter_roles(model)
    names = {name.rpartition(".")[0] for name, role in roles.items() if role == NEURAL}
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    return [module for name, module in model.named_modules() if name in names and isinstance(module, kinds)]


def _rows(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, layer.in_features)
    if isinstance(layer, nn.Conv1d):
        x = x.reshape(-1, layer.in_channels, x.shape[-1])
        windows = x.unfold(-1, layer.kernel_size[0], 1)
        return windows.transpose(1, 2).reshape(-1, layer.in_channels * layer.kernel_size[0])
    assert isinstance(layer, nn.Conv2d), "the kinds that _first_layers returns"
    x = x.reshape(-1, layer.in_channels, *x.shape[-2:])
    columns = nn.functional.unfold(x, layer.kernel_size)
    return columns.transpose(1, 2).reshape(-1, columns.shape[1])
