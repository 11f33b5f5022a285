"""Entries of elementwise operators: arithmetic, powers, comparisons, choices."""

from __future__ import annotations

import math
from typing import Any

from hybridsam_bridge.lowering.ir import Graph, Node
from hybridsam_bridge.lowering.registry import Refused, entry, kind_of

_UNARY = (
    "abs exp expm1 log log1p log2 log10 sqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh "
    "sigmoid erf erfc neg isnan isinf"
)
_ROUNDING = ("floor", "ceil", "trunc", "round")
_BINARY = {
    "maximum": "maximum",
    "minimum": "minimum",
    "atan2": "atan2",
    "hypot": "hypot",
    "fmod": "fmod",
    "remainder": "remainder",
    "lt": "lt",
    "le": "le",
    "gt": "gt",
    "ge": "ge",
    "eq": "eq",
    "ne": "ne",
    "logical_and": "and",
    "logical_or": "or",
    "logical_xor": "xor",
}


def _register_tables() -> None:
    for name in _UNARY.split():
        entry(name)(lambda g, out, x, name=name: g.ew(name, _number(g, x), dtype=kind_of(out.dtype)))
    for name in _ROUNDING:
        entry(name)(lambda g, out, x, name=name, decimals=0: _round(g, name, x, decimals))
    for name, to in _BINARY.items():
        entry(name)(lambda g, out, a, b, to=to: g.ew(to, a, b, dtype=kind_of(out.dtype)))


def _number(g: Graph, x: Node) -> Node:
    return g.ew("cast", x) if x.dtype == "b" else x


def _round(g: Graph, name: str, x: Node, decimals: int) -> Node:
    if decimals:
        raise Refused("rounding to decimals is not covered.")
    return g.ew(name, x)


_register_tables()


@entry("add")
def _add(g: Graph, out: Any, a: Any, b: Any, alpha: float = 1) -> Node:
    return g.ew("add", a, b if alpha == 1 else g.ew("mul", b, alpha), dtype=kind_of(out.dtype))


@entry("sub")
def _sub(g: Graph, out: Any, a: Any, b: Any, alpha: float = 1) -> Node:
    return g.ew("sub", a, b if alpha == 1 else g.ew("mul", b, alpha), dtype=kind_of(out.dtype))


@entry("rsub")
def _rsub(g: Graph, out: Any, a: Any, b: Any, alpha: float = 1) -> Node:
    return g.ew("sub", b, a if alpha == 1 else g.ew("mul", a, alpha), dtype=kind_of(out.dtype))


@entry("mul")
def _mul(g: Graph, out: Any, a: Any, b: Any) -> Node:
    if kind_of(out.dtype) == "b":
        return g.ew("and", a, b)
    return g.ew("mul", a, b, dtype=kind_of(out.dtype))


@entry("div")
def _div(g: Graph, out: Any, a: Any, b: Any, rounding_mode: str | None = None) -> Node:
    quotient = g.ew("div", a, b, dtype="f")
    return g.ew(rounding_mode, quotient) if rounding_mode else quotient


@entry("floor_divide")
def _floor_divide(g: Graph, out: Any, a: Any, b: Any) -> Node:
    return g.ew("floor", g.ew("div", a, b, dtype="f"), dtype=kind_of(out.dtype))


@entry("pow", "float_power")
def _pow(g: Graph, out: Any, a: Any, b: Any) -> Node:
    return g.ew("pow", a, b, dtype=kind_of(out.dtype))


@entry("square")
def _square(g: Graph, out: Any, x: Node) -> Node:
    return g.ew("mul", x, x)


@entry("reciprocal")
def _reciprocal(g: Graph, out: Any, x: Node) -> Node:
    return g.ew("div", 1.0, x)


@entry("rsqrt")
def _rsqrt(g: Graph, out: Any, x: Node) -> Node:
    return g.ew("div", 1.0, g.ew("sqrt", x))


@entry("exp2")
def _exp2(g: Graph, out: Any, x: Node) -> Node:
    return g.ew("pow", 2.0, x)


@entry("sign", "sgn")
def _sign(g: Graph, out: Any, x: Node) -> Node:
    return g.ew("sign", x)


@entry("fmax", "fmin")
def _fmax(g: Graph, out: Any, a: Node, b: Node) -> Node:
    raise Refused("fmax and fmin are not covered; torch.maximum and torch.minimum are.")


@entry("logical_not", "bitwise_not")
def _not(g: Graph, out: Any, x: Node) -> Node:
    if kind_of(out.dtype) != "b":
        raise Refused("bitwise operators are covered for booleans only.")
    return g.ew("not", x)


@entry("bitwise_and", "__and__")
def _bit_and(g: Graph, out: Any, a: Any, b: Any) -> Node:
    return _bitwise(g, out, "and", a, b)


@entry("bitwise_or", "__or__")
def _bit_or(g: Graph, out: Any, a: Any, b: Any) -> Node:
    return _bitwise(g, out, "or", a, b)


@entry("bitwise_xor", "__xor__")
def _bit_xor(g: Graph, out: Any, a: Any, b: Any) -> Node:
    return _bitwise(g, out, "xor", a, b)


def _bitwise(g: Graph, out: Any, name: str, a: Any, b: Any) -> Node:
    if kind_of(out.dtype) != "b":
        raise Refused("bitwise operators are covered for booleans only.")
    return g.ew(name, a, b)


@entry("where")
def _where(g: Graph, out: Any, condition: Node, a: Any = None, b: Any = None) -> Node:
    if a is None:
        raise Refused("torch.where with one argument gives a result whose size depends on values.")
    a, b = (x if isinstance(x, Node) else g.full(x) for x in (a, b))
    if a.dtype != b.dtype:
        a, b = _number(g, a), _number(g, b)
    condition = condition if condition.dtype == "b" else g.ew("ne", condition, 0.0)
    return g.ew("where", condition, a, b, dtype=kind_of(out.dtype))


@entry("masked_fill")
def _masked_fill(g: Graph, out: Any, x: Node, mask: Node, value: Any) -> Node:
    return _where(g, out, mask, value, x)


@entry("clamp")
def _clamp(g: Graph, out: Any, x: Node, min: Any = None, max: Any = None) -> Node:
    # torch: min(max(x, lower), upper), NaN stays NaN
    if min is not None:
        x = g.ew("maximum", x, min, dtype=kind_of(out.dtype))
    return x if max is None else g.ew("minimum", x, max, dtype=kind_of(out.dtype))


@entry("clamp_min")
def _clamp_min(g: Graph, out: Any, x: Node, min: Any) -> Node:
    return _clamp(g, out, x, min=min)


@entry("clamp_max")
def _clamp_max(g: Graph, out: Any, x: Node, max: Any) -> Node:
    return _clamp(g, out, x, max=max)


@entry("lerp")
def _lerp(g: Graph, out: Any, a: Node, b: Node, weight: Any) -> Node:
    return g.ew("add", a, g.ew("mul", weight, g.ew("sub", b, a)))


@entry("addcmul")
def _addcmul(g: Graph, out: Any, x: Node, a: Node, b: Node, value: float = 1) -> Node:
    return g.ew("add", x, g.ew("mul", g.ew("mul", a, b), float(value)))


@entry("addcdiv")
def _addcdiv(g: Graph, out: Any, x: Node, a: Node, b: Node, value: float = 1) -> Node:
    return g.ew("add", x, g.ew("mul", g.ew("div", a, b), float(value)))


@entry("copysign")
def _copysign(g: Graph, out: Any, a: Node, b: Any) -> Node:
    return g.ew("copysign", a, b)


@entry("heaviside")
def _heaviside(g: Graph, out: Any, x: Node, values: Node) -> Node:
    step = g.ew("where", g.ew("lt", x, 0.0), 0.0, 1.0)
    return g.ew("where", g.ew("eq", x, 0.0), values, step)


@entry("xlogy")
def _xlogy(g: Graph, out: Any, x: Any, y: Any) -> Node:
    x = x if isinstance(x, Node) else g.full(x)
    product = g.ew("mul", x, g.ew("log", y))
    zero = g.ew("and", g.ew("eq", x, 0.0), g.ew("not", g.ew("isnan", y)))
    return g.ew("where", zero, 0.0, product)


@entry("nan_to_num")
def _nan_to_num(g: Graph, out: Any, x: Node, nan: Any = None, posinf: Any = None, neginf: Any = None) -> Node:
    large = 1.7976931348623157e308
    x = g.ew("where", g.ew("isnan", x), float(nan or 0.0), x)
    x = g.ew("where", g.ew("eq", x, math.inf), large if posinf is None else float(posinf), x)
    return g.ew("where", g.ew("eq", x, -math.inf), -large if neginf is None else float(neginf), x)


@entry("_to", "_to_copy")
def _to(g: Graph, out: Any, x: Node, **options: Any) -> Node:
    """Other float types keep their full precision: the solver works in float64 throughout."""
    to = kind_of(out.dtype)
    if to == x.dtype:
        return x
    if to == "b":
        return g.ew("ne", x, 0.0)
    if x.dtype == "b":
        return g.ew("cast", x, dtype=to)
    return g.ew("trunc", x, dtype="i") if to == "i" else _retyped(g, x)


def _retyped(g: Graph, x: Node) -> Node:
    return g.raw_ew("copy", [x], x.shape, "f")
