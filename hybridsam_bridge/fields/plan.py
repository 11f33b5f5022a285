"""A plan: the right-hand side of one field at given sizes, as every backend takes it.

A plan is a sum of parts. A torch part is a function of plain tensors, traced on demand; a source part is
Julia code. Each owns a contiguous slice of the flat parameter vector ``p``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hybridsam_bridge.errors import InvalidInput

Shape = tuple[int, ...]
Entries = tuple[NDArray[np.int64], NDArray[np.int64]]  # rows and columns of a matrix's entries


@dataclass(frozen=True)
class ParameterSpec:
    """Name and shape of one parameter in its part's slice of ``p`` (row-major, in order)."""

    name: str
    shape: Shape

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class TorchPart:
    """``fn(t, y, c, params) -> dy``: 0-d t, y (n,), c (nc,), one tensor a parameter; dy (n,)."""

    fn: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Sequence[torch.Tensor]], torch.Tensor]
    parameters: tuple[ParameterSpec, ...]
    name: str


@dataclass(frozen=True)
class SourcePart:
    """Julia source with an entry point ``f!(du, u, p, t)`` (or five arguments, context last).

    ``named`` says whether ``p`` is handed over as a NamedTuple of its parameters or as one flat vector.
    ``jacobian`` and ``paramjac`` name the user's own derivative functions, if any. ``gain`` (n,) scales
    the result, a plain tuple so that the part stays plain data. ``sparsity`` has the rows and columns of the
    Jacobian's entries, if the user gave them.
    """

    source: str
    function: str
    filename: str
    parameters: tuple[ParameterSpec, ...]
    named: bool
    takes_context: bool = False
    jacobian: str | None = None
    paramjac: str | None = None
    gain: tuple[float, ...] | None = None
    sparsity: tuple[tuple[int, ...], tuple[int, ...]] | None = None


Part = TorchPart | SourcePart


class Plan:
    """The right-hand side of ``field`` for a state of ``n`` and a context of ``nc`` numbers a sample.

    Attributes:
        parts: what is summed. slices: each part's slice of ``p``.
        n, nc, n_params: sizes of the flat state, context and parameters.
        mass: entries and values of M in M dy/dt = f, None for the identity.
        stops: sorted times at which f may jump; steps end there.
        memo: what backends and the lowering derive from the plan, by their own keys.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        state_shape: Shape,
        context_shape: Shape | None,
        name: str,
        *,
        mass: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]] | None = None,
        stops: Sequence[float] = (),
    ):
        self.parts = tuple(parts)
        self.mass = mass
        self.stops = np.array(stops, dtype=np.float64)
        self.state_shape = state_shape
        self.context_shape = context_shape
        self.name = name
        self.n = math.prod(state_shape)
        self.nc = 0 if context_shape is None else math.prod(context_shape)
        self.slices: list[slice] = []
        start = 0
        for part in self.parts:
            size = sum(spec.size for spec in part.parameters)
            self.slices.append(slice(start, start + size))
            start += size
        self.n_params = start
        self.memo: dict[Any, Any] = {}

    @property
    def is_torch(self) -> bool:
        """Whether every part is a torch function."""
        return all(isinstance(part, TorchPart) for part in self.parts)

    def split(self, index: int, p: torch.Tensor) -> list[torch.Tensor]:
        """Parameters of part ``index`` as views of the flat vector ``p`` (P,)."""
        out, start = [], self.slices[index].start
        for spec in self.parts[index].parameters:
            out.append(p[start : start + spec.size].view(spec.shape))
            start += spec.size
        return out

    def __call__(self, t: torch.Tensor, y: torch.Tensor, c: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        """dy (n,) of one sample in torch: y (n,), c (nc,), p (P,). Torch parts only."""
        total = None
        for i, part in enumerate(self.parts):
            if not isinstance(part, TorchPart):
                raise TypeError(f"{part.filename} is Julia source and cannot be evaluated in torch")
            value = part.fn(t, y, c, self.split(i, p))
            total = value if total is None else total + value
        assert total is not None, "a plan has at least one part"
        return total


def module_call(module: nn.Module, names: Sequence[str], state_shape: Shape, context_shape: Shape | None) -> Callable:
    """A torch part's ``fn`` for a module called as ``module(t, y, context)`` on shaped, single samples."""

    def fn(t: torch.Tensor, y: torch.Tensor, c: torch.Tensor, params: Sequence[torch.Tensor]) -> torch.Tensor:
        context = None if context_shape is None else c.reshape(context_shape)
        values = dict(zip(names, params, strict=True))
        dy = torch.func.functional_call(module, values, (t, y.reshape(state_shape), context))
        if not isinstance(dy, torch.Tensor) or dy.shape != state_shape:
            got = tuple(dy.shape) if isinstance(dy, torch.Tensor) else type(dy).__name__
            raise InvalidInput(
                f"field: {type(module).__name__}.forward must return a tensor of state_shape {state_shape}, it "
                f"returned {got}. It is called on one sample at a time: y has no batch dimension."
            )
        return dy.reshape(-1)

    return fn
