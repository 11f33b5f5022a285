"""Entries of reductions, running sums and softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from hybridsam_bridge.lowering.ir import Graph, Node
from hybridsam_bridge.lowering.registry import composite, entry, kind_of


def _axes(x: Node, dim: Any) -> list[int]:
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return list(range(len(x.shape)))
    return [dim] if isinstance(dim, int) else list(dim)


@entry("sum")
def _sum(g: Graph, out: Any, x: Node, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Node:
    return g.reduce("sum", x, _axes(x, dim), keepdim, kind_of(out.dtype))


@entry("mean")
def _mean(g: Graph, out: Any, x: Node, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Node:
    axes = _axes(x, dim)
    count = math.prod(x.shape[a] for a in axes) if x.shape else 1
    return g.ew("div", g.reduce("sum", x, axes, keepdim), float(count))


@entry("prod")
def _prod(g: Graph, out: Any, x: Node, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Node:
    return g.reduce("prod", x, _axes(x, dim), keepdim, kind_of(out.dtype))


@entry("amax")
def _amax(g: Graph, out: Any, x: Node, dim: Sequence[int] = (), keepdim: bool = False) -> Node:
    return g.reduce("max", x, _axes(x, dim), keepdim, x.dtype)


@entry("amin")
def _amin(g: Graph, out: Any, x: Node, dim: Sequence[int] = (), keepdim: bool = False) -> Node:
    return g.reduce("min", x, _axes(x, dim), keepdim, x.dtype)


def _extreme(g: Graph, kind: str, x: Node, dim: Any, keepdim: bool) -> Any:
    if dim is None:
        return g.reduce(kind, x, _axes(x, None), False, x.dtype)
    if isinstance(dim, Node):  # max(a, b)
        return g.ew({"max": "maximum", "min": "minimum"}[kind], x, dim)
    if not x.shape:
        return x, g.full(0.0, (), "i")
    return g.reduce(kind, x, [dim], keepdim, x.dtype), g.reduce("arg" + kind, x, [dim], keepdim, "i")


@entry("max")
def _max(g: Graph, out: Any, x: Node, dim: Any = None, keepdim: bool = False) -> Any:
    return _extreme(g, "max", x, dim, keepdim)


@entry("min")
def _min(g: Graph, out: Any, x: Node, dim: Any = None, keepdim: bool = False) -> Any:
    return _extreme(g, "min", x, dim, keepdim)


def _arg(g: Graph, kind: str, x: Node, dim: int | None, keepdim: bool) -> Node:
    if dim is None:
        flat = g.reshape(x, (x.size,))
        return g.reduce(kind, flat, [0], keepdim, "i")
    return g.reduce(kind, x, [dim], keepdim, "i") if x.shape else g.full(0.0, (), "i")


@entry("argmax")
def _argmax(g: Graph, out: Any, x: Node, dim: int | None = None, keepdim: bool = False) -> Node:
    return g.reshape(_arg(g, "argmax", x, dim, keepdim), tuple(out.shape))


@entry("argmin")
def _argmin(g: Graph, out: Any, x: Node, dim: int | None = None, keepdim: bool = False) -> Node:
    return g.reshape(_arg(g, "argmin", x, dim, keepdim), tuple(out.shape))


@entry("any")
def _any(g: Graph, out: Any, x: Node, dim: Any = None, keepdim: bool = False) -> Node:
    number = x if x.dtype == "b" else g.ew("ne", x, 0.0)
    return g.ew("ne", g.reduce("max", number, _axes(x, dim), keepdim), 0.0)


@entry("all")
def _all(g: Graph, out: Any, x: Node, dim: Any = None, keepdim: bool = False) -> Node:
    number = x if x.dtype == "b" else g.ew("ne", x, 0.0)
    return g.ew("ne", g.reduce("min", number, _axes(x, dim), keepdim), 0.0)


@entry("linalg_vector_norm", "norm")
def _norm(g: Graph, out: Any, x: Node, ord: Any = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Node:
    order, axes = float(2 if ord is None else ord), _axes(x, dim)
    size = g.ew("abs", x)
    if order == 2.0:
        return g.ew("sqrt", g.reduce("sum", g.ew("mul", x, x), axes, keepdim))
    if order == 1.0:
        return g.reduce("sum", size, axes, keepdim)
    if math.isinf(order):
        return g.reduce("max" if order > 0 else "min", size, axes, keepdim)
    if order == 0.0:
        return g.reduce("sum", g.ew("ne", x, 0.0), axes, keepdim)
    return g.ew("pow", g.reduce("sum", g.ew("pow", size, order), axes, keepdim), 1.0 / order)


@entry("cumsum")
def _cumsum(g: Graph, out: Any, x: Node, dim: int, dtype: Any = None) -> Node:
    return g.scan("sum", x, dim)


@entry("cumprod")
def _cumprod(g: Graph, out: Any, x: Node, dim: int, dtype: Any = None) -> Node:
    return g.scan("prod", x, dim)


@composite("var")
def _var(x: torch.Tensor, dim: Any = None, correction: Any = 1, keepdim: bool = False, **options: Any) -> torch.Tensor:
    if isinstance(dim, bool):  # var(x, unbiased)
        dim, correction = None, int(dim)
    if "unbiased" in options:
        correction = int(options["unbiased"])
    correction = 1 if correction is None else int(correction)
    axes = list(range(x.dim())) if dim is None or dim == [] else [dim] if isinstance(dim, int) else list(dim)
    count = math.prod(x.shape[a] for a in axes)
    centred = x - x.mean(axes, keepdim=True)
    return (centred * centred).sum(axes, keepdim=keepdim) / max(count - correction, 0)


@composite("std")
def _std(*args: Any, **kwargs: Any) -> torch.Tensor:
    return torch.sqrt(_var(*args, **kwargs))


@composite("var_mean")
def _var_mean(x: torch.Tensor, dim: Any = None, correction: Any = 1, keepdim: bool = False) -> Any:
    axes = list(range(x.dim())) if dim is None else dim
    return _var(x, dim, correction, keepdim), x.mean(axes, keepdim=keepdim)


@composite("std_mean")
def _std_mean(x: torch.Tensor, dim: Any = None, correction: Any = 1, keepdim: bool = False) -> Any:
    variance, mean = _var_mean(x, dim, correction, keepdim)
    return torch.sqrt(variance), mean


@composite("logsumexp")
def _logsumexp(x: torch.Tensor, dim: Any, keepdim: bool = False) -> torch.Tensor:
    top = torch.amax(x, dim, keepdim=True)
    top = torch.where(torch.abs(top) == math.inf, 0.0, top)
    total = torch.log(torch.exp(x - top).sum(dim, keepdim=keepdim))
    return total + (top if keepdim else torch.sum(top, dim))


@composite("_softmax")
def _softmax(x: torch.Tensor, dim: int, half_to_float: bool = False) -> torch.Tensor:
    weights = torch.exp(x - torch.amax(x, dim, keepdim=True))
    return weights / weights.sum(dim, keepdim=True)


@composite("_softmax_backward_data")
def _softmax_backward(grad: torch.Tensor, result: torch.Tensor, dim: int, dtype: Any) -> torch.Tensor:
    weighted = grad * result
    return weighted - result * weighted.sum(dim, keepdim=True)


@composite("_log_softmax")
def _log_softmax(x: torch.Tensor, dim: int, half_to_float: bool = False) -> torch.Tensor:
    shifted = x - torch.amax(x, dim, keepdim=True)
    return shifted - torch.log(torch.exp(shifted).sum(dim, keepdim=True))


@composite("_log_softmax_backward_data")
def _log_softmax_backward(grad: torch.Tensor, result: torch.Tensor, dim: int, dtype: Any) -> torch.Tensor:
    return grad - torch.exp(result) * grad.sum(dim, keepdim=True)
