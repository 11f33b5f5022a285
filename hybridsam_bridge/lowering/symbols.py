"""Tensors that stand for nodes while a right-hand side runs."""

from __future__ import annotations

from collections.abc import Callable
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


_VECTOR_PRODUCTS: dict[Any, Callable[..., torch.Tensor]] = {
    torch.nn.functional.linear: _linear,
    torch.matmul: _matmul,
    torch.Tensor.matmul: _matmul,
    torch.Tensor.__matmul__: _matmul,
}


class Spelling(TorchFunctionMode):
    """Spells products with a vector so that torch does not compute them in place."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _VECTOR_PRODUCTS.get(func, func)(*args, **(kwargs or {}))
