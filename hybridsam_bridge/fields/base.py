"""Right-hand sides: the base class of all fields, and fields written in torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
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
        plan, values = planned(self, context_shape)
        return plan, flatten(values)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop("_hsb_plan", None)  # holds closures and compiled programs: rebuilt on demand
        return state


def planned(field: Field, context_shape: Shape | None) -> tuple[Plan, list[torch.Tensor]]:
    """As ``Field.plan``, with the parameters one by one as they are: ``flatten`` makes the vector of them."""
    marks, owned = _fingerprint(field)
    mass = None if isinstance(field.mass_matrix, torch.Tensor) else str(field.mass_matrix)
    stamp = (field.state_shape, context_shape, mass, marks)
    cached: _Cached | None = field.__dict__.get("_hsb_plan")
    if cached is not None and cached.stamp == stamp and cached.owned == owned and cached.values is not None:
        return cached.plan, cached.values
    pairs = field.parts(context_shape)
    values = [value for _, own in pairs for value in own]
    if cached is None or cached.stamp != stamp:
        plan = Plan(
            [part for part, _ in pairs],
            tuple(field.state_shape),
            context_shape,
            type(field).__name__,
            mass=mass_entries(field.mass_matrix, field.state_shape),
            stops=jump_times(field),
        )
    else:
        plan = cached.plan
    # Values that are computed from others must be computed anew each time.
    kept = values if all(id(value) in owned for value in values) else None
    field.__dict__["_hsb_plan"] = _Cached(stamp, plan, owned, kept)
    return plan, values


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


@dataclass(frozen=True)
class _Cached:
    """A field's plan, and its parameters if they are the module's own: alive here, so that ids stay theirs."""

    stamp: tuple[Any, ...]
    plan: Plan
    owned: tuple[int, ...]
    values: list[torch.Tensor] | None


def flatten(values: list[torch.Tensor]) -> torch.Tensor:
    """Parameters as one float64 vector (P,), connected to their graphs."""
    if not values:
        return torch.zeros(0, dtype=torch.float64)
    return torch.cat([v.reshape(-1).to(torch.float64) for v in values])


_PLAIN = (int, float, str, bool, type(None))
_EXACTLY_PLAIN = frozenset(_PLAIN)
_INTERNAL = frozenset(vars(nn.Module())) - {"training"}  # torch's own bookkeeping, hooks among it


def _fingerprint(module: nn.Module) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """What changes when a traced program could (structure, mode, buffers, plain attributes; not weights), and the
    identities of the parameters. Asked for at every solve.
    """
    marks: list[Any] = []
    owned: list[int] = []
    seen: set[int] = set()
    todo = [module]
    while todo:
        sub = todo.pop()
        if id(sub) in seen:  # shared by two parents
            marks.append(id(sub))
            continue
        seen.add(id(sub))
        marks.append(id(type(sub)))
        for key, value in sub.__dict__.items():
            if type(value) in _EXACTLY_PLAIN:
                marks += (key, value)
            elif key in _INTERNAL or key.startswith("_hsb"):
                continue
            elif isinstance(value, torch.Tensor):
                marks += (key, id(value), value._version)
            elif isinstance(value, (Grid, *_PLAIN)):
                marks += (key, value)
            elif isinstance(value, (tuple, list)) and all(isinstance(v, _PLAIN) for v in value):
                marks += (key, tuple(value))
        for key, parameter in sub._parameters.items():
            if parameter is not None:
                marks += (key, parameter.shape)
                owned.append(id(parameter))
        for key, buffer in sub._buffers.items():
            if buffer is not None:
                marks += (key, id(buffer), buffer._version)
        for key, child in sub._modules.items():
            if child is not None:
                marks.append(key)
                todo.append(child)
    return tuple(marks), tuple(owned)
