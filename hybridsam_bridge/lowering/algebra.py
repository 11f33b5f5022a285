"""Elementwise functions: their Julia text, their value on literals, and the rules that simplify them.

The rules look at structure and literals alone, never at the values of parameters or constants, so that
new weights give the same program. A literal zero annihilates a product: it stands for a derivative that
is zero by structure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np


@dataclass(frozen=True)
class Function:
    """``julia`` with {0}, {1}, {2}; ``value`` in NumPy; ``result`` f, b, i or same; ``takes`` number, bool or any."""

    julia: str
    value: Callable[..., Any]
    result: str = "same"
    takes: str = "number"
    infix: bool = False


def _erf(x: Any) -> Any:
    from scipy.special import erf

    return erf(x)


def _erfc(x: Any) -> Any:
    from scipy.special import erfc

    return erfc(x)


def _sigmoid(x: Any) -> Any:
    from scipy.special import expit

    return expit(x)


def _remainder(a: Any, b: Any) -> Any:
    return np.mod(a, b)


def _unary() -> dict[str, Function]:
    """Functions f(x), by name: Julia function and NumPy function."""
    table: dict[str, tuple[str, Callable[..., Any]]] = {
        "abs": ("abs", np.abs),
        "sign": ("fsign", np.sign),
        "exp": ("fexp", np.exp),
        "expm1": ("expm1", np.expm1),
        "log": ("flog", np.log),
        "log1p": ("flog1p", np.log1p),
        "log2": ("flog2", np.log2),
        "log10": ("flog10", np.log10),
        "sqrt": ("fsqrt", np.sqrt),
        "sin": ("fsin", np.sin),
        "cos": ("fcos", np.cos),
        "tan": ("ftan", np.tan),
        "asin": ("fasin", np.arcsin),
        "acos": ("facos", np.arccos),
        "atan": ("atan", np.arctan),
        "sinh": ("sinh", np.sinh),
        "cosh": ("cosh", np.cosh),
        "tanh": ("ftanh", np.tanh),
        "asinh": ("asinh", np.arcsinh),
        "acosh": ("facosh", np.arccosh),
        "atanh": ("fatanh", np.arctanh),
        "sigmoid": ("fsigmoid", _sigmoid),
        "erf": ("ferf", _erf),
        "erfc": ("ferfc", _erfc),
        "floor": ("floor", np.floor),
        "ceil": ("ceil", np.ceil),
        "trunc": ("trunc", np.trunc),
        "round": ("round", np.round),
    }
    return {name: Function(f"{julia}({{0}})", value) for name, (julia, value) in table.items()}


def _infix() -> dict[str, Function]:
    arithmetic = {"add": ("+", np.add), "sub": ("-", np.subtract), "mul": ("*", np.multiply), "div": ("/", np.divide)}
    compare = {
        "lt": ("<", np.less),
        "le": ("<=", np.less_equal),
        "gt": (">", np.greater),
        "ge": (">=", np.greater_equal),
        "eq": ("==", np.equal),
        "ne": ("!=", np.not_equal),
    }
    logic = {"and": ("&", np.logical_and), "or": ("|", np.logical_or), "xor": ("⊻", np.logical_xor)}
    return {
        **{k: Function(f"({{0}} {s} {{1}})", v, infix=True) for k, (s, v) in arithmetic.items()},
        **{k: Function(f"({{0}} {s} {{1}})", v, "b", infix=True) for k, (s, v) in compare.items()},
        **{k: Function(f"({{0}} {s} {{1}})", v, "b", "bool", infix=True) for k, (s, v) in logic.items()},
    }


# Functions worth a precompiled vector kernel of their own: inlined into a loop they cost 10 ms to compile.
MAPS = ("exp", "tanh", "sigmoid")


def _of_sums() -> dict[str, Function]:
    """f(a + b), by name + "_sum": what the kernels of MAPS do with a bias."""

    def of_sum(value: Callable[..., Any]) -> Callable[..., Any]:
        return lambda a, b: value(a + b)

    table = _unary()
    return {f"{f}_sum": Function(table[f].julia.format("{0} + {1}"), of_sum(table[f].value)) for f in MAPS}


FUNCTIONS: dict[str, Function] = {
    **_unary(),
    **_of_sums(),
    **_infix(),
    "neg": Function("(-{0})", np.negative, infix=True),
    "not": Function("(!{0})", np.logical_not, "b", "bool", infix=True),
    "pow": Function("fpow({0}, {1})", np.power),
    "atan2": Function("atan({0}, {1})", np.arctan2),
    "hypot": Function("hypot({0}, {1})", np.hypot),
    "fmod": Function("frem({0}, {1})", np.fmod),
    "remainder": Function("fmod({0}, {1})", _remainder),
    "maximum": Function("fmax({0}, {1})", np.maximum),
    "minimum": Function("fmin({0}, {1})", np.minimum),
    "copysign": Function("copysign({0}, {1})", np.copysign),
    "where": Function("ifelse({0}, {1}, {2})", np.where, "same", "any"),
    "isnan": Function("isnan({0})", np.isnan, "b"),
    "isinf": Function("isinf({0})", np.isinf, "b"),
    "cast": Function("Float64({0})", lambda x: np.asarray(x, dtype=np.float64), "f", "any"),
    "copy": Function("{0}", lambda x: x, "same", "any"),
}

COMMUTATIVE = frozenset({"add", "mul", "maximum", "minimum", "and", "or", "xor", "eq", "ne"})


class Value(Protocol):
    """A node of the tensor graph or of the scalar graph."""

    op: str
    args: Any
    attrs: Any
    index: int

    @property
    def literal(self) -> float | None: ...


V = TypeVar("V", bound=Any)


class Builder(Protocol):
    """What the rules need of a graph."""

    def full(self, value: float, shape: Sequence[int], dtype: str) -> Any: ...

    def raw_ew(self, name: str, args: Sequence[Any], shape: Sequence[int], dtype: str) -> Any: ...


def simplify(g: Builder, name: str, args: list[Any], shape: Sequence[int], dtype: str) -> Any:
    """The elementwise node, or a simpler one with the same value."""
    values = [a.literal for a in args]
    if all(v is not None for v in values):
        with np.errstate(all="ignore"):
            return g.full(float(FUNCTIONS[name].value(*values)), shape, dtype)
    rule = _RULES.get(name)
    found = rule(g, args, values, shape, dtype) if rule else None
    if found is not None:
        return found
    if name in COMMUTATIVE and args[0].index > args[1].index:
        args = args[::-1]
    return g.raw_ew(name, args, shape, dtype)


def _negated(x: Any) -> Any | None:
    return x.args[0] if x.op == "ew" and x.attrs[0] == "neg" else None


def _add(g: Any, args: list[Any], v: list[float | None], shape: Any, dtype: str) -> Any | None:
    if v[0] == 0.0:
        return args[1]
    if v[1] == 0.0:
        return args[0]
    a, b = _negated(args[0]), _negated(args[1])
    if b is not None:
        return simplify(g, "sub", [args[0], b], shape, dtype)
    if a is not None:
        return simplify(g, "sub", [args[1], a], shape, dtype)
    return None


def _sub(g: Any, args: list[Any], v: list[float | None], shape: Any, dtype: str) -> Any | None:
    if v[1] == 0.0:
        return args[0]
    if v[0] == 0.0:
        return simplify(g, "neg", [args[1]], shape, dtype)
    b = _negated(args[1])
    return simplify(g, "add", [args[0], b], shape, dtype) if b is not None else None


def _mul(g: Any, args: list[Any], v: list[float | None], shape: Any, dtype: str) -> Any | None:
    for this, other in ((0, 1), (1, 0)):
        if v[this] == 0.0:
            return g.full(0.0, shape, dtype)
        if v[this] == 1.0:
            return args[other]
        if v[this] == -1.0:
            return simplify(g, "neg", [args[other]], shape, dtype)
        inner = _negated(args[this])
        if inner is not None:  # signs outwards, where they cancel or turn a sum into a difference
            return simplify(g, "neg", [simplify(g, "mul", [inner, args[other]], shape, dtype)], shape, dtype)
    return None


def _div(g: Any, args: list[Any], v: list[float | None], shape: Any, dtype: str) -> Any | None:
    if v[0] == 0.0:
        return g.full(0.0, shape, dtype)
    if v[1] == 1.0:
        return args[0]
    if v[1] == -1.0:
        return simplify(g, "neg", [args[0]], shape, dtype)
    if v[1] is not None and math.frexp(v[1])[0] in (0.5, -0.5):  # a power of two: its reciprocal is exact
        return simplify(g, "mul", [args[0], g.full(1.0 / v[1], shape, dtype)], shape, dtype)
    return None


def _neg(g: Any, args: list[Any], v: list[float | None], shape: Any, dtype: str) -> Any | None:
    inner = args[0]
    if inner.op == "ew" and inner.attrs[0] == "neg":
        return inner.args[0]
    if inner.op == "ew" and inner.attrs[0] == "sub":
        return simplify(g, "sub", [inner.args[1], inner.args[0]], shape, dtype)
    return None


def _pow(g: Any, args: list[Any], v: list[float | None], shape: Any, dtype: str) -> Any | None:
    x, e = args[0], v[1]
    if e == 0.0:
        return g.full(1.0, shape, dtype)
    if e == 1.0:
        return x
    if e == 0.5:
        return simplify(g, "sqrt", [x], shape, dtype)
    if e in (2.0, 3.0, 4.0):
        square = simplify(g, "mul", [x, x], shape, dtype)
        return square if e == 2.0 else simplify(g, "mul", [square, x if e == 3.0 else square], shape, dtype)
    if e in (-1.0, -2.0):
        return simplify(g, "div", [g.full(1.0, shape, dtype), _pow(g, args, [None, -e], shape, dtype)], shape, dtype)
    return None


def _where(g: Any, args: list[Any], v: list[float | None], shape: Any, dtype: str) -> Any | None:
    if v[0] is not None:
        return args[1] if v[0] else args[2]
    return args[1] if args[1] is args[2] else None


def _and(g: Any, args: list[Any], v: list[float | None], shape: Any, dtype: str) -> Any | None:
    for this, other in ((0, 1), (1, 0)):
        if v[this] is not None:
            return args[other] if v[this] else g.full(0.0, shape, dtype)
    return None


def _or(g: Any, args: list[Any], v: list[float | None], shape: Any, dtype: str) -> Any | None:
    for this, other in ((0, 1), (1, 0)):
        if v[this] is not None:
            return g.full(1.0, shape, dtype) if v[this] else args[other]
    return None


_RULES: dict[str, Callable[..., Any]] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "pow": _pow,
    "where": _where,
    "and": _and,
    "or": _or,
}
