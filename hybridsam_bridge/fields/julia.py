"""Right-hand sides that the user wrote in Julia."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hybridsam_bridge.errors import InvalidInput, UnsupportedOperation
from hybridsam_bridge.fields.base import Field
from hybridsam_bridge.fields.parameters import ParameterSet
from hybridsam_bridge.fields.plan import ParameterSpec, Part, Shape, SourcePart


class JuliaField(Field):
    """A right-hand side in Julia source: ``f!(du, u, p, t)``, or ``f!(du, u, p, t, c)`` with a context.

    The state is a vector: a ``state_shape`` of more dimensions arrives flattened in row-major order. ForwardDiff
    differentiates the function, so it must accept any number type (write ``similar(u)`` or ``eltype(du)`` for
    scratch, not ``zeros(n)``), unless derivatives are supplied.

    Args:
        source: Julia code, or the path of a .jl file.
        function: name of the entry point in it.
        state_shape: shape of one sample's state.
        parameters: a tensor ``(P,)``, handed over as the vector ``p``; or a dict of tensors, handed over as a
            NamedTuple (``p.k1`` is a number for a 0-d tensor, an array for others, indexed as in torch). Tensors
            become ``torch.nn.Parameter``s (a Parameter is kept as it is). Or an ``hsb.ParameterSet``: a NamedTuple
            of the physical values.
        takes_context: whether the function has the fifth argument: one sample's context, flattened.
        jacobian: name of a function ``jac!(J, u, p, t)`` in the source, writing df_i/du_j into ``J[i, j]``.
        paramjac: name of a function ``paramjac!(Jp, u, p, t)``, for df_i/dp_j with p flattened row-major. Used
            together with ``jacobian``.
        sparsity: rows and columns (zero-based) of the entries of df/du that may be nonzero, for large systems: two
            sequences, as of ``numpy.nonzero``.

    Raises:
        InvalidInput: the file is not there, or an argument is unusable.
        JuliaError: (at the first solve) the source does not parse or fails, with Julia's message, file and line.
    """

    def __init__(
        self,
        source: str | Path,
        function: str = "f!",
        state_shape: Shape = (),
        parameters: torch.Tensor | Mapping[str, torch.Tensor] | ParameterSet | None = None,
        *,
        takes_context: bool = False,
        jacobian: str | None = None,
        paramjac: str | None = None,
        sparsity: tuple[Any, Any] | None = None,
    ):
        super().__init__()
        self.state_shape = tuple(state_shape)
        if not self.state_shape:
            raise InvalidInput("state_shape: JuliaField needs the shape of one sample's state, such as (3,).")
        self.source, self.filename = _read(source)
        if not self.source.strip():
            raise InvalidInput(f"source: {self.filename} is empty; it must define {function}(du, u, p, t).")
        self.function = function
        self.takes_context = takes_context
        self.jacobian = jacobian
        self.paramjac = paramjac
        if paramjac is not None and jacobian is None:
            raise InvalidInput("paramjac: is used together with jacobian; give both.")
        self.sparsity = None if sparsity is None else _entries(sparsity, math.prod(self.state_shape))
        self.named = isinstance(parameters, (Mapping, ParameterSet))
        self.declared = parameters if isinstance(parameters, ParameterSet) else None
        if isinstance(parameters, Mapping):
            for name, value in parameters.items():
                if not name.isidentifier() or hasattr(self, name):
                    raise InvalidInput(f"parameters: {name!r} is not usable as a name; choose a plain identifier.")
                self.register_parameter(name, _parameter(name, value))
        elif parameters is not None and self.declared is None:
            self.register_parameter("p", _parameter("parameters", parameters))

    def parts(self, context_shape: Shape | None) -> tuple[tuple[Part, tuple[torch.Tensor, ...]], ...]:
        if self.takes_context and context_shape is None:
            raise InvalidInput("context: this JuliaField takes a context (takes_context=True), but none was given.")
        values = dict(self.named_parameters()) if self.declared is None else self.declared.values()
        named = list(values.items())
        part = SourcePart(
            source=self.source,
            function=self.function,
            filename=self.filename,
            parameters=tuple(ParameterSpec(name, tuple(value.shape)) for name, value in named),
            named=self.named,
            takes_context=self.takes_context,
            jacobian=self.jacobian,
            paramjac=self.paramjac,
            sparsity=self.sparsity,
        )
        return ((part, tuple(value for _, value in named)),)

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        raise UnsupportedOperation(
            f"{self.filename} is Julia source: torch cannot evaluate it. Solve it with hsb.solve on the Julia backend, "
            "or join it to a torch network with hsb.Additive."
        )


def _read(source: str | Path) -> tuple[str, str]:
    """Text and file name of ``source``: a path, or code."""
    looks_like_path = isinstance(source, Path) or (
        isinstance(source, str) and source.strip().endswith(".jl") and "\n" not in source.strip()
    )
    if not looks_like_path:
        return str(source), "JuliaField.jl"
    path = Path(source)
    try:
        return path.read_text(encoding="utf-8"), path.name
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"source: the Julia file {path} cannot be read ({error}). Check the path.") from error


def _entries(sparsity: Any, n: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    try:
        rows, columns = (np.asarray(x, dtype=np.int64).reshape(-1) for x in sparsity)
        good = len(rows) == len(columns) and all(((x >= 0) & (x < n)).all() for x in (rows, columns))
    except (TypeError, ValueError):
        good = False
    if not good:
        raise InvalidInput(f"sparsity: must be (rows, columns), two sequences of equal length of numbers below {n}.")
    return tuple(rows.tolist()), tuple(columns.tolist())


def _parameter(name: str, value: object) -> nn.Parameter:
    if isinstance(value, nn.Parameter):
        return value
    if not isinstance(value, (torch.Tensor, int, float)):
        raise InvalidInput(f"parameters: {name} must be a tensor, got {type(value).__name__}.")
    tensor = torch.as_tensor(value, dtype=None if isinstance(value, torch.Tensor) else torch.float64)
    if not tensor.dtype.is_floating_point:
        raise InvalidInput(f"parameters: {name} must be float32 or float64, got {tensor.dtype}. Use .double().")
    return nn.Parameter(tensor.detach().clone())
