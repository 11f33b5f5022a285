"""Graph to graph: set inputs to literals, and push a whole batch of cotangents through at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hybridsam_bridge.lowering.ir import Graph, Node, layout, reachable
from hybridsam_bridge.lowering.strides import dense


class NotBatchable(Exception):
    """A node without a batching rule depends on the batched input."""


def compose(
    offset: int, strides: Sequence[int], lengths: Sequence[int], shape: Sequence[int], outer: Sequence[int]
) -> tuple[int, tuple[int, ...]] | None:
    """A view (offset, strides, lengths) of a dense tensor of ``shape``, that tensor itself being strided by ``outer``.

    Returns offset and strides through both, or None where the view is not made of whole axes.
    """
    own = dense(shape)
    start = []
    rest = offset
    for length, step in zip(shape, own, strict=True):
        start.append(0 if length == 1 else rest // step)
        rest -= start[-1] * step
    if rest or any(not 0 <= s < n for s, n in zip(start, shape, strict=True)):
        return None
    out, used = [], set()
    for length, stride in zip(lengths, strides, strict=True):
        if length == 1 or stride == 0:
            out.append(0)
            continue
        found = None
        for axis, step in enumerate(own):
            if axis in used or shape[axis] == 1 or stride % step:
                continue
            last = start[axis] + (stride // step) * (length - 1)
            if 0 <= last < shape[axis]:
                found = axis
                break
        if found is None:
            return None
        used.add(found)
        out.append(outer[found] * (stride // own[found]))
    return sum(s * o for s, o in zip(start, outer, strict=True)), tuple(out)


def look_through(g: Graph, base: Node, shape: Sequence[int], offset: int, strides: Sequence[int]) -> Node:
    """The view of ``base``, which may be a view itself now."""
    if base.op != "view":
        return g.view(base, shape, offset, strides)
    below, inner_offset, inner = layout(base)
    if inner == dense(base.shape):
        return g.view(below, shape, inner_offset + offset, strides)
    both = compose(offset, strides, shape, base.shape, inner)
    if both is None:
        return g.view(g.copy(base), shape, offset, strides)
    return g.view(below, shape, inner_offset + both[0], both[1])


def rebuild(g: Graph, node: Node, args: Sequence[Node]) -> Node:
    """``node`` on other arguments of the same shapes, simplified again."""
    if all(a is b for a, b in zip(args, node.args, strict=True)):
        return node
    if node.op == "view":
        return look_through(g, args[0], node.shape, *node.attrs)
    if node.op == "ew":
        if node.attrs[0] in ("copy", "cast"):
            if args[0].literal is not None:
                return g.full(args[0].literal, node.shape, node.dtype)
            return g.make("ew", tuple(args), node.attrs, node.shape, node.dtype)
        return g.ew(node.attrs[0], *args, dtype=node.dtype)
    if node.op == "contract":
        return g.contract(*args)
    if node.op == "sweep":
        return g.sweep(args[0], args[1], node.attrs[0])
    if node.op == "reduce":
        return g.reduce(node.attrs[0], args[0], [1], dtype=node.dtype)
    if node.op == "scan":
        return g.scan(node.attrs[0], args[0], 1)
    if node.op == "place":
        fill, where = node.attrs
        pieces = [(a, *w) for a, w in zip(args, where, strict=True)]
        return g.place(node.shape, pieces, fill, node.dtype)
    if node.op == "gather":
        return g.gather(args[0], args[1])
    if node.op == "scatter":
        return g.scatter(args[0], args[1], node.attrs[0])
    return g.make(node.op, tuple(args), node.attrs, node.shape, node.dtype)


def substitute(g: Graph, root: Node, values: Mapping[int, Node]) -> Node:
    """``root`` with some nodes (by index) replaced."""
    new: dict[int, Node] = dict(values)
    for node in reachable([root]):
        if node.index not in new:
            new[node.index] = rebuild(g, node, [new[a.index] for a in node.args])
    return new[root.index]


class _Batch:
    """Pushes a leading axis of length ``count`` through every node that depends on the input."""

    def __init__(self, g: Graph, count: int):
        self.g = g
        self.count = count
        self.done: dict[int, Node] = {}  # batched version, by index of the original

    def lift(self, node: Node) -> Node:
        """The batched node; what does not depend on the input is repeated without cost."""
        found = self.done.get(node.index)
        return found if found is not None else self.g.expand(node, (self.count, *node.shape))

    def visit(self, node: Node) -> None:
        if any(a.index in self.done for a in node.args):
            rule: Callable[[Node], Node] | None = getattr(self, f"_{node.op}", None)
            if rule is None:
                raise NotBatchable(node.op)
            self.done[node.index] = rule(node)

    def _view(self, node: Node) -> Node:
        base = node.args[0]
        offset, strides = node.attrs
        return look_through(self.g, self.done[base.index], (self.count, *node.shape), offset, (base.size, *strides))

    def _ew(self, node: Node) -> Node:
        args = [self.lift(a) for a in node.args]
        if node.attrs[0] in ("copy", "cast"):
            return self.g.make("ew", (args[0],), node.attrs, (self.count, *node.shape), node.dtype)
        return self.g.ew(node.attrs[0], *args, dtype=node.dtype)

    def _contract(self, node: Node) -> Node:
        g, (a, b) = self.g, node.args
        batch, m, k = a.shape
        n, count = b.shape[2], self.count
        if b.index not in self.done:
            left = g.reshape(g.permute(self.lift(a), (1, 0, 2, 3)), (batch, count * m, k))
            return g.permute(g.reshape(g.contract(left, b), (batch, count, m, n)), (1, 0, 2, 3))
        if a.index not in self.done:  # transposed, so that each sample's result is a row of its own
            right = g.reshape(g.permute(self.lift(b), (1, 0, 3, 2)), (batch, count * n, k))
            rows = g.contract(right, g.permute(a, (0, 2, 1)))
            return g.permute(g.reshape(rows, (batch, count, n, m)), (1, 0, 3, 2))
        left = g.reshape(self.lift(a), (count * batch, m, k))
        right = g.reshape(self.lift(b), (count * batch, k, n))
        return g.reshape(g.contract(left, right), (count, batch, m, n))

    def _sweep(self, node: Node) -> Node:
        return self.g.sweep(self.lift(node.args[0]), self.lift(node.args[1]), node.attrs[0] + 1)

    def _reduce(self, node: Node) -> Node:
        return self.g.reduce(node.attrs[0], self.lift(node.args[0]), [2], dtype=node.dtype)

    def _scan(self, node: Node) -> Node:
        return self.g.scan(node.attrs[0], self.lift(node.args[0]), 2)

    def _place(self, node: Node) -> Node:
        fill, where = node.attrs
        pieces = [
            (self.lift(a), offset, (node.size, *strides)) for a, (offset, strides) in zip(node.args, where, strict=True)
        ]
        return self.g.place((self.count, *node.shape), pieces, fill, node.dtype)

    def _rows(self, node: Node) -> tuple[Node, Node]:
        source, index = node.args
        if index.index in self.done:
            raise NotBatchable(node.op)
        flat = self.g.reshape(self.lift(source), (self.count * source.shape[0], source.shape[1]))
        if len(index.shape) == 2:
            index = self.g.reshape(self.lift(index), (self.count * index.shape[0], index.shape[1]))
        return flat, index

    def _gather(self, node: Node) -> Node:
        flat, index = self._rows(node)
        return self.g.reshape(self.g.gather(flat, index), (self.count, *node.shape))

    def _scatter(self, node: Node) -> Node:
        flat, index = self._rows(node)
        return self.g.reshape(self.g.scatter(flat, index, node.attrs[0]), (self.count, *node.shape))


def batch(g: Graph, root: Node, source: Node, values: Node) -> Node:
    """``root`` for every row of ``values`` (count, *source.shape) put in place of ``source``.

    Raises ``NotBatchable`` where a node has no rule.
    """
    run = _Batch(g, values.shape[0])
    run.done[source.index] = values
    for node in reachable([root]):
        if node.index != source.index:
            run.visit(node)
    return run.lift(root)
