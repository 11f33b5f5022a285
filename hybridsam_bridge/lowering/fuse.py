"""Rewrites of one function that depend on who else uses a value."""

from __future__ import annotations

from dataclasses import replace

from hybridsam_bridge.lowering.derive import Function
from hybridsam_bridge.lowering.ir import Graph, Node, layout, reachable
from hybridsam_bridge.lowering.rewrite import rebuild
from hybridsam_bridge.lowering.schedule import aligned

# Products up to this size become straight-line code, which has no use for a starting value.
_UNROLLED = 16


def fuse(graph: Graph, function: Function) -> Function:
    """Sums of a product and something else become products that start from it (a layer's bias)."""
    roots = [s.node for s in function.sinks]
    nodes = reachable(roots)
    uses: dict[int, int] = {}
    for node in [*roots, *(a for n in nodes for a in n.args)]:
        uses[node.index] = uses.get(node.index, 0) + 1
    new: dict[int, Node] = {}
    for node in nodes:
        args = [new[a.index] for a in node.args]
        new[node.index] = _started(graph, node, uses, new) or rebuild(graph, node, args)
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
