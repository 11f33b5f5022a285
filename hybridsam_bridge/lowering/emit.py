"""Julia text of one scheduled function: locals, loops, kernel calls, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence

from hybridsam_bridge.lowering import algebra
from hybridsam_bridge.lowering.calls import Calls
from hybridsam_bridge.lowering.derive import Sink
from hybridsam_bridge.lowering.ir import Node, aligned, layout
from hybridsam_bridge.lowering.scalars import Scalar, Scalars, number
from hybridsam_bridge.lowering.schedule import Schedule, is_point
from hybridsam_bridge.lowering.slots import Slots
from hybridsam_bridge.lowering.strides import collapse, index_text, positions, split_axes

_INLINE = 100  # longest text of an expression that is written where it is used


class Emitter:
    """Writes the body of one function."""

    def __init__(self, schedule: Schedule, constant_offsets: Sequence[int], slots: Slots):
        self.s = schedule
        self.slots = slots
        self.constant_offsets = constant_offsets
        self.scalars = Scalars(schedule.graph, schedule.is_scalar, schedule.ready)
        self.lines: list[str] = []
        self.names: dict[int, str] = {}  # scalar index -> local or text
        self.uses: dict[int, list[int]] = {}  # scalar index -> stages of its uses, -1 for a loop
        self.calls = Calls(self)

    # ---- homes ----
    def home(self, base: Node) -> tuple[str, int]:
        """Array and zero-based offset at which a node lies in memory."""
        if base.op == "input":
            name, offset = base.attrs
            if name in ("t", "tau"):
                return "w", self.s.offsets[base.index]
            return ("w", 0) if self.s.function.columns and name == "d" else (name, offset)
        if base.op == "const":
            return "k", self.constant_offsets[base.attrs[0]]
        return "w", self.s.offsets[base.index]

    def source(self, arg: Node) -> tuple[str, int, tuple[int, ...]]:
        """Array, zero-based start and strides of a node or view in memory."""
        base, offset, strides = layout(arg)
        guest = self.s.guests.get(base.index)
        if guest is None:
            array, start = self.home(base)
            return array, start + offset, strides
        array, start = self.home(guest.host)
        inner = guest.view(base, arg)
        assert inner is not None, "guests are nodes whose readers all see them in their host"
        return array, start + inner[0], inner[1]

    def target(self, name: str) -> tuple[str, int]:
        """Array and offset of an output."""
        return ("w", self.s.function.columns) if self.s.function.columns else (name, 0)

    # ---- the whole ----
    def body(self) -> list[str]:
        s = self.s
        stores = self._scalar_stores()
        by_stage: dict[int, list[Scalar]] = {}
        for scalar in self.scalars.nodes:
            if scalar.index in self.uses:
                by_stage.setdefault(scalar.stage, []).append(scalar)
        for stage in range(s.last + 1):
            for scalar in by_stage.get(stage, []):
                self._local(scalar)
            for when, text, scalar in stores:
                if when == stage:
                    self.lines.append(text.format(self.names[scalar.index]))
            self._fills(stage)
            for sink in s.late_sinks:
                if s.ready[sink.node.index] == stage:
                    self.calls.add_to_output(sink)
            for node in s.kernels.get(stage, []):
                self.calls.kernel(node)
            for key, nodes in s.loops.items():
                if key[0] == stage:
                    self._loop(key, nodes)
        return self.lines

    # ---- locals ----
    def _scalar_stores(self) -> list[tuple[int, str, Scalar]]:
        """Stores of locals into outputs and memory, and the count of every expression's uses."""
        s = self.s
        stores: list[tuple[int, str, Scalar]] = []
        for sink in s.scalar_sinks:
            array, start = self.target(sink.target)
            where = positions(sink.shape, sink.offset + start, sink.strides).tolist()
            for i, at in enumerate(where):
                value = self.scalars.element(sink.node, i)
                if value.literal != 0.0:
                    stores.append((value.stage, f"{array}[{at + 1}] += {{}}", value))
        for node in s.nodes:
            if node.index in s.spilled and node.op not in ("full", "eye"):
                at = s.offsets[node.index]
                for i in range(node.size):
                    value = self.scalars.element(node, i)
                    form = "Float64({})" if value.dtype == "b" else "{}"
                    stores.append((s.ready[node.index], f"w[{at + i + 1}] = {form}", value))
        for when, _, value in stores:
            self._use(value, when)
        for _key, nodes in s.loops.items():
            for node in nodes:
                for arg in node.args:
                    point = self._point(arg)
                    if point is not None:
                        self._use(point, -1)
        return stores

    def _point(self, arg: Node) -> Scalar | None:
        """The expression behind an argument of a loop that is one number."""
        base, offset, _ = layout(arg)
        if self.s.is_scalar[base.index] and is_point(arg):
            return self.scalars.element(base, offset)
        return None

    def _use(self, scalar: Scalar, when: int) -> None:
        stack = [(scalar, when)]
        while stack:
            item, stage = stack.pop()
            first = item.index not in self.uses
            self.uses.setdefault(item.index, []).append(stage)
            if first:
                stack.extend((a, item.stage) for a in item.args)

    def _local(self, scalar: Scalar) -> None:
        text = self._expression(scalar)
        if scalar.op == "lit" or text in ("t", "tau"):
            self.names[scalar.index] = text
            return
        uses = self.uses[scalar.index]
        lasting = scalar.op == "load" and scalar.attrs[0].op in ("input", "const")
        once = len(uses) == 1 and uses[0] != -1 and (uses[0] == scalar.stage or lasting)
        if once and len(text) <= _INLINE:
            self.names[scalar.index] = text
            return
        self.names[scalar.index] = f"s{scalar.index}"
        self.lines.append(f"s{scalar.index} = {text}")

    def _expression(self, scalar: Scalar) -> str:
        if scalar.op == "lit":
            return number(scalar.attrs[0], scalar.dtype)
        if scalar.op == "load":
            node, position = scalar.attrs
            if node.op == "input" and node.attrs[0] in ("t", "tau"):
                return str(node.attrs[0])
            array, offset = self.home(node)
            text = f"{array}[{offset + position + 1}]"
            return f"({text} != 0.0)" if scalar.dtype == "b" else text
        return algebra.FUNCTIONS[scalar.attrs[0]].julia.format(*(self.names[a.index] for a in scalar.args))

    def _fills(self, stage: int) -> None:
        """Literals that a kernel reads from memory."""
        for node in self.s.nodes:
            if stage == 0 and node.index in self.s.spilled and node.op in ("full", "eye"):
                at = self.s.offsets[node.index]
                if node.op == "eye":
                    self.lines.append(f"k_eye!(w, {at}, {node.shape[0]})")
                else:
                    self.lines.append(f"k_fill!(w, {at}, {node.size}, {number(node.attrs[0], 'f')})")

    # ---- loops ----
    def _loop(self, key: tuple[int, tuple[int, ...]], nodes: Sequence[Node]) -> None:
        _Loop(self, key[1], nodes, self.s.loop_sinks.get(key, [])).write()


class _Loop:
    """One fused loop nest over ``shape``."""

    def __init__(self, emitter: Emitter, shape: tuple[int, ...], nodes: Sequence[Node], sinks: Sequence[Sink]):
        self.e = emitter
        self.shape = shape
        self.nodes = nodes
        self.sinks = sinks
        self.inside = {n.index for n in nodes}
        self.reads: dict[tuple[str, int, tuple[int, ...]], str] = {}
        self.writes: list[tuple[str, str, int, tuple[int, ...], str]] = []  # array, operator, offset, strides, value
        self.before: list[str] = []
        self.inner: list[str] = []

    def write(self) -> None:
        for node in self.nodes:
            args = [self._operand(node, a) for a in node.args]
            self.inner.append(f"x{node.index} = {algebra.FUNCTIONS[node.attrs[0]].julia.format(*args)}")
            if node.index in self.e.s.stored:
                form = f"Float64(x{node.index})" if node.dtype == "b" else f"x{node.index}"
                array, start, steps = self.e.source(node)
                self.writes.append((array, "=", start, _wide(steps, node.shape), form))
        for sink in self.sinks:
            array, start = self.e.target(sink.target)
            strides = split_axes(sink.shape, sink.strides, self.shape)
            assert strides is not None
            self.writes.append((array, "+=", sink.offset + start, strides, f"x{sink.node.index}"))
        self._text()

    def _operand(self, node: Node, arg: Node) -> str:
        base = layout(arg)[0]
        if base.literal is not None:
            return number(base.literal, arg.dtype)
        if base.index in self.inside and aligned(arg):
            return f"x{base.index}"
        point = self.e._point(arg)
        if point is not None:
            return self.e.names[point.index]
        array, start, strides = self.e.source(arg)
        key = (array, start, _wide(strides, arg.shape))
        if key not in self.reads:
            self.reads[key] = f"r{len(self.reads)}_{self.nodes[0].index}"
        name = self.reads[key]
        return f"({name} != 0.0)" if arg.dtype == "b" else name

    def _text(self) -> None:
        patterns = [k[2] for k in self.reads] + [w[3] for w in self.writes]
        lengths, merged = collapse(self.shape, patterns)
        loads: list[str] = []
        for (array, offset, _), name, strides in zip(self.reads, self.reads.values(), merged, strict=False):
            line = f"{name} = {array}[{index_text(offset, strides)}]"
            (self.before if not any(strides) else loads).append(line)
        stores = [
            f"{array}[{index_text(offset, strides)}] {operator} {value}"
            for (array, operator, offset, _, value), strides in zip(self.writes, merged[len(self.reads) :], strict=True)
        ]
        lines = self.e.lines
        lines += self.before
        if not lengths:
            lines += [*loads, *self.inner, *stores]
            return
        for depth, length in enumerate(lengths):
            mark = "@inbounds @simd ivdep " if depth == len(lengths) - 1 else ""
            lines.append(f"{mark}for i{depth} = 0:{length - 1}")
        lines += [*loads, *self.inner, *stores]
        lines += ["end"] * len(lengths)


def _wide(strides: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(s for s, n in zip(strides, shape, strict=True) if n != 1)
