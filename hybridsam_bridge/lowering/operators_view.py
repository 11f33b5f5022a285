"""Entries of operators that only rearrange: views, joins, paddings, and their derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hybridsam_bridge.lowering.ir import Graph, Node
from hybridsam_bridge.lowering.registry import entry, kind_of, literal
from hybridsam_bridge.lowering.strides import dense


@literal(
    *["zeros", "zeros_like", "new_zeros", "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"],
    "_efficientzerotensor",
)
def _zeros(g: Graph, out: Any, *args: Any, **kwargs: Any) -> Node:
    return g.full(0.0, out.shape, kind_of(out.dtype))


@literal("ones", "ones_like", "new_ones")
def _ones(g: Graph, out: Any, *args: Any, **kwargs: Any) -> Node:
    return g.full(1.0, out.shape, kind_of(out.dtype))


@literal("full", "full_like", "new_full", "scalar_tensor")
def _full(g: Graph, out: Any, *args: Any, **kwargs: Any) -> Node:
    value = args[0] if len(args) == 1 and not isinstance(args[0], (Node, list, tuple)) else args[-1]
    value = kwargs.get("fill_value", value)
    if isinstance(value, Node):
        return g.expand(value, tuple(out.shape))
    return g.full(float(value), out.shape, kind_of(out.dtype))


@entry("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten", "unsqueeze", "squeeze")
def _reshape(g: Graph, out: Any, x: Node, *args: Any, **kwargs: Any) -> Node:
    return g.reshape(x, tuple(out.shape))


@entry("alias", "detach", "clone", "contiguous", "lift_fresh", "lift", "positive", "conj", "_conj", "resolve_conj")
def _same(g: Graph, out: Any, x: Node, **kwargs: Any) -> Node:
    return x


@entry("copy")
def _copy(g: Graph, out: Any, x: Node, source: Node, non_blocking: bool = False) -> Node:
    return g.expand(source, x.shape)


@entry("fill")
def _fill(g: Graph, out: Any, x: Node, value: Any) -> Node:
    return g.expand(value if isinstance(value, Node) else g.full(value), x.shape)


@entry("expand", "expand_as", "broadcast_to")
def _expand(g: Graph, out: Any, x: Node, *args: Any, **kwargs: Any) -> Node:
    return g.expand(x, tuple(out.shape))


@entry("permute")
def _permute(g: Graph, out: Any, x: Node, dims: Sequence[int]) -> Node:
    return g.permute(x, dims)


@entry("transpose", "swapaxes")
def _transpose(g: Graph, out: Any, x: Node, a: int, b: int) -> Node:
    axes = list(range(len(x.shape)))
    if axes:
        axes[a], axes[b] = axes[b], axes[a]
    return g.permute(x, axes)


@entry("t", "numpy_T")
def _t(g: Graph, out: Any, x: Node) -> Node:
    return g.permute(x, range(len(x.shape))[::-1])


@entry("select")
def _select(g: Graph, out: Any, x: Node, dim: int, index: int) -> Node:
    return g.select(x, dim, index)


def _bounds(length: int, start: int | None, end: int | None) -> int:
    """First index of a slice, as torch clamps it."""
    return range(length)[slice(start, end)].start


@entry("slice")
def _slice(g: Graph, out: Any, x: Node, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Node:
    return g.narrow(x, dim, _bounds(x.shape[dim], start, end), out.shape[dim], step)


@entry("narrow")
def _narrow(g: Graph, out: Any, x: Node, dim: int, start: int, length: int) -> Node:
    return g.narrow(x, dim, start % x.shape[dim], length)


@entry("unbind")
def _unbind(g: Graph, out: Any, x: Node, dim: int = 0) -> list[Node]:
    return [g.select(x, dim, i) for i in range(x.shape[dim])]


@entry("split", "split_with_sizes", "chunk")
def _split(g: Graph, out: Any, x: Node, sizes: Any, dim: int = 0) -> list[Node]:
    parts, start = [], 0
    for piece in out:
        parts.append(g.narrow(x, dim, start, piece.shape[dim]))
        start += piece.shape[dim]
    return parts


@entry("diagonal")
def _diagonal(g: Graph, out: Any, x: Node, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Node:
    return g.on_layout(x, lambda shape, strides: _diagonal_of(shape, strides, offset, dim1, dim2, out.shape[-1]))


def _diagonal_of(
    shape: Sequence[int], strides: Sequence[int], offset: int, dim1: int, dim2: int, length: int
) -> tuple[list[int], int, list[int]]:
    rank = len(shape)
    a, b = dim1 % rank, dim2 % rank
    start = max(-offset, 0) * strides[a] + max(offset, 0) * strides[b]
    rest = [i for i in range(rank) if i not in (a, b)]
    return [shape[i] for i in rest] + [length], start, [strides[i] for i in rest] + [strides[a] + strides[b]]


@entry("unfold")
def _unfold(g: Graph, out: Any, x: Node, dim: int, size: int, step: int) -> Node:
    def windows(shape: Sequence[int], strides: Sequence[int]) -> tuple[Sequence[int], int, list[int]]:
        new = list(strides)
        new[dim % len(shape)] *= step
        return out.shape, 0, [*new, strides[dim]]

    return g.on_layout(x, windows)


@entry("flip")
def _flip(g: Graph, out: Any, x: Node, dims: Sequence[int]) -> Node:
    for dim in dims:
        x = g.narrow(x, dim, x.shape[dim] - 1, x.shape[dim], -1)
    return x


@entry("roll")
def _roll(g: Graph, out: Any, x: Node, shifts: Sequence[int], dims: Sequence[int] = ()) -> Node:
    if not dims:
        return g.reshape(_roll(g, out, g.reshape(x, (x.size,)), shifts, (0,)), x.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        length = x.shape[dim]
        cut = length - shift % length
        x = join(g, [g.narrow(x, dim, cut, length - cut), g.narrow(x, dim, 0, cut)], dim)
    return x


def join(g: Graph, parts: Sequence[Node], dim: int) -> Node:
    """Concatenate along ``dim``."""
    parts = [p for p in parts if p.size] or list(parts[:1])
    shape = list(parts[0].shape)
    dim %= len(shape)
    shape[dim] = sum(p.shape[dim] for p in parts)
    strides = dense(shape)
    pieces, start = [], 0
    for part in parts:
        pieces.append((part, start * (strides[dim] or 1), strides))
        start += part.shape[dim]
    return g.place(shape, pieces, dtype=_joint_kind(parts))


def _joint_kind(parts: Sequence[Node]) -> str:
    kinds = {p.dtype for p in parts}
    return kinds.pop() if len(kinds) == 1 else "f"


@entry("cat", "concat")
def _cat(g: Graph, out: Any, tensors: Sequence[Node], dim: int = 0) -> Node:
    rank = len(out.shape)
    return g.reshape(join(g, [t for t in tensors if len(t.shape) == rank], dim), tuple(out.shape))


@entry("stack")
def _stack(g: Graph, out: Any, tensors: Sequence[Node], dim: int = 0) -> Node:
    dim %= len(out.shape)
    return join(g, [g.reshape(t, (*t.shape[:dim], 1, *t.shape[dim:])) for t in tensors], dim)


@entry("repeat", "tile")
def _repeat(g: Graph, out: Any, x: Node, repeats: Sequence[int]) -> Node:
    extra = len(out.shape) - len(x.shape)
    inner = (1,) * extra + x.shape
    counts = (1,) * (len(out.shape) - len(repeats)) + tuple(repeats)
    split = [n for pair in zip((1,) * len(inner), inner, strict=True) for n in pair]
    wide = [n for pair in zip(counts, inner, strict=True) for n in pair]
    return g.reshape(g.expand(g.reshape(x, split), wide), tuple(out.shape))


@entry("constant_pad_nd")
def _constant_pad(g: Graph, out: Any, x: Node, pad: Sequence[int], value: float = 0) -> Node:
    strides = dense(out.shape)
    offset, kept = 0, x
    for i in range(len(pad) // 2):
        axis = len(x.shape) - 1 - i
        before, after = pad[2 * i], pad[2 * i + 1]
        if before < 0 or after < 0:
            length = kept.shape[axis] + min(before, 0) + min(after, 0)
            kept = g.narrow(kept, axis, max(-before, 0), length)
        offset += max(before, 0) * strides[axis]
    return g.place(tuple(out.shape), [(kept, offset, strides)], float(value))


@entry("slice_backward")
def _slice_backward(g: Graph, out: Any, grad: Node, sizes: Any, dim: int, start: int, end: int, step: int) -> Node:
    strides = dense(out.shape)
    new = [s * step if i == dim % len(strides) else s for i, s in enumerate(strides)]
    return g.place(out.shape, [(grad, _bounds(out.shape[dim], start, end) * strides[dim], new)])


@entry("select_backward")
def _select_backward(g: Graph, out: Any, grad: Node, sizes: Any, dim: int, index: int) -> Node:
    return g.place(out.shape, [_at(out.shape, grad, dim, index)])


def _at(shape: Sequence[int], piece: Node, dim: int, index: int) -> tuple[Node, int, list[int]]:
    strides = list(dense(shape))
    dim %= len(strides)
    return piece, (index % shape[dim]) * strides[dim], strides[:dim] + strides[dim + 1 :]


@entry("slice_scatter")
def _slice_scatter(
    g: Graph, out: Any, x: Node, source: Node, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Node:
    strides = dense(out.shape)
    new = [s * step if i == dim % len(strides) else s for i, s in enumerate(strides)]
    offset = _bounds(out.shape[dim], start, end) * strides[dim]
    return g.place(out.shape, [(x, 0, strides), (source, offset, new)])


@entry("select_scatter")
def _select_scatter(g: Graph, out: Any, x: Node, source: Node, dim: int, index: int) -> Node:
    return g.place(out.shape, [(x, 0, dense(out.shape)), _at(out.shape, source, dim, index)])


@entry("diagonal_backward")
def _diagonal_backward(g: Graph, out: Any, grad: Node, sizes: Any, offset: int, dim1: int, dim2: int) -> Node:
    _, start, strides = _diagonal_of(out.shape, dense(out.shape), offset, dim1, dim2, grad.shape[-1])
    return g.place(out.shape, [(grad, start, strides)])


@entry("diagonal_scatter")
def _diagonal_scatter(g: Graph, out: Any, x: Node, source: Node, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Node:
    _, start, strides = _diagonal_of(out.shape, dense(out.shape), offset, dim1, dim2, source.shape[-1])
    return g.place(out.shape, [(x, 0, dense(out.shape)), (source, start, strides)])


@entry("diag_embed")
def _diag_embed(g: Graph, out: Any, x: Node, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Node:
    _, start, strides = _diagonal_of(out.shape, dense(out.shape), offset, dim1, dim2, x.shape[-1])
    return g.place(out.shape, [(x, start, strides)])


@entry("unfold_backward")
def _unfold_backward(g: Graph, out: Any, grad: Node, sizes: Any, dim: int, size: int, step: int) -> Node:
    strides = dense(out.shape)
    dim %= len(out.shape)
    total: Node | None = None
    for k in range(size):  # windows overlap, so one piece a position inside the window
        new = [s * step if i == dim else s for i, s in enumerate(strides)]
        piece = g.place(out.shape, [(g.select(grad, -1, k), k * strides[dim], new)])
        total = piece if total is None else g.ew("add", total, piece)
    return total if total is not None else g.full(0.0, out.shape)


@entry("as_strided")
def _as_strided(g: Graph, out: Any, x: Node, size: Any, stride: Sequence[int], offset: int | None = None) -> Node:
    # a recorded tensor is dense, so its storage is its dense order
    return g.view(g.copy(x), tuple(out.shape), offset or 0, tuple(stride))


@entry("as_strided_scatter")
def _as_strided_scatter(
    g: Graph, out: Any, x: Node, source: Node, size: Any, stride: Sequence[int], offset: int | None = None
) -> Node:
    return g.place(out.shape, [(x, 0, dense(out.shape)), (source, offset or 0, tuple(stride))])
