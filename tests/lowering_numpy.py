"""A plain reading of the lowering's graph in NumPy: no schedule, no memory, no Julia."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hybridsam_bridge.lowering.algebra import FUNCTIONS
from hybridsam_bridge.lowering.derive import Function
from hybridsam_bridge.lowering.ir import Graph, Node, reachable
from hybridsam_bridge.lowering.strides import positions

Arrays = dict[str, np.ndarray]


def run(graph: Graph, function: Function, inputs: Arrays, sizes: dict[str, int]) -> Arrays:
    """The outputs of a function, accumulated from zero; the Jacobian as (n, n)."""
    n = sizes["du"]
    if function.columns:
        unit = np.eye(n)
        return {"J": np.stack([_outputs(graph, function, {**inputs, "d": e}, sizes)["jd"] for e in unit], axis=1)}
    out = _outputs(graph, function, inputs, sizes)
    return {name: value.reshape(n, n).T if name == "J" else value for name, value in out.items()}


def _outputs(graph: Graph, function: Function, inputs: Arrays, sizes: dict[str, int]) -> Arrays:
    values = evaluate(graph, [s.node for s in function.sinks], inputs)
    out: Arrays = {name: np.zeros(size) for name, size in sizes.items()}
    for sink in function.sinks:
        where = positions(sink.shape, sink.offset, sink.strides)
        np.add.at(out[sink.target], where, values[sink.node.index].reshape(-1))
    return out


def evaluate(graph: Graph, roots: Sequence[Node], inputs: Arrays) -> dict[int, np.ndarray]:
    """Values of every node that ``roots`` need, by index."""
    done: dict[int, np.ndarray] = {}
    with np.errstate(all="ignore"):
        for node in reachable(roots):
            args = [done[a.index] for a in node.args]
            done[node.index] = np.asarray(_value(graph, node, args, inputs), dtype=np.float64).reshape(node.shape)
    return done


def _value(graph: Graph, node: Node, args: list[np.ndarray], inputs: Arrays) -> np.ndarray:
    if node.op == "input":
        name, offset = node.attrs
        return np.asarray(inputs[name]).reshape(-1)[offset : offset + node.size]
    if node.op == "const":
        return graph.constants[node.attrs[0]]
    if node.op == "full":
        return np.full(node.shape, node.attrs[0])
    if node.op == "eye":
        return np.eye(node.shape[0])
    if node.op == "view":
        return args[0].reshape(-1)[positions(node.shape, *node.attrs)]
    if node.op == "ew":
        return FUNCTIONS[node.attrs[0]].value(*args)
    if node.op == "contract":
        return args[0] @ args[1]
    if node.op == "sweep":
        return (args[0] * args[1]).reshape(*node.shape, -1).sum(-1)
    if node.op in ("reduce", "argreduce"):
        return getattr(np, node.attrs[0])(args[0], axis=1)
    if node.op == "scan":
        return getattr(np, "cum" + node.attrs[0])(args[0], axis=1)
    return _rearranged(node, args)


def _rearranged(node: Node, args: list[np.ndarray]) -> np.ndarray:
    if node.op == "place":
        fill, where = node.attrs
        out = np.full(node.size, fill)
        for piece, (offset, strides) in zip(args, where, strict=True):
            out[positions(piece.shape, offset, strides)] = piece.reshape(-1)
        return out
    rows = np.arange(args[0].shape[0])[:, None]
    index = np.broadcast_to(args[1].astype(np.int64), (len(rows), args[1].shape[-1]))
    if node.op == "gather":
        return args[0][rows, index]
    assert node.op == "scatter", node.op
    out = np.zeros(node.shape)
    np.add.at(out, (np.broadcast_to(rows, index.shape), index), args[0])
    return out
