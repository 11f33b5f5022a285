"""Right-hand sides: the base class of all fields, and fields written in torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.fields.plan import ParameterSpec, Part, Plan, Shape, TorchPart, module_call
from hybridsam_bridge.fields.structure import jump_times, mass_entries
from hybridsam_bridge.pde.grid import Grid


class Field(nn.Module):
    """The right-hand side dy/dt = f(t, y, context) of one sample.

    ``state_shape`` is the shape of one sample's state. A field is called on single samples; ``hsb.solve``
    takes care of batches.

    ``mass_matrix`` makes it M dy/dt = f, with a constant M of ``state_shape`` (its diagonal) or ``(n, n)``. Where M
    has rows of zeros the system is differential-algebraic (of index 1, or it fails), and y0 must satisfy the
    algebraic equations.

    ``jumps`` are times at which f jumps; those of an ``hsb.SampledSignal`` need not be named. Steps end there.
    """

    state_shape: Shape
    mass_matrix: Any = None
    jumps: Sequence[float] = ()

    @abstractmethod
    def parts(self, context_shape: Shape | None) -> tuple[tuple[Part, tuple[torch.Tensor, ...]], ...]:
        """The summands of the right-hand side, each with its parameters in the order of its specs."""

    def plan(self, context_shape: Shape | None) -> tuple[Plan, torch.Tensor]:
        """The plan for that context shape (None: no context), and the flat float64 parameters (P,).

        The plan is kept until the module's structure, buffers or plain attributes change. The vector is
        connected to the parameters' graph.
        """
        stamp = (self.state_shape, context_shape, _fingerprint(self))
        pairs = self.parts(context_shape)
        cached = self.__dict__.get("_hsb_plan")
        if cached is None or cached[0] != stamp:
            built = Plan(
                [part for part, _ in pairs],
                tuple(self.state_shape),
                context_shape,
                type(self).__name__,
                mass=mass_entries(self.mass_matrix, self.state_shape),
                stops=jump_times(self),
            )
            cached = (stamp, built)
            self.__dict__["_hsb_plan"] = cached
        return cached[1], _flatten([value for _, values in pairs for value in values])

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop("_hsb_plan", None)  # holds closures and compiled programs: rebuilt on demand
        return state


class VectorField(Field):
    """A right-hand side written in torch.

    Subclasses set ``state_shape`` (class or instance attribute) and write
    ``forward(self, t, y, context=None)``: t is a 0-d tensor, y has ``state_shape``, context the shape of one
    sample's context or None. It returns dy/dt of ``state_shape``. It must be a pure function of its
    arguments and parameters: no randomness, no in-place change of its inputs, no branching on values
    (use ``torch.where``).
    """

    def parts(self, context_shape: Shape | None) -> tuple[tuple[Part, tuple[torch.Tensor, ...]], ...]:
        return (torch_part(self, self.state_shape, context_shape),)


def torch_part(
    module: nn.Module, state_shape: Shape, context_shape: Shape | None
) -> tuple[TorchPart, tuple[torch.Tensor, ...]]:
    """The part, with its parameters, for a module called as ``module(t, y, context)``."""
    named = list(module.named_parameters())
    specs = tuple(ParameterSpec(name, tuple(value.shape)) for name, value in named)
    fn = module_call(module, [name for name, _ in named], tuple(state_shape), context_shape)
    return TorchPart(fn, specs, type(module).__name__), tuple(value for _, value in named)


def check_field(field: object) -> Field:
    """Refuse what is not a field, or has no usable ``state_shape``."""
    if not isinstance(field, Field):
        raise InvalidInput(
            f"field: expected an hsb.VectorField or hsb.JuliaField, got {type(field).__name__}. "
            "Subclass hsb.VectorField and write forward(self, t, y, context=None) for one sample."
        )
    shape = getattr(field, "state_shape", None)
    if isinstance(shape, int):
        raise InvalidInput(f"field.state_shape: must be a tuple of sizes, write ({shape},) instead of {shape}.")
    if not isinstance(shape, (tuple, list, torch.Size)) or not all(isinstance(s, int) and s > 0 for s in shape):
        raise InvalidInput(
            f"field.state_shape: {type(field).__name__} must set state_shape to a tuple of positive sizes, "
            f"such as (3,); it is {shape!r}."
        )
    return field


def _flatten(values: list[torch.Tensor]) -> torch.Tensor:
    if not values:
        return torch.zeros(0, dtype=torch.float64)
    return torch.cat([v.reshape(-1).to(torch.float64) for v in values])


_PLAIN = (int, float, str, bool, type(None))


def _fingerprint(module: nn.Module) -> tuple[Any, ...]:
    """Changes when a traced program could: structure, mode, buffers, plain attributes; not weights."""
    marks: list[Any] = []
    for name, sub in module.named_modules():
        marks.append((name, id(type(sub)), sub.training))
        for key, value in sub.__dict__.items():
            if isinstance(value, _PLAIN) and not key.startswith("_hsb"):
                marks.append((key, value))
            elif isinstance(value, (tuple, list)) and all(isinstance(v, _PLAIN) for v in value):
                marks.append((key, tuple(value)))
            elif isinstance(value, torch.Tensor):
                marks.append((key, id(value), value._version))
            elif isinstance(value, Grid):
                marks.append((key, value))
        marks.extend((key, tuple(p.shape)) for key, p in sub._parameters.items() if p is not None)
        marks.extend((key, id(b), b._version) for key, b in sub._buffers.items() if b is not None)
    return tuple(marks)
