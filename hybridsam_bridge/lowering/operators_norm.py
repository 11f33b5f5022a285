"""Entries of batch and group normalisation, and of some smaller operators, by their definitions in torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from hybridsam_bridge.lowering.ir import Graph, Node
from hybridsam_bridge.lowering.registry import Refused, composite, entry


def _channels(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return values.reshape(1, -1, *[1] * (x.dim() - 2))


@composite("_native_batch_norm_legit_no_training")
def _batch_norm(x: torch.Tensor, weight: Any, bias: Any, mean: Any, var: Any, momentum: float, eps: float) -> Any:
    out = (x - _channels(mean, x)) * torch.rsqrt(_channels(var, x) + eps)
    if weight is not None:
        out = out * _channels(weight, x)
    if bias is not None:
        out = out + _channels(bias, x)
    return out, x.new_zeros(0), x.new_zeros(0)


@composite("native_batch_norm_backward")
def _batch_norm_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: Any,
    mean: Any,
    var: Any,
    save_mean: Any,
    save_rstd: Any,
    train: bool,
    eps: float,
    mask: Sequence[bool],
) -> Any:
    if train:
        raise Refused("batch norm in training mode changes its statistics; call model.eval().")
    axes = [0, *range(2, x.dim())]
    rstd = torch.rsqrt(_channels(var, x) + eps)
    scaled = grad if weight is None else grad * _channels(weight, x)
    gw = (grad * (x - _channels(mean, x)) * rstd).sum(axes) if mask[1] else None
    return scaled * rstd if mask[0] else None, gw, grad.sum(axes) if mask[2] else None


@composite("native_group_norm")
def _group_norm(x: torch.Tensor, weight: Any, bias: Any, n: int, c: int, inner: int, groups: int, eps: float) -> Any:
    split = x.reshape(n, groups, -1)
    mean = split.mean(2, keepdim=True)
    centred = split - mean
    rstd = torch.rsqrt((centred * centred).mean(2, keepdim=True) + eps)
    out = (centred * rstd).reshape(x.shape)
    if weight is not None:
        out = out * _channels(weight, x)
    if bias is not None:
        out = out + _channels(bias, x)
    return out, mean.reshape(n, groups), rstd.reshape(n, groups)


@composite("_trilinear")
def _trilinear(
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sumdim: Sequence[int],
    unroll_dim: int = 1,
) -> torch.Tensor:
    for dim in sorted(expand1):
        a = a.unsqueeze(dim)
    for dim in sorted(expand2):
        b = b.unsqueeze(dim)
    for dim in sorted(expand3):
        c = c.unsqueeze(dim)
    product = a * b * c
    return product.sum(list(sumdim)) if sumdim else product


@entry("unsafe_split", "unsafe_chunk", "unsafe_split_with_sizes")
def _unsafe_split(g: Graph, out: Any, x: Node, sizes: Any, dim: int = 0) -> list[Node]:
    parts, start = [], 0
    for piece in out:
        parts.append(g.narrow(x, dim, start, piece.shape[dim]))
        start += piece.shape[dim]
    return parts


@composite("deg2rad")
def _deg2rad(x: torch.Tensor) -> torch.Tensor:
    return x * (math.pi / 180)


@composite("rad2deg")
def _rad2deg(x: torch.Tensor) -> torch.Tensor:
    return x * (180 / math.pi)


@composite("frac")
def _frac(x: torch.Tensor) -> torch.Tensor:
    return x - torch.trunc(x)


@composite("trace")
def _trace(x: torch.Tensor) -> torch.Tensor:
    return torch.diagonal(x).sum()


@composite("block_diag")
def _block_diag(blocks: Sequence[torch.Tensor]) -> torch.Tensor:
    shapes = [b.shape if b.dim() == 2 else (1, b.numel()) for b in blocks]
    width, rows, at = sum(s[1] for s in shapes), [], 0
    for block, shape in zip(blocks, shapes, strict=True):
        rows.append(torch.nn.functional.pad(block.reshape(shape), (at, width - at - shape[1])))
        at += shape[1]
    return torch.cat(rows)


@composite("_safe_softmax")
def _safe_softmax(x: torch.Tensor, dim: int, dtype: Any = None) -> torch.Tensor:
    top = torch.amax(x, dim, keepdim=True)
    nothing = top == -math.inf  # a fully masked row of attention
    weights = torch.exp(x - torch.where(nothing, 0.0, top))
    return torch.where(nothing, 0.0, weights / weights.sum(dim, keepdim=True))
