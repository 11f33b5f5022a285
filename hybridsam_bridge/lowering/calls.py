"""Calls of the precompiled kernels in kernels_arrays.jl."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hybridsam_bridge.lowering.derive import Sink
from hybridsam_bridge.lowering.guests import frame
from hybridsam_bridge.lowering.ir import Node
from hybridsam_bridge.lowering.scalars import number
from hybridsam_bridge.lowering.slots import Slots
from hybridsam_bridge.lowering.strides import collapse, dense, index_text, split_axes
from hybridsam_bridge.lowering.sweeps import sweep_call

if TYPE_CHECKING:
    from hybridsam_bridge.lowering.emit import Emitter

_WORTH_DEFERRING = 64  # elements of a matrix


class Calls:
    """Writes one call (or a few) for each kernel node."""

    def __init__(self, emitter: Emitter):
        self.e = emitter

    def kernel(self, node: Node) -> None:
        """The statements of one node."""
        getattr(self, f"_{node.op}")(node)

    def _line(self, text: str) -> None:
        self.e.lines.append(text)

    def _source(self, arg: Node) -> tuple[str, int, tuple[int, ...]]:
        return self.e.source(arg)

    # ---- products ----
    def _contract(self, node: Node) -> None:
        if self._deferred(node):
            return
        batch, m, n = node.shape
        k = node.args[0].shape[2]
        (a, a0, sa), (b, b0, sb) = self._source(node.args[0]), self._source(node.args[1])
        sink = self.e.s.direct.get(node.index)
        started = len(node.args) == 3
        add = "true" if sink or started else "false"
        if sink:
            array, start = self.e.target(sink.target)
            c, c0 = array, start + sink.offset
            strides = split_axes(sink.shape, sink.strides, node.shape)
            if strides is None:
                raise AssertionError("an output that is not a matrix")
            sc = strides
        else:
            c, c0 = self.e.home(node)
            sc = dense(node.shape)
        if started:
            start_at = self._source(node.args[2])
            if batch == 1 and 1 in (m, n) and not sink:
                axis = 1 if n == 1 else 2
                self._biased(c, c0, start_at, axis, node)
                return
            self._strided("k_add!" if sink else "k_copy!", (c, c0, sc), start_at, node.shape)
        looped = batch > 1
        if looped:
            self._line(f"for b = 0:{batch - 1}")

        def at(offset: int, stride: int) -> str:
            return f"{offset} + {stride} * b" if looped and stride else str(offset)

        ca, aa, ba = at(c0, sc[0]), at(a0, sa[0]), at(b0, sb[0])
        if n == 1:
            self._line(f"k_mv!({c}, {ca}, {sc[1]}, {a}, {aa}, {sa[1]}, {sa[2]}, {b}, {ba}, {sb[1]}, {m}, {k}, {add})")
        elif m == 1:
            self._line(f"k_mv!({c}, {ca}, {sc[2]}, {b}, {ba}, {sb[2]}, {sb[1]}, {a}, {aa}, {sa[2]}, {n}, {k}, {add})")
        else:
            self._line(
                f"k_mm!({c}, {ca}, {sc[1]}, {sc[2]}, {a}, {aa}, {sa[1]}, {sa[2]}, "
                f"{b}, {ba}, {sb[1]}, {sb[2]}, {m}, {n}, {k}, {add})"
            )
        if looped:
            self._line("end")

    def _deferred(self, node: Node) -> bool:
        """A rank-one update of a weight's gradient is put off, to be done with others as one product."""
        sink = self.e.s.direct.get(node.index)
        batch, m, n = node.shape
        if sink is None or sink.target != "gp" or batch != 1 or node.args[0].shape[2] != 1 or m * n < _WORTH_DEFERRING:
            return False
        strides = split_axes(sink.shape, sink.strides, node.shape)
        if strides is None or 1 not in strides[1:] or len(node.args) == 3:
            return False
        (a, a0, sa), (b, b0, sb) = (self._source(x) for x in node.args)
        column, row = (a, a0, sa[1], m, strides[1]), (b, b0, sb[2], n, strides[2])
        if row[4] != 1:
            column, row = row, column
        c0, (rows, columns), apart = sink.offset, (column[3], row[3]), column[4]
        place = self.e.slots.place(c0, apart, rows, columns)
        self._line(
            f"k_defer!(gp, {c0}, {apart}, {column[0]}, {column[1]}, {column[2]}, {row[0]}, {row[1]}, {row[2]}, "
            f"{rows}, {columns}, w, {place}, {Slots.ROWS})"
        )
        return True

    def _biased(self, c: str, c0: int, start: tuple[str, int, tuple[int, ...]], axis: int, node: Node) -> None:
        """Matrix times vector plus vector, the layer of a network, in one call."""
        matrix, vector = node.args[:2] if axis == 1 else node.args[1::-1]
        (a, a0, sa), (b, b0, sb) = self._source(matrix), self._source(vector)
        row, inner = (sa[1], sa[2]) if axis == 1 else (sa[2], sa[1])
        count, k = node.size, node.args[0].shape[2]
        self._line(
            f"k_mvb!({c}, {c0}, {a}, {a0}, {row}, {inner}, {b}, {b0}, {sb[axis]}, "
            f"{start[0]}, {start[1]}, {start[2][axis]}, {count}, {k})"
        )

    def _sweep(self, node: Node) -> None:
        sink = self.e.s.direct.get(node.index)
        if sink:
            array, start = self.e.target(sink.target)
            strides = split_axes(sink.shape, sink.strides, node.shape)
            if strides is None:
                raise AssertionError("an output of another shape than the sweep")
            result = (array, start + sink.offset, strides)
        else:
            result = self._source(node)
        left, right = (self._source(x) for x in node.args)
        self.e.lines += sweep_call(result, left, right, node.args[0].shape, node.attrs[0], sink is not None)

    # ---- along an axis ----
    def _reduce(self, node: Node) -> None:
        self._along("k_" + node.attrs[0] + "!", node)

    def _argreduce(self, node: Node) -> None:
        self._along("k_" + node.attrs[0] + "!", node)

    def _scan(self, node: Node) -> None:
        self._along("k_cum" + node.attrs[0] + "!", node)

    def _along(self, name: str, node: Node) -> None:
        x, x0, sx = self._source(node.args[0])
        y, y0 = self.e.home(node)
        outer, inner = node.args[0].shape
        self._line(f"{name}({y}, {y0}, {x}, {x0}, {sx[0]}, {sx[1]}, {outer}, {inner})")

    def _ew(self, node: Node) -> None:
        """A copy; or a map, on all of two dense arrays or over axes, where it may add a bias to its argument."""
        if node.attrs[0] == "copy":
            self._strided("k_copy!", self._source(node), self._source(node.args[0]), node.shape)
            return
        name, biased = node.attrs[0].removesuffix("_sum"), len(node.args) == 2
        places = [self._source(x) for x in (node, node.args[0], node.args[-1])]
        lengths, strides = _axes(node.shape, places)
        (y, y0, _), (x, x0, _), (b, _, _) = places
        if len(lengths) <= 1 and not biased and strides[0] == strides[1] == [1] * len(lengths):
            self._line(f"k_{name}!({y}, {y0}, {x}, {x0}, {node.size})")
            return
        extra = self._outer_loops(lengths, 4)
        four = [(_four(s[extra:]), index_text(p[1] - 1, s[:extra])) for p, s in zip(places, strides, strict=True)]
        (t, y_at), (s, x_at), (r, b_at) = four
        n = _four(lengths[extra:], 1)
        self._line(
            f"k_{name}_at!({y}, {y_at}, {t}, {x}, {x_at}, {s}, {b}, {b_at}, {r}, {n}, {'true' if biased else 'false'})"
        )
        self.e.lines += ["end"] * extra

    def _outer_loops(self, lengths: Sequence[int], axes: int) -> int:
        """Loops over what exceeds the last ``axes`` axes; their number."""
        extra = max(len(lengths) - axes, 0)
        for axis in range(extra):
            self._line(f"for i{axis} = 0:{lengths[axis] - 1}")
        return extra

    # ---- rearranging ----
    def _place(self, node: Node) -> None:
        y, y0 = self.e.home(node)
        fill, where = node.attrs
        if any(guest.host is node for guest in self.e.s.guests.values()):  # its piece is written there by itself
            box = frame(node)
            value = number(fill, "f")
            if box is None:
                self._line(f"k_fill!({y}, {y0}, {node.size}, {value})")
            else:
                self._line(f"k_frame!({y}, {y0}, {value}, {_four(box[0])}, {_four(box[1])}, {_four(box[2])})")
            return
        if sum(a.size for a in node.args) < node.size:
            self._line(f"k_fill!({y}, {y0}, {node.size}, {number(fill, 'f')})")
        for piece, (offset, strides) in zip(node.args, where, strict=True):
            x, x0, sx = self._source(piece)
            self._strided("k_copy!", (y, y0 + offset, strides), (x, x0, sx), piece.shape)

    def _strided(
        self,
        name: str,
        to: tuple[str, int, Sequence[int]],
        source: tuple[str, int, Sequence[int]],
        shape: Sequence[int],
    ) -> None:
        """A copy or sum over at most four axes after merging what is contiguous, else a loop of such."""
        lengths, (st, ss) = _axes(shape, (to, source))
        extra = self._outer_loops(lengths, 4)
        pad = [1] * max(4 - len(lengths), 0)
        four = pad + lengths[extra:]
        t4 = [0] * len(pad) + st[extra:]
        s4 = [0] * len(pad) + ss[extra:]
        at = index_text(to[1] - 1, st[:extra]), index_text(source[1] - 1, ss[:extra])
        self._line(
            f"{name}({to[0]}, {at[0]}, {', '.join(map(str, t4))}, {source[0]}, {at[1]}, "
            f"{', '.join(map(str, s4))}, {', '.join(map(str, four))})"
        )
        self.e.lines += ["end"] * extra

    def _gather(self, node: Node) -> None:
        x, x0, sx = self._source(node.args[0])
        i, i0, si = self._source(node.args[1])
        y, y0 = self.e.home(node)
        rows, count = node.shape
        step = si[0] if len(si) == 2 else 0
        self._line(
            f"k_gather!({y}, {y0}, {x}, {x0}, {sx[0]}, {sx[1]}, {i}, {i0}, {step}, {si[-1]}, "
            f"{rows}, {count}, {node.args[0].shape[1]})"
        )

    def _scatter(self, node: Node) -> None:
        x, x0, sx = self._source(node.args[0])
        i, i0, si = self._source(node.args[1])
        y, y0 = self.e.home(node)
        rows, count = node.args[0].shape
        step = si[0] if len(si) == 2 else 0
        self._line(
            f"k_scatter!({y}, {y0}, {x}, {x0}, {sx[0]}, {sx[1]}, {i}, {i0}, {step}, {si[-1]}, "
            f"{rows}, {count}, {node.attrs[0]})"
        )

    # ---- outputs ----
    def add_to_output(self, sink: Sink) -> None:
        """Add a result that lies in memory to an output."""
        array, start = self.e.target(sink.target)
        x, x0 = self.e.home(sink.node)
        name = "k_addmatrix!" if sink.target == "J" and array == "J" else "k_add!"
        self._strided(name, (array, start + sink.offset, sink.strides), (x, x0, dense(sink.shape)), sink.shape)


def _axes(shape: Sequence[int], places: Sequence[tuple[str, int, Sequence[int]]]) -> tuple[list[int], list[list[int]]]:
    """Lengths of the axes that remain after merging what is contiguous in all places, and the strides of each."""
    wide = [i for i, n in enumerate(shape) if n != 1]
    lengths, strides = collapse([shape[i] for i in wide], [tuple(p[2][i] for i in wide) for p in places])
    return lengths, [list(s) for s in strides]


def _four(values: Sequence[int], default: int = 0) -> str:
    """Four numbers as Julia text, axes of length one before those given."""
    return "(" + ", ".join(map(str, [default] * (4 - len(values)) + list(values))) + ")"
