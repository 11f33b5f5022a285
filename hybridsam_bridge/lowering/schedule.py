"""Decides for one function which tensors live in locals, loops or kernels, in which order, and where in memory.

Work is cut into stages. A loop or kernel of stage s uses what is complete by s, and its results are
complete at s + 1; elementwise nodes of equal shape whose arguments meet in the same stage share one loop.
Locals are computed at the stage in which their last argument is complete.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hybridsam_bridge.lowering import algebra
from hybridsam_bridge.lowering.derive import Function, Sink
from hybridsam_bridge.lowering.guests import Guest, find_guests
from hybridsam_bridge.lowering.ir import Graph, Node, aligned, layout, reachable, squeezed
from hybridsam_bridge.lowering.strides import split_axes

_TRANSPOSED = 256  # numbers from which a copy of columns into rows is worth a call
_MAPS = frozenset((*algebra.MAPS, *(f"{name}_sum" for name in algebra.MAPS)))


@dataclass(frozen=True)
class Limits:
    """How much to unroll: tensors up to ``small`` elements, up to ``mixed`` when all arguments are unrolled."""

    small: int
    mixed: int


@dataclass
class Schedule:
    """Where and when everything of one function happens. All dicts go by node index."""

    graph: Graph
    function: Function
    nodes: list[Node]
    is_scalar: dict[int, bool]
    stage: dict[int, int]  # when a loop or kernel runs
    ready: dict[int, int]  # when a node is complete
    loops: dict[tuple[int, tuple[int, ...]], list[Node]]
    kernels: dict[int, list[Node]]
    stored: set[int]  # loop results that are needed outside their loop
    spilled: set[int]  # locals that a kernel or loop needs in memory
    direct: dict[int, Sink]  # products that go straight to an output
    loop_sinks: dict[tuple[int, tuple[int, ...]], list[Sink]]
    scalar_sinks: list[Sink]
    late_sinks: list[Sink]  # kernel results added to an output
    guests: dict[int, Guest] = field(default_factory=dict)  # results that lie inside another
    offsets: dict[int, int] = field(default_factory=dict)
    workspace: int = 0
    last: int = 0


def is_map(node: Node) -> bool:
    """Whether an elementwise node has a kernel of its own."""
    return node.op == "ew" and (node.attrs[0] in _MAPS or _transposes(node))


def _transposes(node: Node) -> bool:
    """Whether a node is a copy of some size whose rows are columns of what it copies."""
    if node.attrs[0] != "copy" or node.size < _TRANSPOSED:
        return False
    steps = [s for s, n in zip(layout(node.args[0])[2], node.shape, strict=True) if n > 1]
    return len(steps) > 1 and steps[-1] > 1 and steps[-2] == 1


def is_point(arg: Node) -> bool:
    """Whether an argument is one element repeated."""
    return all(s == 0 for s, n in zip(layout(arg)[2], arg.shape, strict=True) if n > 1)


def _unrolled(node: Node, known: dict[int, bool], limits: Limits, graph: Graph) -> bool:
    bases = [layout(a)[0] for a in node.args]
    all_known = all(known[b.index] or b.op in ("full", "eye") for b in bases)
    if node.op in ("input", "const"):
        return node.op == "input" and node.attrs[0] in ("t", "tau")
    if node.op in ("full", "eye"):
        return True
    if node.op in ("gather", "scatter") and bases[1].op != "const":
        return False
    if node.op not in ("ew", "place", "contract", "reduce", "scan", "gather", "scatter"):
        return False
    work = node.size
    if node.op in ("reduce", "scatter"):
        work = max(work, node.args[0].size)
    if node.op == "contract":
        work = max(work, node.size * node.args[0].shape[2] // 4)
    return work <= (limits.mixed if all_known else limits.small)


def schedule(graph: Graph, function: Function, limits: Limits) -> Schedule:
    """The plan of one function."""
    roots = [s.node for s in function.sinks]
    nodes = [node for node in reachable(roots) if node.op != "view"]
    known: dict[int, bool] = {}
    for node in nodes:
        known[node.index] = _unrolled(node, known, limits, graph)
    s = Schedule(graph, function, nodes, known, {}, {}, {}, {}, set(), set(), {}, {}, [], [])
    s.guests |= find_guests(nodes, {layout(root)[0].index for root in roots}, known)
    _stages(s)
    _move_to_readers(s)
    _assign_sinks(s)
    _memory_needs(s)
    _allocate(s)
    return s


def _stages(s: Schedule) -> None:
    hosts = {guest.host.index: index for index, guest in s.guests.items()}
    for node in s.nodes:
        i = node.index
        bases = [layout(a)[0] for a in node.args]
        arrived = max((s.ready[b.index] for b in bases), default=0)
        if s.is_scalar[i] or node.op in ("input", "const"):
            s.ready[i] = arrived
            continue
        if i in hosts:  # filled around its guest before that is written
            s.stage[i] = s.stage[hosts[i]]
            s.kernels.setdefault(s.stage[i], []).insert(0, node)
        elif node.op == "ew" and not is_map(node):
            times = [_arrival(s, node, a) for a in node.args]
            s.stage[i] = max(times, default=0)
            s.loops.setdefault((s.stage[i], squeezed(node.shape)), []).append(node)
        else:
            s.stage[i] = arrived
            s.kernels.setdefault(arrived, []).append(node)
        s.ready[i] = s.stage[i] + 1
    s.last = max(s.ready.values(), default=0)


def _move_to_readers(s: Schedule) -> None:
    """Elementwise nodes of one argument go to the later loop that is their only reader: they need no memory then."""
    readers: dict[int, list[tuple[Node | None, Node]]] = {}
    for node in s.nodes:
        for arg in node.args:
            readers.setdefault(layout(arg)[0].index, []).append((node, arg))
    for sink in s.function.sinks:
        readers.setdefault(sink.node.index, []).append((None, sink.node))
    for node in reversed(s.nodes):
        i = node.index
        if node.op != "ew" or is_map(node) or s.is_scalar[i] or i in s.guests:
            continue
        if len({layout(a)[0].index for a in node.args if layout(a)[0].literal is None}) > 1:
            continue
        users = {id(user) for user, _ in readers[i]}
        reader = readers[i][0][0]
        if len(users) != 1 or reader is None or reader.op != "ew" or is_map(reader) or s.is_scalar[reader.index]:
            continue
        fits = squeezed(reader.shape) == squeezed(node.shape) and all(aligned(arg) for _, arg in readers[i])
        if fits and s.stage[reader.index] > s.stage[i]:
            shape = squeezed(node.shape)
            s.loops[s.stage[i], shape].remove(node)
            if not s.loops[s.stage[i], shape]:
                del s.loops[s.stage[i], shape]
            s.stage[i], s.ready[i] = s.stage[reader.index], s.ready[reader.index]
            group = s.loops[s.stage[i], shape]
            group.append(node)
            group.sort(key=lambda n: n.index)


def _arrival(s: Schedule, node: Node, arg: Node) -> int:
    """When ``node`` could use ``arg``: in the same loop, if that computes it in the same order."""
    base = layout(arg)[0]
    same_loop = base.op == "ew" and not is_map(base) and not s.is_scalar[base.index] and aligned(arg)
    if same_loop and squeezed(base.shape) == squeezed(node.shape):
        return s.stage[base.index]
    return s.ready[base.index]


def _assign_sinks(s: Schedule) -> None:
    used = {layout(a)[0].index for node in s.nodes for a in node.args}
    counts: dict[int, int] = {}
    for sink in s.function.sinks:
        counts[sink.node.index] = counts.get(sink.node.index, 0) + 1
    for sink in s.function.sinks:
        node = sink.node
        fits = sink.target != "J" and node.op in ("contract", "sweep")
        if node.op == "contract" and split_axes(sink.shape, sink.strides, node.shape) is None:
            fits = False  # its place in the output is no matrix
        if node.op == "sweep" and sink.shape and sink.shape[-1] > 1 and sink.strides[-1] != 1:
            fits = False  # its vectors would be scattered
        if s.is_scalar[node.index]:
            s.scalar_sinks.append(sink)
        elif fits and node.index not in used and counts[node.index] == 1:
            s.direct[node.index] = sink
        elif node.op == "ew" and not is_map(node) and squeezed(sink.shape) == squeezed(node.shape):
            s.loop_sinks.setdefault((s.stage[node.index], squeezed(node.shape)), []).append(sink)
        else:
            s.late_sinks.append(sink)
    s.last = max([s.last, *(s.ready[k.node.index] for k in s.late_sinks)])


def _memory_needs(s: Schedule) -> None:
    """Which results of loops are read outside their loop, and which locals must be in memory."""
    for node in s.nodes:
        if s.is_scalar[node.index] and node.op not in ("input", "const"):
            for arg in node.args:
                base = layout(arg)[0]
                if not s.is_scalar[base.index]:
                    s.stored.add(base.index)
            continue
        in_loop = node.op == "ew" and not is_map(node)
        for arg in node.args:
            base = layout(arg)[0]
            if s.is_scalar[base.index]:
                if not in_loop or not (base.op == "full" or is_point(arg)):
                    s.spilled.add(base.index)
            elif not (in_loop and _shares_loop(s, node, arg)):
                s.stored.add(base.index)
    s.stored |= {sink.node.index for sink in s.late_sinks}
    s.stored |= {n.index for group in s.kernels.values() for n in group if n.index not in s.direct}


def _shares_loop(s: Schedule, node: Node, arg: Node) -> bool:
    base = layout(arg)[0]
    if base.op != "ew" or is_map(base) or s.is_scalar[base.index] or not aligned(arg):
        return False
    return squeezed(base.shape) == squeezed(node.shape) and s.stage[base.index] == s.stage[node.index]


def _allocate(s: Schedule) -> None:
    """First fit over lifetimes, in whole cache lines."""
    end: dict[int, int] = {}
    for node in s.nodes:
        when = s.stage.get(node.index, s.ready[node.index])
        for arg in node.args:
            base = layout(arg)[0].index
            end[base] = max(end.get(base, 0), when)
    for sink in s.late_sinks:
        end[sink.node.index] = max(end.get(sink.node.index, 0), s.ready[sink.node.index])
    for index, guest in s.guests.items():
        end[guest.host.index] = max(end.get(guest.host.index, 0), end.get(index, 0))
    reserved = 2 * s.function.columns  # unit vector and result of a column
    live: list[tuple[int, int, int]] = []  # offset, size, last stage
    homes = [n for n in s.nodes if (n.index in s.stored and n.index in s.stage) or n.index in s.spilled]
    homes = [n for n in homes if n.index not in s.guests]
    homes.sort(key=lambda n: (s.stage.get(n.index, s.ready[n.index]), n.index))
    top = reserved
    for node in homes:
        start = s.stage.get(node.index, s.ready[node.index])
        size = 8 * math.ceil(max(node.size, 1) / 8)
        live = sorted(item for item in live if item[2] >= start)
        at = reserved
        for offset, length, _ in live:
            if at + size <= offset:
                break
            at = max(at, offset + length)
        s.offsets[node.index] = at
        # A spilled local may be read until its last reader; a result at least to the end of its stage.
        live.append((at, size, max(end.get(node.index, start), start)))
        top = max(top, at + size)
    s.workspace = top
