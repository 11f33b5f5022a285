"""Science plus network in one right-hand side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.fields.base import Field, VectorField, torch_part
from hybridsam_bridge.fields.plan import ParameterSpec, Part, Shape, TorchPart
from hybridsam_bridge.fields.roles import NEURAL, SCIENCE

Pair = tuple[Part, tuple[torch.Tensor, ...]]


class Additive(VectorField):
    """dy/dt = science(t, y, context) + scale * mask * neural(y), or M dy/dt with the science's mass matrix.

    Each part is a field (called with t, y and context) or a plain ``nn.Module``, called on y alone; both
    return ``state_shape``. Either may be an ``hsb.JuliaField``; the sum then runs in Julia.

    Args:
        science, neural: the parts. ``hsb.scientific_parameters`` and ``hsb.neural_parameters`` follow them.
        mask: ``state_shape`` of bool, where the network acts; None for everywhere.
        scale: a number or a tensor that broadcasts to ``state_shape``, in the units of dy/dt over those of
            the network's output; an ``nn.Parameter`` is trained (as part of the network).
        state_shape: needed only if neither part is a field.

    Raises:
        InvalidInput: parts, mask or scale do not fit each other.
    """

    hsb_roles = {"science": SCIENCE, "neural": NEURAL, "": NEURAL}  # noqa: RUF012 - never changed

    mask: torch.Tensor | None
    scale: torch.Tensor | None

    def __init__(
        self,
        science: nn.Module,
        neural: nn.Module,
        mask: torch.Tensor | Sequence[Any] | None = None,
        scale: float | torch.Tensor | None = None,
        *,
        state_shape: Shape | None = None,
    ):
        super().__init__()
        self.state_shape = _common_shape({"science": science, "neural": neural}, state_shape)
        self.science = science
        self.neural = neural
        self.register_buffer("mask", None if mask is None else as_mask(mask, self.state_shape))
        value = None if scale is None else as_scale(scale, self.state_shape)
        if isinstance(value, nn.Parameter):
            if not is_torch(neural):
                raise InvalidInput("scale: cannot be trained on a network in Julia; pass a number or a plain tensor.")
            self.scale = value
        else:
            self.register_buffer("scale", value)

        if isinstance(science, Field):
            self.mass_matrix = science.mass_matrix

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """dy/dt of one sample, y of ``state_shape``."""
        added = call_part(self.neural, t, y, context)
        if added.shape != y.shape:
            raise InvalidInput(
                f"neural: {type(self.neural).__name__} must return the state_shape {tuple(y.shape)}, it returned "
                f"{tuple(added.shape)}."
            )
        if self.mask is not None:
            added = added * self.mask
        if self.scale is not None:
            added = added * self.scale
        return call_part(self.science, t, y, context) + added

    def parts(self, context_shape: Shape | None) -> tuple[Pair, ...]:
        """One traced part if all is torch, else the summands apart."""
        if is_torch(self):
            return super().parts(context_shape)
        science, neural = self.split(context_shape)
        return (*science, *neural)

    def split(self, context_shape: Shape | None) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
        """The summands of the science, and those of the network with mask and scale."""
        gain = torch.ones(self.state_shape, dtype=torch.float64)
        if self.mask is not None:
            gain = gain * self.mask
        science = _pairs(self.science, self.state_shape, context_shape)
        return science, tuple(self._neural_pairs(context_shape, gain))

    def _neural_pairs(self, context_shape: Shape | None, gain: torch.Tensor) -> list[Pair]:
        pairs = _pairs(self.neural, self.state_shape, context_shape)
        if isinstance(self.scale, nn.Parameter):
            return [_trained_scale(pair, self.scale, gain.reshape(-1), self.state_shape) for pair in pairs]
        if self.scale is not None:
            gain = gain * self.scale
        return [_fixed_gain(pair, gain.reshape(-1)) for pair in pairs]


def is_torch(module: nn.Module) -> bool:
    """Whether no part of it is Julia source."""
    return not any(isinstance(sub, Field) and not isinstance(sub, VectorField) for sub in module.modules())


def call_part(module: nn.Module, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
    """A field gets t, y and context; any other module y alone."""
    return module(t, y, context) if isinstance(module, Field) else module(y)


class _OnState(nn.Module):
    """A plain module with a field's arguments."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        return self.module(y)


def _pairs(module: nn.Module, state_shape: Shape, context_shape: Shape | None) -> tuple[Pair, ...]:
    if isinstance(module, Field):
        return module.parts(context_shape)
    return (torch_part(_OnState(module), state_shape, context_shape),)


def _fixed_gain(pair: Pair, gain: torch.Tensor) -> Pair:
    part, values = pair
    if not isinstance(part, TorchPart):
        before = (1.0,) * len(gain) if part.gain is None else part.gain
        return replace(part, gain=tuple(a * b for a, b in zip(before, gain.tolist(), strict=True))), values
    inner = part.fn

    def fn(t: torch.Tensor, y: torch.Tensor, c: torch.Tensor, params: Sequence[torch.Tensor]) -> torch.Tensor:
        return inner(t, y, c, params) * gain

    return replace(part, fn=fn), values


def _trained_scale(pair: Pair, scale: nn.Parameter, gain: torch.Tensor, state_shape: Shape) -> Pair:
    part, values = pair
    assert isinstance(part, TorchPart), "refused when the field was made"
    inner = part.fn

    def fn(t: torch.Tensor, y: torch.Tensor, c: torch.Tensor, params: Sequence[torch.Tensor]) -> torch.Tensor:
        factor = params[-1].expand(state_shape).reshape(-1) * gain
        return inner(t, y, c, params[:-1]) * factor

    specs = (*part.parameters, ParameterSpec("scale", tuple(scale.shape)))
    return replace(part, fn=fn, parameters=specs), (*values, scale)


def _common_shape(parts: dict[str, Any], given: Shape | None) -> Shape:
    shapes = {} if given is None else {"state_shape": tuple(given)}
    for name, part in parts.items():
        if not isinstance(part, nn.Module):
            raise InvalidInput(f"{name}: must be a field or a torch.nn.Module, got {type(part).__name__}.")
        if isinstance(part, Field):
            shapes[name] = tuple(part.state_shape)
    if not shapes:
        raise InvalidInput("Additive: neither part is a field, so pass state_shape=(n,), the shape of one sample.")
    if len(set(shapes.values())) > 1:
        raise InvalidInput(f"Additive: the parts have different state shapes: {shapes}.")
    return next(iter(shapes.values()))


def as_mask(mask: Any, shape: Shape) -> torch.Tensor:
    """A float64 mask of ones and zeros of that shape."""
    value = torch.as_tensor(mask)
    if tuple(value.shape) != shape:
        raise InvalidInput(f"mask: must have the shape {shape}, got shape {tuple(value.shape)}.")
    if not bool(((value == 0) | (value == 1)).all()):
        raise InvalidInput("mask: must hold only True and False (or 1 and 0); use scale for other factors.")
    return value.to(torch.float64)


def as_scale(scale: Any, shape: Shape | None = None) -> torch.Tensor:
    """A finite scale, an ``nn.Parameter`` as it is; it must broadcast to ``shape`` if one is given."""
    value = scale if isinstance(scale, nn.Parameter) else torch.as_tensor(scale, dtype=torch.float64)
    if not bool(torch.isfinite(value).all()):
        raise InvalidInput(f"scale: must be finite, got {value.tolist()}.")
    if shape is not None:
        try:
            value.expand(shape)
        except RuntimeError:
            text = f"scale: shape {tuple(value.shape)} does not broadcast to state_shape {shape}."
            raise InvalidInput(text) from None
    return value
