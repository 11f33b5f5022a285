"""Tensors that stand for nodes while a right-hand side runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from hybridsam_bridge.lowering.ir import Node


class Symbol(torch.Tensor):
    """A tensor that stands for a node. It has no storage, so that nothing can read numbers out of it unseen."""

    node: Node
    value: torch.Tensor  # example numbers, for shapes and dtypes

    @staticmethod
    def make(node: Node, value: torch.Tensor, requires_grad: bool = False) -> Symbol:
        if node.shape != tuple(value.shape):
            raise AssertionError(f"{node.op}: traced shape {node.shape}, torch has {tuple(value.shape)}")
        if value.is_floating_point():
            value = value.to(torch.float64)  # also what the user calls float32: the solver has one precision
        if value._is_zerotensor():  # torch's zeros without memory, which would bring its own multiplication
            value = torch.zeros(value.shape, dtype=value.dtype)
        made: Symbol = torch.Tensor._make_wrapper_subclass(
            Symbol, value.shape, dtype=value.dtype, requires_grad=requires_grad
        )
        made.node, made.value = node, value.contiguous()
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Symbol({self.node.op}, {tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise AssertionError("a symbol was used outside its recorder")


# torch computes these products of a vector with operators that write in place.
def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    if x.dim() != 1 or weight.dim() != 2:
        return torch.nn.functional.linear(x, weight, bias)
    product = torch.mv(weight, x)
    return product if bias is None else product + bias


def _matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if isinstance(b, torch.Tensor) and a.dim() == 1 and b.dim() == 2:
        return torch.mv(b.t(), a)
    return torch.matmul(a, b)


# torch pads around the ends with operators that write in place or have no simple derivative.
def _pad(x: torch.Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> torch.Tensor:
    if mode == "constant":
        return torch.nn.functional.pad(x, pad, mode, value)
    for i in range(len(pad) // 2):
        axis = x.dim() - 1 - i
        before, after, n = pad[2 * i], pad[2 * i + 1], x.shape[axis]
        limit = {"circular": n, "reflect": n - 1}.get(mode)
        if limit is not None and max(before, after) > limit:
            raise RuntimeError(f"padding of {max(before, after)} is too wide for mode={mode!r} on an axis of {n}")
        low, high, x = (
            max(before, 0),
            max(after, 0),
            x.narrow(axis, max(-before, 0), n + min(before, 0) + min(after, 0)),
        )
        ends = _ends(x, axis, low, high, mode)
        x = torch.cat([e for e in (ends[0], x, ends[1]) if e.shape[axis]], axis)
    return x


def _ends(x: torch.Tensor, axis: int, low: int, high: int, mode: str) -> tuple[torch.Tensor, torch.Tensor]:
    n = x.shape[axis]
    if mode == "circular":
        return x.narrow(axis, n - low, low), x.narrow(axis, 0, high)
    if mode == "reflect":
        return x.narrow(axis, 1, low).flip(axis), x.narrow(axis, n - 1 - high, high).flip(axis)
    if mode != "replicate":
        raise RuntimeError(f"padding mode {mode!r} is not known")

    def repeated(part: torch.Tensor, count: int) -> torch.Tensor:
        return part.expand([count if a == axis else s for a, s in enumerate(x.shape)])

    return repeated(x.narrow(axis, 0, 1), low), repeated(x.narrow(axis, n - 1, 1), high)


# The number of boundaries below a value; torch reads a single value out of its tensor.
def _bucketize(x: Any, boundaries: torch.Tensor, *, out_int32: bool = False, right: bool = False) -> torch.Tensor:
    if not isinstance(x, Symbol):
        return torch.bucketize(x, boundaries, out_int32=out_int32, right=right)
    below = boundaries <= x.unsqueeze(-1) if right else boundaries < x.unsqueeze(-1)
    return below.sum(-1)


def _searchsorted(boundaries: torch.Tensor, x: Any, **options: Any) -> torch.Tensor:
    if not isinstance(x, Symbol) or boundaries.dim() != 1 or options.get("sorter") is not None:
        return torch.searchsorted(boundaries, x, **options)
    return _bucketize(x, boundaries, right=options.get("right", False) or options.get("side") == "right")


def _getitem(x: torch.Tensor, index: Any) -> torch.Tensor:
    if isinstance(index, Symbol) and index.dim() == 0 and index.dtype in (torch.int64, torch.int32):
        return x.index_select(0, index.reshape(1)).squeeze(0)
    return x[index]


_SPELLED: dict[Any, Callable[..., torch.Tensor]] = {
    torch.nn.functional.linear: _linear,
    torch.matmul: _matmul,
    torch.Tensor.matmul: _matmul,
    torch.Tensor.__matmul__: _matmul,
    torch.nn.functional.pad: _pad,
    torch.Tensor.__getitem__: _getitem,
    torch.bucketize: _bucketize,
    torch.searchsorted: _searchsorted,
}


class Spelling(TorchFunctionMode):
    """Spells some functions so that torch does not compute them in place."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _SPELLED.get(func, func)(*args, **(kwargs or {}))
