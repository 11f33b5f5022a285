"""From one joint trace to the functions that the solver calls: which values are added to which output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hybridsam_bridge.fields.plan import TorchPart
from hybridsam_bridge.lowering.ir import Graph, Node, layout, reachable
from hybridsam_bridge.lowering.rewrite import NotBatchable, batch, compose, substitute
from hybridsam_bridge.lowering.strides import dense, split_axes
from hybridsam_bridge.lowering.trace import Traced

# Above this size a dense Jacobian is filled column by column with jvp!, whose code does not grow with n.
MAX_BATCHED = 128


@dataclass(frozen=True)
class Sink:
    """``target`` at (offset, strides) over ``shape`` += the elements of ``node`` in their dense order."""

    target: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    node: Node


@dataclass(frozen=True)
class Function:
    """One Julia function: its name, its arguments and its sinks.

    ``columns`` > 0 marks a Jacobian that is filled column by column: the body runs once a unit vector d.
    """

    name: str
    arguments: str
    sinks: tuple[Sink, ...]
    columns: int = 0


def functions(traced: Traced, part: TorchPart) -> list[Function]:
    """All functions of a part, in the order of the interface."""
    g = traced.graph
    inputs = traced.inputs
    zero = g.full(0.0)
    rest = g.full(0.0, inputs["d"].shape)
    # The directional derivative comes out of a pull-back that is linear in v: any v will do.
    ones = {inputs["v"].index: g.full(1.0, inputs["v"].shape)}
    jvp = substitute(g, traced.jd, ones | {inputs["tau"].index: zero})
    tgrad = substitute(g, traced.jd, ones | {inputs["d"].index: rest, inputs["tau"].index: g.full(1.0)})
    pulled = _parameters(g, "gp", traced.gp, part)
    second = _parameters(g, "gp", traced.hp, part)
    return [
        Function("f!", "du,u,c,p,t,w,k", _sinks(g, ("du", traced.f))),
        _jacobian(traced, jvp),
        Function("tgrad!", "dT,u,c,p,t,w,k", _sinks(g, ("dT", tgrad))),
        Function("vjpu!", "gu,v,u,c,p,t,w,k", _sinks(g, ("gu", traced.gu))),
        Function(
            "vjp!",
            "gu,gc,gp,gt,v,u,c,p,t,w,k",
            _sinks(g, ("gu", traced.gu), ("gc", traced.gc), ("gt", traced.gt)) + pulled,
        ),
        Function("hvp!", "gu,gc,gp,v,d,tau,u,c,p,t,w,k", _sinks(g, ("gu", traced.hu), ("gc", traced.hc)) + second),
        Function("jvp!", "jd,d,u,c,p,t,w,k", _sinks(g, ("jd", jvp))),
    ]


def _jacobian(traced: Traced, jvp: Node) -> Function:
    g, n = traced.graph, traced.inputs["u"].size
    if n <= MAX_BATCHED:
        try:
            eye = g.make("eye", (), (), (n, n), "f")
            rows = batch(g, traced.gu, traced.inputs["v"], eye)
            sinks = _push(g, Sink("J", 0, (n, n), (1, n), rows))
            return Function("jac!", "J,u,c,p,t,w,k", tuple(sinks))
        except NotBatchable:
            pass
    return Function("jac!", "J,u,c,p,t,w,k", _sinks(g, ("jd", jvp)), columns=n)


def _sinks(g: Graph, *outputs: tuple[str, Node]) -> tuple[Sink, ...]:
    found: list[Sink] = []
    for target, node in outputs:
        found += _push(g, Sink(target, 0, node.shape, dense(node.shape), node))
    return tuple(found)


def _parameters(g: Graph, target: str, nodes: Sequence[Node], part: TorchPart) -> tuple[Sink, ...]:
    found: list[Sink] = []
    offset = 0
    for spec, node in zip(part.parameters, nodes, strict=True):
        found += _push(g, Sink(target, offset, spec.shape, dense(spec.shape), node))
        offset += spec.size
    return tuple(found)


def _push(g: Graph, sink: Sink) -> list[Sink]:
    """Move a sink up through views, joins and sums, so that products are added where they belong."""
    done: list[Sink] = []
    todo = [sink]
    while todo:
        item = todo.pop()
        node = item.node
        if node.literal == 0.0 or not node.size:
            continue
        if node.op == "view":
            through = _through_view(item)
            if through is None:  # repeated or left-out elements: read through the view
                done.append(Sink(item.target, item.offset, item.shape, item.strides, g.copy(node)))
            else:
                todo.append(through)
        elif node.op == "place" and (pieces := _pieces(item)) is not None:
            todo += pieces
        elif node.op == "ew" and node.attrs[0] == "add" and any(_worth_splitting(a) for a in node.args):
            todo += [Sink(item.target, item.offset, item.shape, item.strides, a) for a in node.args[::-1]]
        else:
            done.append(item)
    return done


def _worth_splitting(node: Node) -> bool:
    base, _, strides = layout(node)
    return (
        base.op in ("contract", "place", "scatter", "sweep")
        and base.size == node.size
        and 0 not in [s for s, n in zip(strides, node.shape, strict=True) if n > 1]
    )


def _through_view(item: Sink) -> Sink | None:
    base, offset, strides = layout(item.node)
    if offset or base.size != item.node.size:
        return None
    target = split_axes(item.shape, item.strides, item.node.shape)
    if target is None:
        return None
    axes = [i for i, n in enumerate(item.node.shape) if n > 1]
    axes.sort(key=lambda i: -strides[i])
    shape = tuple(item.node.shape[i] for i in axes)
    if tuple(strides[i] for i in axes) != dense(shape):
        return None
    return Sink(item.target, item.offset, shape, tuple(target[i] for i in axes), base)


def _pieces(item: Sink) -> list[Sink] | None:
    fill, where = item.node.attrs
    if fill or sum(a.size for a in item.node.args) > item.node.size:
        return None
    target = split_axes(item.shape, item.strides, item.node.shape)
    if target is None:
        return None
    out = []
    for piece, (offset, strides) in zip(item.node.args, where, strict=True):
        both = compose(offset, strides, piece.shape, item.node.shape, target)
        if both is None:
            return None
        out.append(Sink(item.target, item.offset + both[0], piece.shape, both[1], piece))
    return out


def depends_on(root: Node, source: Node) -> bool:
    """Whether ``source`` is needed to compute ``root``."""
    return any(node is source for node in reachable([root]))
