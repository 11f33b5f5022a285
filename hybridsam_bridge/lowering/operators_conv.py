"""Entries of convolutions, their gradients, and pooling, in one to three dimensions.

All are sweeps: sums of products over windows, and windows are views. With x padded, stride s, dilation d:
forward      out[n, o, Y] = sum over c, K of x[n, c, sY + dK] w[o, c, K]
to the input the same with the gradient spread out by the stride, padded, and the weights flipped
to weights   gw[o, c, K] = sum over n, Y of gout[n, o, Y] x[n, c, sY + dK]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hybridsam_bridge.lowering.ir import Graph, Node
from hybridsam_bridge.lowering.registry import Refused, entry
from hybridsam_bridge.lowering.strides import dense

Ints = Sequence[int]

# Outputs and positions from which gradients of weights are summed with vectors along the outputs.
_LANES, _LONG = 8, 64


def _many(value: int | Ints, rank: int) -> list[int]:
    listed = [value] if isinstance(value, int) else list(value)
    return listed * rank if len(listed) == 1 else listed


def _padded(g: Graph, x: Node, before: Ints, after: Ints, spread: Ints, fill: float = 0.0) -> Node:
    """x (N, C, *X) with its elements ``spread`` apart and padded (cropped where negative) along X."""
    rank = len(spread)
    if not any(before) and not any(after) and all(s == 1 for s in spread):
        return x
    inner = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], spread, strict=True)]
    sizes = [max(b, 0) + n + max(a, 0) for b, n, a in zip(before, inner, after, strict=True)]
    shape = (*x.shape[:2], *sizes)
    strides = dense(shape)
    offset = sum(max(b, 0) * s for b, s in zip(before, strides[2:], strict=True))
    steps = [*strides[:2], *(s * k for s, k in zip(strides[2:], spread, strict=True))]
    out = g.place(shape, [(x, offset, steps)], fill)
    for axis in range(rank):
        start = max(-before[axis], 0)
        count = sizes[axis] - start - max(-after[axis], 0)
        if count != sizes[axis]:
            out = g.narrow(out, axis + 2, start, count)
    return out


def _windows(g: Graph, x: Node, groups: int, counts: Ints, kernel: Ints, stride: Ints, dilation: Ints) -> Node:
    """(N, G, C/G, *counts, *kernel): element (y, k) is x at stride * y + dilation * k."""

    def change(shape: Ints, strides: Ints) -> tuple[list[int], int, list[int]]:
        channels = shape[1] // groups
        axes = strides[2:]
        new_shape = [shape[0], groups, channels, *counts, *kernel]
        new = [strides[0], strides[1] * channels, strides[1]]
        new += [a * s for a, s in zip(axes, stride, strict=True)]
        new += [a * d for a, d in zip(axes, dilation, strict=True)]
        return new_shape, 0, new

    return g.on_layout(x, change)


def _correlate(g: Graph, x: Node, w: Node, counts: Ints, stride: Ints, dilation: Ints, groups: int) -> Node:
    """x (N, C, *X) padded, w (G, O/G, C/G, *K) -> (N, O, *counts)."""
    rank, kernel = len(counts), w.shape[3:]
    windows = _windows(g, x, groups, counts, kernel, stride, dilation)
    # (N, G, O/G, *Y | C/G, *K)
    y, k = list(range(3, 3 + rank)), list(range(3 + rank, 3 + 2 * rank))
    windows = g.permute(windows, [0, 1, *y, 2, *k])
    full = (x.shape[0], groups, w.shape[1], *counts, w.shape[2], *kernel)
    left = g.expand(g.reshape(windows, (*full[:2], 1, *full[3:])), full)
    right = g.expand(g.reshape(w, (1, *w.shape[:2], *[1] * rank, w.shape[2], *kernel)), full)
    out = g.sweep(left, right, 3 + rank)
    return g.reshape(out, (x.shape[0], groups * w.shape[1], *counts))


def _forward(g: Graph, x: Node, w: Node, stride: Ints, padding: Ints, dilation: Ints, groups: int) -> Node:
    grouped = g.reshape(w, (groups, w.shape[0] // groups, *w.shape[1:]))
    x = _padded(g, x, padding, padding, [1] * len(stride))
    counts = [
        (n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[2:], w.shape[2:], stride, dilation, strict=True)
    ]
    return _correlate(g, x, grouped, counts, stride, dilation, groups)


def _transposed(
    g: Graph, x: Node, w: Node, stride: Ints, padding: Ints, dilation: Ints, groups: int, counts: Ints
) -> Node:
    """The adjoint of ``_forward`` for its x: w (C, O/G, *K), result (N, O, *counts)."""
    rank, kernel = len(stride), w.shape[2:]
    before = [d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding, strict=True)]
    after = [
        c + d * (k - 1) - b - (n - 1) * s - 1
        for c, d, k, b, n, s in zip(counts, dilation, kernel, before, x.shape[2:], stride, strict=True)
    ]
    spread = _padded(g, x, before, after, stride)
    for axis in range(rank):
        w = g.narrow(w, axis + 2, kernel[axis] - 1, kernel[axis], -1)
    channels = w.shape[0] // groups
    split = g.reshape(w, (groups, channels, *w.shape[1:]))
    swapped = g.permute(split, [0, 2, 1, *range(3, 3 + rank)])
    return _correlate(g, spread, swapped, counts, [1] * rank, dilation, groups)


def _to_weights(
    g: Graph, x: Node, grad: Node, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Node:
    """gw (O, C/G, *K) from x (N, C, *X) and grad (N, O, *Y)."""
    rank, counts = len(kernel), grad.shape[2:]
    after = [
        max((y - 1) * s + d * (k - 1) + 1 - n - p, 0)
        for y, s, d, k, n, p in zip(counts, stride, dilation, kernel, x.shape[2:], padding, strict=True)
    ]
    windows = _windows(g, _padded(g, x, padding, after, [1] * rank), groups, counts, kernel, stride, dilation)
    y, k = list(range(3, 3 + rank)), list(range(3 + rank, 3 + 2 * rank))
    windows = g.permute(windows, [1, 2, *k, 0, *y])  # (G, C/G, *K, N, *Y)
    per_group = grad.shape[1] // groups
    if groups == 1 and per_group >= _LANES and math.prod(counts) >= _LONG:
        return _along_outputs(g, windows, grad, rank)
    split = g.reshape(grad, (grad.shape[0], groups, per_group, *counts))
    split = g.permute(split, [1, 2, 0, *y])  # (G, O/G, N, *Y)
    full = (groups, per_group, windows.shape[1], *kernel, grad.shape[0], *counts)
    left = g.expand(g.reshape(split, (groups, per_group, 1, *[1] * rank, *full[3 + rank :])), full)
    right = g.expand(g.reshape(windows, (groups, 1, *windows.shape[1:])), full)
    out = g.sweep(left, right, 3 + rank)
    return g.reshape(out, (groups * per_group, windows.shape[1], *kernel))


def _along_outputs(g: Graph, windows: Node, grad: Node, rank: int) -> Node:
    """The same from windows (1, C, *K, N, *Y), with vectors along O: neighbours in a copy of grad (N, *Y, O)."""
    y = list(range(2, 2 + rank))
    rows = g.copy(g.permute(grad, [0, *y, 1]))
    left = g.permute(rows, [1 + rank, *range(1 + rank)])  # (O, N, *Y)
    inner, outer = windows.shape[2 + rank :], windows.shape[1 : 2 + rank]
    full = (*outer, grad.shape[1], *inner)
    left = g.expand(g.reshape(left, (*[1] * len(outer), *left.shape)), full)
    right = g.expand(g.reshape(windows, (*outer, 1, *inner)), full)
    out = g.sweep(left, right, len(outer) + 1)  # (C, *K, O)
    return g.permute(out, [len(outer), *range(len(outer))])


@entry("convolution", "_convolution")
def _convolution(
    g: Graph,
    out: Any,
    x: Node,
    w: Node,
    bias: Node | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    output_padding: Ints,
    groups: int,
    *rest: Any,
) -> Node:
    rank = len(w.shape) - 2
    s, p, d = (_many(v, rank) for v in (stride, padding, dilation))
    if transposed:
        result = _transposed(g, x, w, s, p, d, groups, tuple(out.shape[2:]))
    else:
        result = _forward(g, x, w, s, p, d, groups)
    return result if bias is None else g.ew("add", result, g.reshape(bias, (bias.size, *[1] * rank)))


@entry("convolution_backward")
def _convolution_backward(
    g: Graph,
    out: Any,
    grad: Node,
    x: Node,
    w: Node,
    bias_sizes: Any,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    output_padding: Ints,
    groups: int,
    mask: Sequence[bool],
) -> list[Node | None]:
    rank = len(w.shape) - 2
    s, p, d = (_many(v, rank) for v in (stride, padding, dilation))
    gx = gw = gb = None
    if mask[0] and transposed:
        gx = _forward(g, grad, w, s, p, d, groups)
    elif mask[0]:
        gx = _transposed(g, grad, w, s, p, d, groups, x.shape[2:])
    if mask[1] and transposed:
        gw = _to_weights(g, grad, x, w.shape[2:], s, p, d, groups)
    elif mask[1]:
        gw = _to_weights(g, x, grad, w.shape[2:], s, p, d, groups)
    if mask[2]:
        gb = g.reduce("sum", grad, [0, *range(2, 2 + rank)])
    return [gx, gw, gb]


def _pool_counts(out: Any, rank: int) -> tuple[int, ...]:
    return tuple((out[0] if isinstance(out, (tuple, list)) else out).shape[-rank:])


def _pool(
    g: Graph, x: Node, rank: int, counts: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, fill: float
) -> Node:
    """Windows (outer, *counts, *kernel) of x (..., *X) padded with ``fill``."""
    flat = g.reshape(x, (1, math.prod(x.shape[:-rank]), *x.shape[-rank:]))
    after = [
        max((y - 1) * s + d * (k - 1) + 1 - n - p, 0)
        for y, s, d, k, n, p in zip(counts, stride, dilation, kernel, x.shape[-rank:], padding, strict=True)
    ]
    padded = _padded(g, flat, padding, after, [1] * rank, fill)
    windows = _windows(g, padded, 1, counts, kernel, stride, dilation)
    return g.reshape(windows, windows.shape[2:])


def _average(
    g: Graph, out: Any, x: Node, rank: int, kernel: Any, stride: Any, padding: Any, rest: Sequence[Any]
) -> Node:
    options: list[Any] = [*rest, *(False, True, None)[len(rest) :]]
    ceil, include, divisor = options
    if ceil:
        raise Refused("ceil_mode is not covered.")
    k, p = _many(kernel, rank), _many(padding, rank)
    s = _many(stride, rank) if stride else k
    counts = _pool_counts(out, rank)
    windows = _pool(g, x, rank, counts, k, s, p, [1] * rank, 0.0)
    total = g.reduce("sum", windows, range(1 + rank, 1 + 2 * rank))
    scaled = g.ew("div", total, _share(g, x.shape[-rank:], counts, k, s, p, include, divisor))
    return g.reshape(scaled, tuple(out.shape))


def _share(g: Graph, sizes: Ints, counts: Ints, k: Ints, s: Ints, p: Ints, include: bool, divisor: Any) -> Node | float:
    if divisor or include or not any(p):
        return float(divisor or math.prod(k))
    inside = np.ones(())
    for n, y, kernel, step, pad in zip(sizes, counts, k, s, p, strict=True):
        first = np.arange(y) * step - pad
        inside = inside[..., None] * (np.minimum(first + kernel, n) - np.maximum(first, 0))
    return g.const(inside, "f")


@entry("avg_pool1d")
def _avg_pool1d(g: Graph, out: Any, x: Node, kernel: Ints, stride: Ints = (), padding: Ints = (0,), *rest: Any) -> Node:
    return _average(g, out, x, 1, kernel, stride, padding, rest)


@entry("avg_pool2d")
def _avg_pool2d(g: Graph, out: Any, x: Node, kernel: Ints, stride: Ints = (), padding: Ints = (0,), *rest: Any) -> Node:
    return _average(g, out, x, 2, kernel, stride, padding, rest)


@entry("avg_pool2d_backward")
def _avg_pool2d_backward(
    g: Graph,
    out: Any,
    grad: Node,
    x: Node,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    ceil: bool,
    include: bool,
    divisor: Any,
) -> Node:
    k, p = _many(kernel, 2), _many(padding, 2)
    s = _many(stride, 2) if stride else k
    shared = g.ew("div", grad, _share(g, x.shape[-2:], grad.shape[-2:], k, s, p, include, divisor))
    flat = g.reshape(shared, (1, math.prod(grad.shape[:-2]), *grad.shape[-2:]))
    before = [a - 1 - b for a, b in zip(k, p, strict=True)]
    after = [
        n + a - 1 - b - (y - 1) * c - 1
        for n, a, b, y, c in zip(x.shape[-2:], k, before, grad.shape[-2:], s, strict=True)
    ]
    windows = _windows(g, _padded(g, flat, before, after, s), 1, x.shape[-2:], k, [1, 1], [1, 1])
    return g.reshape(g.reduce("sum", g.reshape(windows, windows.shape[2:]), [3, 4]), x.shape)


@entry("max_pool2d_with_indices")
def _max_pool2d(
    g: Graph,
    out: Any,
    x: Node,
    kernel: Ints,
    stride: Ints = (),
    padding: Ints = (0,),
    dilation: Ints = (1,),
    ceil: bool = False,
) -> tuple[Node, Node]:
    if ceil:
        raise Refused("ceil_mode is not covered.")
    k, p, d = _many(kernel, 2), _many(padding, 2), _many(dilation, 2)
    s = _many(stride, 2) if stride else k
    counts, shape = _pool_counts(out, 2), tuple(out[0].shape)
    windows = _pool(g, x, 2, counts, k, s, p, d, -math.inf)
    flat = g.reshape(windows, (*windows.shape[:3], k[0] * k[1]))
    top, at = g.reduce("max", flat, [3]), g.reduce("argmax", flat, [3], dtype="i")
    row = g.ew("floor", g.ew("div", at, float(k[1]), dtype="f"), dtype="i")
    column = g.ew("sub", at, g.ew("mul", row, float(k[1]), dtype="i"), dtype="i")
    corner = (np.arange(counts[0]) * s[0] - p[0])[:, None] * x.shape[-1] + (np.arange(counts[1]) * s[1] - p[1])
    inside = g.ew(
        "add", g.ew("mul", row, float(d[0] * x.shape[-1]), dtype="i"), g.ew("mul", column, float(d[1]), dtype="i")
    )
    position = g.ew("add", inside, g.const(corner, "i"), dtype="i")
    return g.reshape(top, shape), g.reshape(position, shape)


@entry("max_pool2d_with_indices_backward")
def _max_pool2d_backward(g: Graph, out: Any, grad: Node, x: Node, *rest: Any) -> Node:
    index = rest[-1]
    outer, count = math.prod(grad.shape[:-2]), math.prod(grad.shape[-2:])
    spread = g.scatter(g.reshape(grad, (outer, count)), g.reshape(index, (outer, count)), x.shape[-2] * x.shape[-1])
    return g.reshape(spread, x.shape)
