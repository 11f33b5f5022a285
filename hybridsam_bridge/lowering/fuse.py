"""Rewrites of one function that depend on who else uses a value."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from operator import mul

from hybridsam_bridge.lowering import algebra
from hybridsam_bridge.lowering.derive import Function
from hybridsam_bridge.lowering.ir import Graph, Node, aligned, layout, reachable
from hybridsam_bridge.lowering.rewrite import rebuild
from hybridsam_bridge.lowering.strides import dense

# Products up to this size become straight-line code, which has no use for a starting value.
_UNROLLED = 16


def fuse(graph: Graph, function: Function) -> Function:
    """A layer's bias goes into its product or its activation; sums over a tensor become sums over its padded copy."""
    roots = [s.node for s in function.sinks]
    nodes = reachable(roots)
    uses: dict[int, int] = {}
    for node in [*roots, *(a for n in nodes for a in n.args)]:
        uses[node.index] = uses.get(node.index, 0) + 1
    padded = {layout(n.args[0])[0].index: n for n in nodes if n.op == "place" and len(n.args) == 1}
    new: dict[int, Node] = {}
    for node in nodes:
        args = [new[a.index] for a in node.args]
        fused = _started(graph, node, uses, new) or _biased(graph, node, uses, new)
        new[node.index] = fused or _over_padding(graph, node, padded, new) or rebuild(graph, node, args)
    sinks = tuple(replace(s, node=new[s.node.index]) for s in function.sinks)
    if any(s.node.op == "view" for s in sinks):  # a fused root has become a view of its product: keep it apart
        sinks = tuple(replace(s, node=graph.copy(s.node)) for s in sinks)
    return replace(function, sinks=sinks)


def _started(graph: Graph, node: Node, uses: dict[int, int], new: dict[int, Node]) -> Node | None:
    if node.op != "ew" or node.attrs[0] != "add" or node.size <= _UNROLLED:
        return None
    for product, other in (node.args, node.args[::-1]):
        base = layout(product)[0]
        alone = uses[base.index] == 1 and (base is product or uses[product.index] == 1)
        if base.op != "contract" or len(base.args) == 3 or not alone or not aligned(product):
            continue
        if base.args[0].shape[2] == 1 or layout(other)[0].op == "full":
            continue  # a rank-one update is as fast in the loop
        start = graph.reshape(new[other.index], base.shape)
        made = graph.contract(new[base.args[0].index], new[base.args[1].index], start)
        return graph.reshape(made, node.shape)
    return None


def _biased(graph: Graph, node: Node, uses: dict[int, int], new: dict[int, Node]) -> Node | None:
    """An activation of a convolution plus its bias adds the bias itself."""
    if node.op != "ew" or node.attrs[0] not in algebra.MAPS or node.size <= _UNROLLED:
        return None
    total = layout(node.args[0])[0]
    alone = uses[total.index] == 1 and (total is node.args[0] or uses[node.args[0].index] == 1)
    if total.op != "ew" or total.attrs[0] != "add" or not alone or not aligned(node.args[0]):
        return None
    for product, bias in (total.args, total.args[::-1]):
        strides = [s for s, n in zip(layout(bias)[2], bias.shape, strict=True) if n > 1]
        if layout(product)[0].op == "sweep" and aligned(product) and bias.op == "view" and not strides[-1]:
            both = [graph.reshape(new[x.index], node.shape) for x in (product, bias)]
            return graph.raw_ew(f"{node.attrs[0]}_sum", both, node.shape, node.dtype)
    return None


def _over_padding(graph: Graph, node: Node, padded: dict[int, Node], new: dict[int, Node]) -> Node | None:
    """The sum over whole axes of a tensor that is padded with zeros is that over the padded one: one copy is enough."""
    if node.op != "reduce" or node.attrs[0] != "sum":
        return None
    base = layout(node.args[0])[0]
    outer = node.args[0].shape[0]
    host = padded.get(base.index)
    if host is None or base.op == "input" or host.attrs[0] != 0.0 or not aligned(node.args[0]):
        return None
    piece = host.args[0]
    if not aligned(piece) or len(piece.shape) != len(host.shape):
        return None
    lengths = list(accumulate(piece.shape, mul, initial=1))
    if outer not in lengths:
        return None
    whole = lengths.index(outer)  # axes that are kept must be whole in the host, and each of its own
    where = host.attrs[1][0][1]
    if piece.shape[:whole] != host.shape[:whole] or where[:whole] != dense(host.shape)[:whole]:
        return None

    def now(old: Node) -> Node:
        return new.get(old.index) or rebuild(graph, old, [now(a) for a in old.args])

    return graph.reduce("sum", graph.reshape(now(host), (outer, host.size // outer)), [1], dtype=node.dtype)
