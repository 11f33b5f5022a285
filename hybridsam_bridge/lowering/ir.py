"""The small graph between torch and Julia: few kinds of nodes, views free, equal nodes made once.

A node is a dense row-major tensor of float64 ("f"), integers held as floats ("i") or booleans ("b").
Its kind is one of

=========  ================================================================================
input      an argument of the emitted function; attrs (name, offset)
const      data known when traced (buffers of a module); attrs (position in ``Graph.constants``)
full       one literal number everywhere; attrs (value,)
eye        the identity matrix of the cotangents in a batched Jacobian
view       another node through (offset, strides): no work at all
ew         elementwise function of arguments of the same shape; attrs (name,)
contract   batched matrix product (B, M, K) x (B, K, N) -> (B, M, N)
reduce     sum, prod, max or min over the second axis of (outer, inner); attrs (kind,)
argreduce  position of the first max or min, as reduce
scan       running sum or product over the second axis of (outer, inner); attrs (kind,)
place      pieces written into a filled tensor, in order; attrs (fill, ((offset, strides), ...))
gather     (B, S) at positions (I,) or (B, I) -> (B, I)
scatter    (B, I) added at positions into zeros (B, S); attrs (S,)
sweep      products of two views, summed over the axes after the first (rank,): convolutions
=========  ================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybridsam_bridge.lowering import algebra
from hybridsam_bridge.lowering.strides import dense, split_axes

Shape = tuple[int, ...]
Layout = tuple["Node", int, tuple[int, ...]]


@dataclass(eq=False, slots=True)
class Node:
    """One value of the graph; made by ``Graph`` only."""

    op: str
    args: tuple[Node, ...]
    attrs: tuple[Any, ...]
    shape: Shape
    dtype: str
    index: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def literal(self) -> float | None:
        """The number that fills it, if it is known from the structure alone."""
        return self.attrs[0] if self.op == "full" else None


def layout(node: Node) -> Layout:
    """The node that holds the data, and where in it ``node`` lies."""
    if node.op == "view":
        return node.args[0], node.attrs[0], node.attrs[1]
    return node, 0, dense(node.shape)


def squeezed(shape: Sequence[int]) -> Shape:
    return tuple(n for n in shape if n != 1)


def aligned(arg: Node) -> bool:
    """Whether an argument is all of its base in dense order."""
    base, offset, strides = layout(arg)
    own = [s for s, n in zip(strides, arg.shape, strict=True) if n > 1]
    return base.size == arg.size and not offset and tuple(own) == dense(squeezed(arg.shape))


def _identity(node: Node) -> bool:
    base, offset, strides = layout(node)
    return base.op == "eye" and not offset and node.shape == (1, *base.shape) and 0 not in strides[1:]


class Graph:
    """Builds nodes. Equal requests give the same node, so common subexpressions exist once."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.constants: list[np.ndarray] = []
        self._known: dict[tuple[Any, ...], Node] = {}

    def make(self, op: str, args: tuple[Node, ...], attrs: tuple[Any, ...], shape: Sequence[int], dtype: str) -> Node:
        """The node with exactly these properties, without any simplification."""
        shape = tuple(int(s) for s in shape)
        key = (op, tuple(a.index for a in args), repr(attrs), shape, dtype)
        node = self._known.get(key)
        if node is None:
            node = Node(op, args, attrs, shape, dtype, len(self.nodes))
            self.nodes.append(node)
            self._known[key] = node
        return node

    # ---- leaves ----
    def input(self, name: str, shape: Sequence[int], offset: int = 0) -> Node:
        return self.make("input", (), (name, offset), shape, "f")

    def full(self, value: float, shape: Sequence[int] = (), dtype: str = "f") -> Node:
        return self.make("full", (), (float(value),), shape, dtype)

    def const(self, data: np.ndarray, dtype: str) -> Node:
        """Data known now. Its values stay out of the source."""
        self.constants.append(np.ascontiguousarray(data, dtype=np.float64))
        return self.make("const", (), (len(self.constants) - 1,), data.shape, dtype)

    # ---- views ----
    def view(self, base: Node, shape: Sequence[int], offset: int, strides: Sequence[int]) -> Node:
        """``base`` (not itself a view) seen through offset and strides, in elements of its dense order."""
        shape = tuple(int(s) for s in shape)
        strides = tuple(0 if length == 1 else s for length, s in zip(shape, strides, strict=True))
        if base.op == "full":
            return self.full(base.attrs[0], shape, base.dtype)
        if offset == 0 and shape == base.shape and strides == dense(shape):
            return base
        return self.make("view", (base,), (int(offset), strides), shape, base.dtype)

    def reshape(self, node: Node, shape: Sequence[int]) -> Node:
        base, offset, strides = layout(node)
        new = split_axes(node.shape, strides, shape)
        if new is not None:
            return self.view(base, shape, offset, new)
        return self.reshape(self.copy(node), shape)

    def copy(self, node: Node) -> Node:
        """The same values, dense."""
        if node.op != "view":
            return node
        return self.make("ew", (node,), ("copy",), node.shape, node.dtype)

    def permute(self, node: Node, axes: Sequence[int]) -> Node:
        base, offset, strides = layout(node)
        axes = [a % len(node.shape) for a in axes]
        return self.view(base, [node.shape[a] for a in axes], offset, [strides[a] for a in axes])

    def expand(self, node: Node, shape: Sequence[int]) -> Node:
        """Broadcast to ``shape`` (more leading axes, axes of length one repeated)."""
        if node.shape == tuple(shape):
            return node
        base, offset, strides = layout(node)
        extra = len(shape) - len(node.shape)
        new = [0] * extra + [s if n == m else 0 for s, n, m in zip(strides, node.shape, shape[extra:], strict=True)]
        return self.view(base, shape, offset, new)

    def narrow(self, node: Node, axis: int, start: int, count: int, step: int = 1) -> Node:
        """``count`` elements along ``axis`` from ``start``, ``step`` apart (negative to go back)."""
        base, offset, strides = layout(node)
        shape = list(node.shape)
        axis %= len(shape)
        shape[axis] = count
        new = list(strides)
        new[axis] = strides[axis] * step
        return self.view(base, shape, offset + start * strides[axis], new)

    def select(self, node: Node, axis: int, index: int) -> Node:
        axis %= len(node.shape)
        part = self.narrow(node, axis, index % node.shape[axis], 1)
        return self.reshape(part, node.shape[:axis] + node.shape[axis + 1 :])

    def on_layout(self, node: Node, change: Callable[[Shape, Shape], tuple[Sequence[int], int, Sequence[int]]]) -> Node:
        """A view made by ``change(shape, strides) -> (shape, extra offset, strides)``."""
        base, offset, strides = layout(node)
        shape, more, new = change(node.shape, strides)
        return self.view(base, shape, offset + more, new)

    # ---- values ----
    def ew(self, name: str, *args: Node | float, dtype: str | None = None) -> Node:
        """Elementwise function of broadcast arguments, simplified."""
        nodes = [a if isinstance(a, Node) else self.full(a) for a in args]
        shape = np.broadcast_shapes(*(a.shape for a in nodes))
        kind = algebra.FUNCTIONS[name].result
        nodes = [self._as_kind(a, algebra.FUNCTIONS[name].takes) for a in nodes]
        if dtype is None:
            dtype = kind if kind != "same" else max((a.dtype for a in nodes if a.dtype != "b"), default="f")
            if kind == "same" and name == "where" and all(a.dtype == "b" for a in nodes):
                dtype = "b"
            elif kind == "same":
                dtype = "f" if any(a.dtype == "f" for a in nodes) else dtype
        wide = [self.expand(a, shape) for a in nodes]
        outer = self._outer(wide, shape) if name == "mul" else None
        return outer if outer is not None else algebra.simplify(self, name, wide, shape, dtype)

    def _outer(self, args: Sequence[Node], shape: Shape) -> Node | None:
        """A broadcast product of a column and a row as what it is, for the rank-one kernels."""
        if len(shape) != 2 or math.prod(shape) < 64 or min(shape) < 2 or any(a.literal is not None for a in args):
            return None
        for a, b in (args, args[::-1]):
            if layout(a)[2][1] == 0 and layout(b)[2][0] == 0 and layout(a)[2][0] and layout(b)[2][1]:
                column, row = self.narrow(a, 1, 0, 1), self.narrow(b, 0, 0, 1)
                product = self.contract(self.reshape(column, (1, shape[0], 1)), self.reshape(row, (1, 1, shape[1])))
                return self.reshape(product, shape)
        return None

    def _as_kind(self, node: Node, takes: str) -> Node:
        if takes == "number" and node.dtype == "b":
            if node.literal is not None:
                return self.full(node.literal, node.shape)
            return self.make("ew", (node,), ("cast",), node.shape, "f")
        if takes == "bool" and node.dtype != "b":
            return self.ew("ne", node, 0.0)
        return node

    def raw_ew(self, name: str, args: Sequence[Node], shape: Sequence[int], dtype: str) -> Node:
        """Elementwise node as it stands; arguments already have ``shape``."""
        return self.make("ew", tuple(args), (name,), shape, dtype)

    def contract(self, a: Node, b: Node, start: Node | None = None) -> Node:
        """(B, M, K) x (B, K, N) -> (B, M, N), added to ``start`` (B, M, N) if that is given."""
        batch, m, k = a.shape
        n = b.shape[2]
        if start is not None:
            return self.make("contract", (a, b, start), (), (batch, m, n), "f")
        if a.literal == 0.0 or b.literal == 0.0 or k == 0:
            return self.full(0.0, (batch, m, n))
        if _identity(a):
            return b
        if _identity(b):
            return a
        if batch == 1 and k == 1 and (m == 1 or n == 1):
            return self.ew("mul", self.expand(a, (batch, m, n)), self.expand(b, (batch, m, n)))
        return self.make("contract", (a, b), (), (batch, m, n), "f")

    def sweep(self, a: Node, b: Node, rank: int) -> Node:
        """Products of two views of equal shape, summed over all axes but the first ``rank``."""
        shape = a.shape[:rank]
        if a.literal == 0.0 or b.literal == 0.0:
            return self.full(0.0, shape)
        return self.make("sweep", (a, b), (rank,), shape, "f")

    def reduce(self, kind: str, node: Node, axes: Iterable[int], keep: bool = False, dtype: str = "f") -> Node:
        """Reduce over ``axes`` with sum, prod, max or min (argmax, argmin: one axis)."""
        rank = len(node.shape)
        gone = sorted({a % rank for a in axes}) if rank else []
        kept = [a for a in range(rank) if a not in gone]
        shape = tuple(node.shape[a] for a in kept)
        inner = math.prod(node.shape[a] for a in gone)
        final = tuple(1 if a in gone else node.shape[a] for a in range(rank)) if keep else shape
        if kind not in ("argmax", "argmin"):
            node = self._as_kind(node, "number")
            if inner == 1:
                return self.reshape(node, final)
            value = node.literal
            if value is not None and (kind in ("sum", "max", "min")) and inner > 0:
                return self.full(value * inner if kind == "sum" else value, final)
        if inner == 0:
            return self.full(0.0 if kind == "sum" else 1.0, final)
        moved = self.reshape(self.permute(node, kept + gone), (math.prod(shape), inner))
        op = "argreduce" if kind in ("argmax", "argmin") else "reduce"
        return self.reshape(self.make(op, (moved,), (kind,), (moved.shape[0],), dtype), final)

    def scan(self, kind: str, node: Node, axis: int) -> Node:
        """Running sum or product along ``axis``."""
        rank = len(node.shape)
        if rank == 0 or node.literal == 0.0:
            return node
        order = [a for a in range(rank) if a != axis % rank] + [axis % rank]
        moved = self.permute(self._as_kind(node, "number"), order)
        flat = self.reshape(moved, (math.prod(moved.shape[:-1]), moved.shape[-1]))
        done = self.make("scan", (flat,), (kind,), flat.shape, node.dtype if node.dtype != "b" else "i")
        back = [order.index(a) for a in range(rank)]
        return self.permute(self.reshape(done, moved.shape), back)

    def place(
        self,
        shape: Sequence[int],
        pieces: Iterable[tuple[Node, int, Sequence[int]]],
        fill: float = 0.0,
        dtype: str = "f",
    ) -> Node:
        """Write pieces, in order, into a tensor of ``fill``. Each comes with its offset and strides there."""
        shape = tuple(shape)
        items = [
            (piece, int(offset), tuple(0 if n == 1 else s for n, s in zip(piece.shape, strides, strict=True)))
            for piece, offset, strides in pieces
            if piece.size
        ]
        if sum(piece.size for piece, _, _ in items) <= math.prod(shape):  # disjoint: what equals the fill is there
            items = [item for item in items if item[0].literal != fill]
        if not items:
            return self.full(fill, shape, dtype)
        if len(items) == 1 and items[0][0].size == math.prod(shape):
            piece, offset, strides = items[0]
            if offset == 0 and split_axes(piece.shape, strides, shape) == dense(shape):
                return self.reshape(piece, shape)
        attrs = (float(fill), tuple((offset, strides) for _, offset, strides in items))
        return self.make("place", tuple(piece for piece, _, _ in items), attrs, shape, dtype)

    def gather(self, source: Node, index: Node) -> Node:
        """``source`` (B, S) at ``index`` (I,) or (B, I) -> (B, I)."""
        out = (source.shape[0], index.shape[-1])
        if source.literal is not None:
            return self.full(source.literal, out, source.dtype)
        return self.make("gather", (source, index), (), out, source.dtype)

    def scatter(self, values: Node, index: Node, size: int) -> Node:
        """``values`` (B, I) added at ``index`` (I,) or (B, I) into zeros (B, size)."""
        out = (values.shape[0], size)
        if values.literal == 0.0:
            return self.full(0.0, out)
        return self.make("scatter", (values, index), (size,), out, "f")


def reachable(roots: Iterable[Node]) -> list[Node]:
    """Every node that ``roots`` need, arguments first."""
    seen: dict[int, Node] = {}
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node.index not in seen:
            seen[node.index] = node
            stack.extend(node.args)
    return [seen[i] for i in sorted(seen)]
