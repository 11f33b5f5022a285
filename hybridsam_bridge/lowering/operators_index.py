"""Entries of indexing with index tensors, and triangles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hybridsam_bridge.lowering.ir import Graph, Node
from hybridsam_bridge.lowering.registry import Refused, entry
from hybridsam_bridge.lowering.strides import dense


def _positions(g: Graph, shape: Sequence[int], indices: Sequence[Node | None]) -> tuple[Node, int, int]:
    """Linear positions (I,) among the leading indexed axes, their number and their size."""
    first = next((i for i, index in enumerate(indices) if index is not None), 0)
    last = max(i for i, index in enumerate(indices) if index is not None)
    if first != 0 or any(index is None for index in indices[: last + 1]):
        raise Refused("index tensors must be on neighbouring axes.")
    total: Node | None = None
    size = 1
    for axis in range(last, -1, -1):
        index = indices[axis]
        assert index is not None
        length = shape[axis]
        wrapped = _wrap(g, index, length)
        part = g.ew("mul", wrapped, float(size), dtype="i") if size > 1 else wrapped
        total = part if total is None else g.ew("add", total, part, dtype="i")
        size *= length
    assert total is not None
    return total, last + 1, size


def _wrap(g: Graph, index: Node, length: int) -> Node:
    """Non-negative positions. Constants are checked and wrapped now, others when the program runs."""
    if index.dtype == "b":
        raise Refused("a boolean mask as index gives a result whose size depends on values; use torch.where.")
    if index.op == "const":
        data = g.constants[index.attrs[0]]
        return g.const(np.where(data < 0, data + length, data), "i") if (data < 0).any() else index
    return g.ew("where", g.ew("lt", index, 0.0), g.ew("add", index, float(length)), index, dtype="i")


def _leading(x_shape: Sequence[int], indices: Sequence[Any]) -> tuple[list[int], list[Any]]:
    """Axes order that brings the indexed axes to the front, and the indices in that order."""
    padded = list(indices) + [None] * (len(x_shape) - len(indices))
    used = [i for i, index in enumerate(padded) if index is not None]
    if used != list(range(used[0], used[-1] + 1)):
        raise Refused("index tensors must be on neighbouring axes.")
    order = used + [i for i in range(len(x_shape)) if i not in used]
    return order, [padded[i] for i in used]


@entry("index", "_unsafe_index")
def _index(g: Graph, out: Any, x: Node, indices: Sequence[Node | None]) -> Node:
    order, used = _leading(x.shape, indices)
    positions, count, size = _positions(g, [x.shape[i] for i in order], used)
    rest = [x.shape[i] for i in order[count:]]
    # gather works along the last axis of (rest, indexed)
    source = g.permute(x, order[count:] + order[:count])
    flat = g.reshape(source, (math.prod(rest), size))
    taken = g.gather(flat, g.reshape(positions, (positions.size,)))
    back = g.reshape(taken, (*rest, *positions.shape))
    first, rank = order[0], len(positions.shape)
    axes = list(range(len(rest), len(rest) + rank))
    return g.permute(back, [*range(first), *axes, *range(first, len(rest))])


@entry("index_put", "_unsafe_index_put", "_index_put_impl")
def _index_put(
    g: Graph, out: Any, x: Node, indices: Sequence[Node | None], values: Node, accumulate: bool = False, *unsafe: Any
) -> Node:
    if len(indices) == 1 and indices[0] is not None and indices[0].dtype == "b" and values.size == 1:
        mask = indices[0]
        mask = g.reshape(mask, mask.shape + (1,) * (len(x.shape) - len(mask.shape)))
        value = g.ew("add", x, g.reshape(values, ())) if accumulate else g.reshape(values, ())
        return g.ew("where", mask, value, x)
    order, used = _leading(x.shape, indices)
    positions, count, size = _positions(g, [x.shape[i] for i in order], used)
    rest = [x.shape[i] for i in order[count:]]
    first, rank = order[0], len(positions.shape)
    full = [x.shape[i] for i in range(first)] + list(positions.shape) + [x.shape[i] for i in order[count + first :]]
    spread = g.expand(values, full)
    to_back = [*range(first), *range(first + rank, len(full)), *range(first, first + rank)]
    flat = g.reshape(g.permute(spread, to_back), (math.prod(rest), positions.size))
    index = g.reshape(positions, (positions.size,))

    def restore(node: Node) -> Node:
        shaped = g.reshape(node, (*rest, *[x.shape[i] for i in order[:count]]))
        moved = order[count:] + order[:count]
        return g.permute(shaped, [moved.index(i) for i in range(len(x.shape))])

    added = restore(g.scatter(flat, index, size))
    if accumulate:
        return g.ew("add", x, added)
    if x.literal == 0.0 and index.op == "const" and _distinct(g.constants[index.attrs[0]]):
        return added
    if index.op == "const" and _distinct(g.constants[index.attrs[0]]):
        ones = restore(g.scatter(g.full(1.0, flat.shape), index, size))
        return g.ew("where", g.ew("ne", ones, 0.0), added, x)
    raise Refused("assignment at repeated or computed positions is not covered.")


def _distinct(data: np.ndarray) -> bool:
    return np.unique(data).size == data.size


@entry("index_select")
def _index_select(g: Graph, out: Any, x: Node, dim: int, index: Node) -> Node:
    if not x.shape:
        return x
    picks: list[Node | None] = [None] * (dim % len(x.shape))
    return _index(g, out, x, [*picks, g.reshape(index, (index.size,))])


@entry("index_add")
def _index_add(g: Graph, out: Any, x: Node, dim: int, index: Node, source: Node, alpha: float = 1) -> Node:
    picks: list[Node | None] = [None] * (dim % len(x.shape))
    scaled = source if alpha == 1 else g.ew("mul", source, float(alpha))
    return _index_put(g, out, x, [*picks, g.reshape(index, (index.size,))], scaled, accumulate=True)


@entry("index_fill")
def _index_fill(g: Graph, out: Any, x: Node, dim: int, index: Node, value: Any) -> Node:
    picks: list[Node | None] = [None] * (dim % len(x.shape))
    fill = value if isinstance(value, Node) else g.full(float(value))
    return _index_put(g, out, x, [*picks, g.reshape(index, (index.size,))], fill)


@entry("index_select_backward")
def _index_select_backward(g: Graph, out: Any, grad: Node, sizes: Any, dim: int, index: Node) -> Node:
    return _index_add(g, out, g.full(0.0, tuple(out.shape)), dim, index, grad)


def _along(g: Graph, x: Node, dim: int) -> tuple[Node, list[int]]:
    """(outer, length) with ``dim`` last, and the order of axes that did it."""
    order = [a for a in range(len(x.shape)) if a != dim % len(x.shape)] + [dim % len(x.shape)]
    moved = g.permute(x, order)
    return g.reshape(moved, (math.prod(moved.shape[:-1]), moved.shape[-1])), order


@entry("gather")
def _gather(g: Graph, out: Any, x: Node, dim: int, index: Node, sparse_grad: bool = False) -> Node:
    if not x.shape:
        return x
    for axis, length in enumerate(index.shape):  # torch lets the index be smaller on the other axes
        if axis != dim % len(x.shape):
            x = g.narrow(x, axis, 0, length)
    flat, order = _along(g, x, dim)
    picks, _ = _along(g, index, dim)
    taken = g.gather(flat, picks)
    shaped = g.reshape(taken, [index.shape[i] for i in order])
    return g.permute(shaped, [order.index(i) for i in range(len(order))])


@entry("scatter_add")
def _scatter_add(g: Graph, out: Any, x: Node, dim: int, index: Node, source: Node) -> Node:
    if not x.shape:
        return g.ew("add", x, source)
    for axis, length in enumerate(index.shape):
        source = g.narrow(source, axis, 0, length)
    values, order = _along(g, source, dim)
    picks, _ = _along(g, index, dim)
    added = g.scatter(values, picks, x.shape[dim])
    shape = list(index.shape)
    shape[dim] = x.shape[dim]
    shaped = g.reshape(added, [shape[i] for i in order])
    back = g.permute(shaped, [order.index(i) for i in range(len(order))])
    return g.ew("add", x, g.place(x.shape, [(back, 0, dense(x.shape))]))


@entry("scatter")
def _scatter(g: Graph, out: Any, x: Node, dim: int, index: Node, source: Any, reduce: Any = None) -> Node:
    if reduce is not None or not x.shape or index.shape[dim] != 1:
        raise Refused("scatter is covered with one index along its axis; use scatter_add or index_add.")
    source = source if isinstance(source, Node) else g.full(float(source), index.shape)
    hit = _scatter_add(g, out, g.full(0.0, x.shape), dim, index, g.full(1.0, index.shape))
    put = _scatter_add(g, out, g.full(0.0, x.shape), dim, index, source)
    return put if x.literal == 0.0 else g.ew("where", g.ew("ne", hit, 0.0), put, x)


@entry("value_selecting_reduction_backward")
def _select_reduction(g: Graph, out: Any, grad: Node, dim: int, index: Node, sizes: Any, keepdim: bool) -> Node:
    shape = tuple(out.shape)
    if not shape:
        return grad
    kept = (*shape[: dim % len(shape)], 1, *shape[dim % len(shape) + 1 :])
    zero = g.full(0.0, shape)
    return _scatter_add(g, out, zero, dim, g.reshape(index, kept), g.reshape(grad, kept))


def _mask(g: Graph, x: Node, keep: np.ndarray) -> Node:
    return g.ew("where", g.expand(g.const(keep, "b"), x.shape), x, 0.0)


@entry("tril")
def _tril(g: Graph, out: Any, x: Node, diagonal: int = 0) -> Node:
    return _mask(g, x, np.tri(x.shape[-2], x.shape[-1], diagonal))


@entry("triu")
def _triu(g: Graph, out: Any, x: Node, diagonal: int = 0) -> Node:
    return _mask(g, x, 1.0 - np.tri(x.shape[-2], x.shape[-1], diagonal - 1))
