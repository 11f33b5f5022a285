"""Which entries of the Jacobian df_i/du_j can be other than zero, from the structure of the traced graph.

Each node carries a boolean matrix: its elements against the components of u. Derivatives that vanish
almost everywhere (comparisons, integers, rounding) carry nothing. Zeros of constant matrices count: a
differentiation matrix kept as a buffer gives its own stencil.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from hybridsam_bridge.fields.plan import TorchPart
from hybridsam_bridge.lowering.ir import Graph, Node, layout, reachable
from hybridsam_bridge.lowering.strides import positions
from hybridsam_bridge.lowering.trace import trace

Ints = NDArray[np.int64]
_FLAT = frozenset({"sign", "floor", "ceil", "round", "trunc"})


def sparsity(part: TorchPart, n: int, nc: int) -> tuple[Ints, Ints]:
    """Rows and columns (zero-based, sorted by row) of the entries of df/du that may be nonzero.

    Raises ``UnsupportedOperation`` as ``lower`` does.
    """
    traced = trace(part, n, nc)
    pattern = _Patterns(traced.graph, traced.inputs["u"]).of(traced.f)
    if pattern is None:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    pattern.sum_duplicates()
    found = pattern.tocoo()
    order = np.lexsort((found.col, found.row))
    return found.row[order].astype(np.int64), found.col[order].astype(np.int64)


class _Patterns:
    """Patterns (size, n) by node index; None where a node does not depend on u."""

    def __init__(self, graph: Graph, source: Node):
        self.graph = graph
        self.source = source
        self.done: dict[int, sparse.csr_array | None] = {}

    def of(self, root: Node) -> sparse.csr_array | None:
        for node in reachable([root]):
            self.done[node.index] = self._visit(node)
        return self.done[root.index]

    def _visit(self, node: Node) -> sparse.csr_array | None:
        if node is self.source:
            return sparse.eye_array(node.size, format="csr", dtype=np.float32)
        flat = node.dtype != "f" or (node.op == "ew" and node.attrs[0] in _FLAT)
        if flat or all(self.done[a.index] is None for a in node.args):
            return None
        rule = getattr(self, f"_{node.op}")
        result: sparse.csr_array | None = rule(node)
        return result

    def _pick(self, node: Node, rows: Ints) -> sparse.csr_array | None:
        pattern = self.done[node.index]
        return None if pattern is None else pattern[rows]

    def _view(self, node: Node) -> sparse.csr_array | None:
        return self._pick(node.args[0], positions(node.shape, *node.attrs))

    def _ew(self, node: Node) -> sparse.csr_array | None:
        return _union([self.done[a.index] for a in node.args])

    def _product(self, node: Node, a: Node, b: Node, rank: int) -> sparse.csr_array | None:
        """Union over the axes after ``rank`` of two views of one shape."""
        return _union([self._summed(a, rank, self._zeros(b)), self._summed(b, rank, self._zeros(a))])

    def _zeros(self, factor: Node) -> NDArray[np.bool_] | None:
        """Where the other factor is zero by its constants."""
        base, offset, strides = layout(factor)
        if base.op != "const":
            return None
        values = self.graph.constants[base.attrs[0]].reshape(-1)
        return values[positions(factor.shape, offset, strides)].reshape(factor.shape) == 0.0

    def _summed(self, arg: Node, rank: int, zeros: NDArray[np.bool_] | None) -> sparse.csr_array | None:
        base, offset, strides = layout(arg)
        pattern = self.done[base.index]
        if pattern is None:
            return None
        # Axes of the result along which the factor repeats (output channels) are worked out once.
        distinct = [n if s or zeros is not None else 1 for n, s in zip(arg.shape, strides, strict=True)][:rank]
        small = (*distinct, *arg.shape[rank:])
        where = positions(small, offset, strides)
        rows = math.prod(distinct)
        inner = where.size // max(rows, 1)
        keep = np.ones(where.size, dtype=bool) if zeros is None else ~zeros.reshape(-1)
        row_of = np.repeat(np.arange(rows), inner)[keep]
        shape = (rows, base.size)
        select = sparse.csr_array((np.ones(keep.sum(), dtype=np.float32), (row_of, where[keep])), shape=shape)
        combined = sparse.csr_array(select @ pattern)
        full = np.broadcast_to(np.arange(rows).reshape(distinct), arg.shape[:rank])
        return combined[full.reshape(-1)]

    def _contract(self, node: Node) -> sparse.csr_array | None:
        a, b = node.args[:2]
        batch, m, k = a.shape
        n = b.shape[2]
        full = (batch, m, n, k)
        g = self.graph
        left = g.expand(g.reshape(a, (batch, m, 1, k)), full)
        right = g.expand(g.reshape(g.permute(b, (0, 2, 1)), (batch, 1, n, k)), full)
        for extra in reachable([left, right]):
            if extra.index not in self.done:
                self.done[extra.index] = self._visit(extra)
        return self._product(node, left, right, 3)

    def _sweep(self, node: Node) -> sparse.csr_array | None:
        return self._product(node, node.args[0], node.args[1], node.attrs[0])

    def _reduce(self, node: Node) -> sparse.csr_array | None:
        return self._summed(node.args[0], 1, None)

    def _scan(self, node: Node) -> sparse.csr_array | None:
        outer, inner = node.shape
        below = sparse.kron(sparse.eye_array(outer), np.tri(inner), format="csr")
        return sparse.csr_array(below @ self.done[node.args[0].index])

    def _place(self, node: Node) -> sparse.csr_array | None:
        total: list[sparse.csr_array | None] = []
        for piece, (offset, strides) in zip(node.args, node.attrs[1], strict=True):
            where = positions(piece.shape, offset, strides)
            ones = np.ones(where.size, dtype=np.float32)
            put = sparse.csr_array((ones, (where, np.arange(where.size))), shape=(node.size, where.size))
            pattern = self.done[piece.index]
            total.append(None if pattern is None else sparse.csr_array(put @ pattern))
        return _union(total)

    def _index(self, node: Node) -> Ints | None:
        """Positions (rows, count) in (rows, size) made linear, or None if they are computed."""
        base, offset, strides = layout(node.args[1])
        if base.op != "const":
            return None
        data = self.graph.constants[base.attrs[0]].reshape(-1)[positions(node.args[1].shape, offset, strides)]
        return data.astype(np.int64).reshape(node.args[1].shape)

    def _gather(self, node: Node) -> sparse.csr_array | None:
        rows, count = node.shape
        size, index = node.args[0].shape[1], self._index(node)
        pattern = self.done[node.args[0].index]
        if pattern is None:
            return None
        if index is None:
            return _spread(pattern, rows, size, count)
        linear = np.broadcast_to(index, (rows, count)) + size * np.arange(rows)[:, None]
        return pattern[linear.reshape(-1)]

    def _scatter(self, node: Node) -> sparse.csr_array | None:
        rows, size = node.shape
        count, index = node.args[0].shape[1], self._index(node)
        pattern = self.done[node.args[0].index]
        if pattern is None:
            return None
        if index is None:
            return _spread(pattern, rows, count, size)
        linear = (np.broadcast_to(index, (rows, count)) + size * np.arange(rows)[:, None]).reshape(-1)
        ones = np.ones(linear.size, dtype=np.float32)
        put = sparse.csr_array((ones, (linear, np.arange(linear.size))), shape=(node.size, linear.size))
        return sparse.csr_array(put @ pattern)


def _spread(pattern: sparse.csr_array, rows: int, inner: int, count: int) -> sparse.csr_array:
    """Every one of ``count`` results of a row may depend on all ``inner`` elements of it."""
    together = sparse.kron(sparse.eye_array(rows), np.ones((count, inner)), format="csr")
    return sparse.csr_array(together @ pattern)


def _union(patterns: list[sparse.csr_array | None]) -> sparse.csr_array | None:
    found = [p for p in patterns if p is not None]
    if not found:
        return None
    total = found[0]
    for pattern in found[1:]:
        total = sparse.csr_array(total + pattern)
    return total
