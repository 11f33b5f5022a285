"""Small tensors, element by element: expressions that become Julia locals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hybridsam_bridge.lowering import algebra
from hybridsam_bridge.lowering.ir import Graph, Node, layout
from hybridsam_bridge.lowering.strides import positions


@dataclass(eq=False, slots=True)
class Scalar:
    """One number: op lit, load (attrs: array, position) or ew. ``stage`` is when it can be had."""

    op: str
    args: tuple[Scalar, ...]
    attrs: tuple[Any, ...]
    dtype: str
    index: int
    stage: int

    @property
    def literal(self) -> float | None:
        return self.attrs[0] if self.op == "lit" else None


@dataclass
class Scalars:
    """Builds expressions; equal ones exist once. ``homes`` says where tensors in memory are and since when."""

    graph: Graph
    is_scalar: dict[int, bool]
    stages: dict[int, int]  # when a tensor in memory is complete
    nodes: list[Scalar] = field(default_factory=list)
    _known: dict[tuple[Any, ...], Scalar] = field(default_factory=dict)
    _elements: dict[tuple[int, int], Scalar] = field(default_factory=dict)
    _where: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    _owner: dict[int, list[tuple[int, int] | None]] = field(default_factory=dict)

    def _make(self, op: str, args: Sequence[Scalar], attrs: tuple[Any, ...], dtype: str, stage: int) -> Scalar:
        marks = (attrs[0].index, attrs[1]) if op == "load" else repr(attrs)
        key = (op, tuple(a.index for a in args), marks, dtype)
        found = self._known.get(key)
        if found is None:
            found = Scalar(op, tuple(args), attrs, dtype, len(self.nodes), stage)
            self.nodes.append(found)
            self._known[key] = found
        return found

    # ---- what algebra.simplify asks of a graph ----
    def full(self, value: float, shape: Sequence[int] = (), dtype: str = "f") -> Scalar:
        return self._make("lit", (), (float(value),), dtype, 0)

    def raw_ew(self, name: str, args: Sequence[Scalar], shape: Sequence[int], dtype: str) -> Scalar:
        return self._make("ew", args, (name,), dtype, max((a.stage for a in args), default=0))

    # ---- elements ----
    def element(self, node: Node, position: int) -> Scalar:
        """Element of a node that is not a view, by its position in dense order."""
        key = (node.index, position)
        found = self._elements.get(key)
        if found is None:
            found = self._element(node, position)
            self._elements[key] = found
        return found

    def _element(self, node: Node, i: int) -> Scalar:
        if node.op == "full":
            return self.full(node.attrs[0], (), node.dtype)
        if node.op == "eye":
            return self.full(float(i // node.shape[0] == i % node.shape[0]))
        if not self.is_scalar[node.index] or node.op == "input":
            return self._make("load", (), (node, i), node.dtype, self.stages[node.index])
        rule = getattr(self, f"_of_{node.op}")
        result: Scalar = rule(node, i)
        return result

    def argument(self, node: Node, which: int, i: int) -> Scalar:
        """Element ``i`` (dense order) of an argument of ``node``."""
        arg = node.args[which]
        base, offset, strides = layout(arg)
        if base is arg:
            return self.element(base, i)
        key = (node.index, which)
        if key not in self._where:
            self._where[key] = positions(arg.shape, offset, strides).tolist()
        return self.element(base, self._where[key][i])

    def _of_ew(self, node: Node, i: int) -> Scalar:
        args = [self.argument(node, a, i) for a in range(len(node.args))]
        name = node.attrs[0]
        if name == "copy":
            return args[0]
        if name == "cast" and args[0].literal is not None:
            return self.full(args[0].literal)
        made: Scalar = algebra.simplify(self, name, args, (), node.dtype)
        return made

    def _of_place(self, node: Node, i: int) -> Scalar:
        if node.index not in self._owner:
            owner: list[tuple[int, int] | None] = [None] * node.size
            for which, (piece, (offset, strides)) in enumerate(zip(node.args, node.attrs[1], strict=True)):
                for at, position in enumerate(positions(piece.shape, offset, strides).tolist()):
                    owner[position] = (which, at)
            self._owner[node.index] = owner
        found = self._owner[node.index][i]
        return self.full(node.attrs[0], (), node.dtype) if found is None else self.argument(node, *found)

    def _of_contract(self, node: Node, i: int) -> Scalar:
        _, m, n = node.shape
        k = node.args[0].shape[2]
        b, row, column = i // (m * n), i // n % m, i % n
        terms = [self.argument(node, 2, i)] if len(node.args) == 3 else []
        for j in range(k):
            left = self.argument(node, 0, (b * m + row) * k + j)
            right = self.argument(node, 1, (b * k + j) * n + column)
            terms.append(algebra.simplify(self, "mul", [left, right], (), "f"))
        return self._chain("add", terms)

    def _chain(self, name: str, terms: Sequence[Scalar]) -> Scalar:
        total = terms[0]
        for term in terms[1:]:
            total = algebra.simplify(self, name, [total, term], (), "f")
        return total

    def _of_reduce(self, node: Node, i: int) -> Scalar:
        inner = node.args[0].shape[1]
        name = {"sum": "add", "prod": "mul", "max": "maximum", "min": "minimum"}[node.attrs[0]]
        return self._chain(name, [self.argument(node, 0, i * inner + j) for j in range(inner)])

    def _of_scan(self, node: Node, i: int) -> Scalar:
        inner = node.shape[1]
        term = self.argument(node, 0, i)
        if i % inner == 0:
            return term
        name = {"sum": "add", "prod": "mul"}[node.attrs[0]]
        made: Scalar = algebra.simplify(self, name, [self.element(node, i - 1), term], (), node.dtype)
        return made

    def _index(self, node: Node) -> np.ndarray:
        base, offset, strides = layout(node.args[1])
        data = self.graph.constants[base.attrs[0]].reshape(-1)
        return data[positions(node.args[1].shape, offset, strides)].astype(np.int64)

    def _of_gather(self, node: Node, i: int) -> Scalar:
        count = node.shape[1]
        index = self._index(node)
        at = index[i if len(node.args[1].shape) == 2 else i % count]
        return self.argument(node, 0, i // count * node.args[0].shape[1] + int(at))

    def _of_scatter(self, node: Node, i: int) -> Scalar:
        values, index = node.args[0], self._index(node)
        row, target, count = i // node.shape[1], i % node.shape[1], values.shape[1]
        picks = index[row * count : (row + 1) * count] if len(node.args[1].shape) == 2 else index
        terms = [self.argument(node, 0, row * count + int(j)) for j in np.flatnonzero(picks == target)]
        return self._chain("add", [self.full(0.0), *terms])


def number(value: float, dtype: str) -> str:
    """A literal as Julia text."""
    if dtype == "b":
        return "true" if value else "false"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf" if value > 0 else "(-Inf)"
    return repr(value) if value >= 0 and not str(value).startswith("-") else f"({value!r})"
