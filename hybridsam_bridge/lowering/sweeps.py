"""Picks the kernel of a sweep and the roles of its axes; see kernels_sweep.jl."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hybridsam_bridge.lowering.strides import collapse, index_text

Place = tuple[str, int, Sequence[int]]
Call = Callable[[str, str, str, list["Axis"]], str]


@dataclass(frozen=True)
class Axis:
    """One axis: length, and strides in the result and the two factors (0 in the result: summed)."""

    length: int
    c: int
    a: int
    b: int

    def swapped(self) -> Axis:
        return Axis(self.length, self.c, self.b, self.a)


def sweep_call(result: Place, left: Place, right: Place, shape: Sequence[int], rank: int, add: bool) -> list[str]:
    """The statements of a sweep over ``shape``, whose first ``rank`` axes are the result's."""
    kept = _axes(shape[:rank], result[2], left[2][:rank], right[2][:rank])
    summed = _axes(shape[rank:], [0] * (len(shape) - rank), left[2][rank:], right[2][rank:])
    for swap in (False, True):
        a, b = (right, left) if swap else (left, right)
        r = [x.swapped() for x in kept] if swap else kept
        s = [x.swapped() for x in summed] if swap else summed
        lines = _rows(result, a, b, r, s, add) or _dots(result, a, b, r, s, add)
        if lines:
            return lines
    return _any(result, left, right, kept, summed, add)


def _axes(shape: Sequence[int], c: Sequence[int], a: Sequence[int], b: Sequence[int]) -> list[Axis]:
    wide = [i for i, n in enumerate(shape) if n > 1]
    lengths, strides = collapse([shape[i] for i in wide], [tuple(x[i] for i in wide) for x in (c, a, b)])
    return [Axis(n, *(x[i] for x in strides)) for i, n in enumerate(lengths)]


_ONE = Axis(1, 0, 0, 0)


def _pick_o(kept: list[Axis], x: Axis | None) -> Axis:
    """The axis along which the first factor repeats: its loads serve four results."""
    fit = [k for k in kept if k is not x and k.a == 0 and k.b != 0]
    return max(fit, key=lambda k: k.length, default=_ONE)


def _rows(c: Place, a: Place, b: Place, kept: list[Axis], summed: list[Axis], add: bool) -> list[str] | None:
    x = next((k for k in kept if k.c == 1 and k.a == 1 and k.b == 0 and k.length >= 4), None)
    if x is None or len(summed) > 4:
        return None
    o = _pick_o(kept, x)
    outer = [k for k in kept if k is not x and k is not o]

    def call(ci: str, ai: str, bi: str, r: list[Axis]) -> str:
        s = _fill(summed, 4)
        return (
            f"k_sweep_rows!({c[0]}, {ci}, {_three(r, 'c')}, {o.c}, {a[0]}, {ai}, {_three(r, 'a')}, {_three(s, 'a')}, "
            f"{b[0]}, {bi}, {_three(r, 'b')}, {o.b}, {_three(s, 'b')}, {_three(r, 'length')}, {o.length}, {x.length}, "
            f"{_three(s, 'length')}, {_bool(add)})"
        )

    return _looped(c, a, b, outer, call)


def _dots(c: Place, a: Place, b: Place, kept: list[Axis], summed: list[Axis], add: bool) -> list[str] | None:
    if not summed or len(summed) > 4 or summed[-1].a != 1 or summed[-1].b != 1 or summed[-1].length < 4:
        return None
    o = _pick_o(kept, None)
    if o is _ONE and any(k.b == 0 and k.a != 0 for k in kept):
        return None  # better with the factors exchanged
    # The axis along which the other factor repeats makes pairs of results.
    x = max((k for k in kept if k is not o and k.b == 0), key=lambda k: k.length, default=_ONE)
    outer = [k for k in kept if k is not o and k is not x]

    def call(ci: str, ai: str, bi: str, r: list[Axis]) -> str:
        s = _fill(summed, 4)
        return (
            f"k_sweep_dots!({c[0]}, {ci}, {_three(r, 'c')}, {o.c}, {x.c}, {a[0]}, {ai}, {_three(r, 'a')}, {x.a}, "
            f"{_three(s, 'a')}, {b[0]}, {bi}, {_three(r, 'b')}, {o.b}, {x.b}, {_three(s, 'b')}, "
            f"{_three(r, 'length')}, {o.length}, {x.length}, {_three(s, 'length')}, {_bool(add)})"
        )

    return _looped(c, a, b, outer, call)


def _any(c: Place, a: Place, b: Place, kept: list[Axis], summed: list[Axis], add: bool) -> list[str]:
    if len(summed) > 4:
        raise AssertionError("a sweep over more than four axes")

    def call(ci: str, ai: str, bi: str, r: list[Axis]) -> str:
        s = _fill(summed, 4)
        return (
            f"k_sweep_any!({c[0]}, {ci}, {_three(r, 'c')}, 0, 0, {a[0]}, {ai}, {_three(r, 'a')}, 0, 0, "
            f"{_three(s, 'a')}, {b[0]}, {bi}, {_three(r, 'b')}, 0, 0, {_three(s, 'b')}, {_three(r, 'length')}, "
            f"1, 1, {_three(s, 'length')}, {_bool(add)})"
        )

    return _looped(c, a, b, kept, call)


def _looped(c: Place, a: Place, b: Place, outer: list[Axis], call: Call) -> list[str]:
    """The call, inside loops over the axes that exceed the kernel's three."""
    extra, rest = outer[: max(len(outer) - 3, 0)], outer[max(len(outer) - 3, 0) :]
    lines = [f"for i{n} = 0:{axis.length - 1}" for n, axis in enumerate(extra)]

    def at(place: Place, name: str) -> str:
        return index_text(place[1] - 1, [getattr(axis, name) for axis in extra])

    lines.append(call(at(c, "c"), at(a, "a"), at(b, "b"), _fill(rest, 3)))
    return lines + ["end"] * len(extra)


def _fill(axes: list[Axis], count: int) -> list[Axis]:
    return [_ONE] * (count - len(axes)) + axes


def _three(axes: list[Axis], name: str) -> str:
    return "(" + ", ".join(str(getattr(axis, name)) for axis in axes) + ")"


def _bool(value: bool) -> str:
    return "true" if value else "false"
