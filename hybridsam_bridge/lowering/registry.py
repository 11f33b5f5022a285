"""The one registry of operators: how each ATen operator becomes nodes.

Three kinds of entries, all found by the operator's name without overload and without ``_copy``:

- ``@entry(names)``: ``f(g, out, *args, **kwargs) -> Node | sequence``. Tensor arguments arrive as nodes;
  ``out`` is torch's own result for example numbers and gives shapes and dtypes.
- ``@literal(names)``: as ``entry``, for factories whose result is known from the structure.
- ``@composite(names)``: ``f(*tensors, ...)`` written in torch; what it calls is looked up in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from hybridsam_bridge.errors import UnsupportedOperation

Handler = Callable[..., Any]

ENTRIES: dict[str, Handler] = {}
COMPOSITES: dict[str, Handler] = {}
LITERALS: set[str] = set()

# Operators whose result, or whose result's shape, Python or torch takes from the values themselves.
DATA_DEPENDENT = frozenset(
    {
        "_local_scalar_dense",
        "item",
        "is_nonzero",
        "equal",
        "nonzero",
        "masked_select",
        "_unique2",
        "unique_dim",
        "allclose",
    }
)


def entry(*names: str) -> Callable[[Handler], Handler]:
    """Register a handler that builds nodes."""

    def add(handler: Handler) -> Handler:
        for name in names:
            if name in ENTRIES or name in COMPOSITES:
                raise AssertionError(f"two entries for {name}")
            ENTRIES[name] = handler
        return handler

    return add


def literal(*names: str) -> Callable[[Handler], Handler]:
    """Register a factory whose result is a literal."""
    LITERALS.update(names)
    return entry(*names)


def composite(*names: str) -> Callable[[Handler], Handler]:
    """Register an operator by its definition in torch."""

    def add(handler: Handler) -> Handler:
        for name in names:
            if name in ENTRIES or name in COMPOSITES:
                raise AssertionError(f"two entries for {name}")
            COMPOSITES[name] = handler
        return handler

    return add


def operator_name(func: Any) -> str:
    """``aten.add.Tensor`` -> ``add``; ``aten.view_copy.default`` -> ``view``."""
    name = str(func._schema.name).split("::")[-1]
    return name if name == "copy" else name.removesuffix("_copy")


def out_of_place(func: Any) -> Any | None:
    """The operator of the same overload that returns a new tensor instead of changing its first argument."""
    name = str(func._schema.name).split("::")[-1]
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None
    if packet is None:
        return None
    for overload in (f"Tensor_{func._overloadname}", func._overloadname):  # pow_.Scalar is pow.Tensor_Scalar
        if overload in packet.overloads():
            return getattr(packet, overload)
    return None


def kind_of(dtype: torch.dtype) -> str:
    """The node dtype for a torch dtype."""
    if dtype is torch.bool:
        return "b"
    return "f" if dtype.is_floating_point else "i"


def unsupported(func: Any, where: str, name: str) -> UnsupportedOperation:
    """The error for an operator without an entry."""
    if name in DATA_DEPENDENT:
        return UnsupportedOperation(
            f"{where}: the right-hand side branches on, or converts to a Python number, a value that depends on "
            f"t, y, context or the parameters ({func}). A compiled program has no Python branches: use "
            'torch.where(condition, a, b), torch.clamp or a mask, or solve with backend="torch" or '
            'backend="scipy", which run any torch code.'
        )
    if torch.Tag.nondeterministic_seeded in func.tags:
        return UnsupportedOperation(
            f"{where}: the right-hand side draws random numbers ({func}); a solve needs the same value for the "
            "same arguments. Call model.eval() to switch dropout off, or pass the numbers in through context."
        )
    if name.endswith("_") and not name.endswith("__"):
        return UnsupportedOperation(
            f"{where}: the right-hand side changes one of its arguments, parameters or buffers in place ({func}). "
            "It must be a pure function: work on a clone, and keep batch norm in eval mode."
        )
    return UnsupportedOperation(
        f"{where}: the operator {func} has no translation to Julia. Rewrite it with elementwise functions, "
        'indexing, matrix products or sums, or solve with backend="torch" or backend="scipy", which run any '
        "torch code."
    )


class Refused(Exception):
    """Raised by a handler for arguments that it does not cover; the text says which."""
