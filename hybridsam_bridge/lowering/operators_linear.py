"""Entries of matrix and vector products."""

from __future__ import annotations

from typing import Any

from hybridsam_bridge.lowering.ir import Graph, Node
from hybridsam_bridge.lowering.operators_view import join
from hybridsam_bridge.lowering.registry import entry


def _mm3(g: Graph, a: Node, b: Node) -> Node:
    """(M, K) x (K, N) -> (M, N)."""
    out = g.contract(g.reshape(a, (1, *a.shape)), g.reshape(b, (1, *b.shape)))
    return g.reshape(out, (a.shape[0], b.shape[1]))


def _scaled(g: Graph, x: Node, factor: float) -> Node:
    return x if factor == 1 else g.ew("mul", x, float(factor))


def _sum_of(g: Graph, x: Node, beta: float, product: Node, alpha: float) -> Node:
    product = _scaled(g, product, alpha)
    return product if beta == 0 else g.ew("add", _scaled(g, x, beta), product)


@entry("mm")
def _mm(g: Graph, out: Any, a: Node, b: Node) -> Node:
    return _mm3(g, a, b)


@entry("bmm")
def _bmm(g: Graph, out: Any, a: Node, b: Node) -> Node:
    return g.contract(a, b)


@entry("mv")
def _mv(g: Graph, out: Any, a: Node, x: Node) -> Node:
    return g.reshape(_mm3(g, a, g.reshape(x, (*x.shape, 1))), (a.shape[0],))


@entry("dot", "vdot")
def _dot(g: Graph, out: Any, a: Node, b: Node) -> Node:
    return g.reshape(_mm3(g, g.reshape(a, (1, *a.shape)), g.reshape(b, (*b.shape, 1))), ())


@entry("outer", "ger")
def _outer(g: Graph, out: Any, a: Node, b: Node) -> Node:
    return _mm3(g, g.reshape(a, (*a.shape, 1)), g.reshape(b, (1, *b.shape)))


@entry("addmm")
def _addmm(g: Graph, out: Any, x: Node, a: Node, b: Node, beta: float = 1, alpha: float = 1) -> Node:
    return _sum_of(g, x, beta, _mm3(g, a, b), alpha)


@entry("addmv")
def _addmv(g: Graph, out: Any, x: Node, a: Node, b: Node, beta: float = 1, alpha: float = 1) -> Node:
    return _sum_of(g, x, beta, _mv(g, out, a, b), alpha)


@entry("addr")
def _addr(g: Graph, out: Any, x: Node, a: Node, b: Node, beta: float = 1, alpha: float = 1) -> Node:
    return _sum_of(g, x, beta, _outer(g, out, a, b), alpha)


@entry("baddbmm")
def _baddbmm(g: Graph, out: Any, x: Node, a: Node, b: Node, beta: float = 1, alpha: float = 1) -> Node:
    return _sum_of(g, x, beta, g.contract(a, b), alpha)


@entry("addbmm")
def _addbmm(g: Graph, out: Any, x: Node, a: Node, b: Node, beta: float = 1, alpha: float = 1) -> Node:
    return _sum_of(g, x, beta, g.reduce("sum", g.contract(a, b), [0]), alpha)


@entry("linear")
def _linear(g: Graph, out: Any, x: Node, weight: Node, bias: Node | None = None) -> Node:
    flat = g.reshape(x, (-1 if not x.size else x.size // x.shape[-1], x.shape[-1]))
    product = g.reshape(_mm3(g, flat, g.permute(weight, (1, 0))), tuple(out.shape))
    return product if bias is None else g.ew("add", product, bias)


@entry("linalg_cross")
def _cross(g: Graph, out: Any, a: Node, b: Node, dim: int = -1) -> Node:
    shape = tuple(out.shape)
    a, b = g.expand(a, shape), g.expand(b, shape)
    x = [g.narrow(a, dim, i, 1) for i in range(3)]
    y = [g.narrow(b, dim, i, 1) for i in range(3)]
    parts = []
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        parts.append(g.ew("sub", g.ew("mul", x[j], y[k]), g.ew("mul", x[k], y[j])))
    return join(g, parts, dim)
