"""Simplification of graphs that make_fx traced: equal operations merged, no-ops and chains of views collapsed."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten


class NotTraceable(Exception):
    """The function branches on values, or its graph depends on the batch size in another way than linearly."""


_VIEWS = frozenset(
    {
        aten.view.default,
        aten._unsafe_view.default,
        aten.reshape.default,
        aten.alias.default,
        aten.unsqueeze.default,
        aten.squeeze.default,
        aten.squeeze.dim,
        aten.squeeze.dims,
    }
)
_PERMUTES = frozenset({aten.permute.default})
_SPLITS = frozenset({aten.split_with_sizes.default, aten.split.Tensor, aten.chunk.default})


def simplify(graph: fx.Graph) -> None:
    """Simplify in place; results stay bit-equal. Raises ``NotTraceable`` for operators that draw random numbers."""
    seen: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        same = _same_as(node)
        if same is None:
            _collapse_views(node)
            same = seen.setdefault(_key(node), node)
        if same is not node:
            node.replace_all_uses_with(same)
            graph.erase_node(node)
    graph.eliminate_dead_code()


def _key(node: fx.Node) -> Any:
    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        raise NotTraceable(f"{node.target} draws random numbers")
    return node.target, repr(node.args), repr(node.kwargs)


def _shape(node: Any) -> tuple[int, ...] | None:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _same_as(node: fx.Node) -> fx.Node | None:
    """The argument that this node equals, if it changes nothing."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node):
        return None
    if node.target is aten.detach.default:
        return source
    if node.target in _PERMUTES and list(node.args[1]) == list(range(len(node.args[1]))):  # type: ignore[arg-type]
        return source
    if node.target in _VIEWS | {aten.expand.default} and _shape(source) == _shape(node) is not None:
        return source
    if node.target is operator.getitem and source.target in _SPLITS:
        whole = source.args[0]
        if isinstance(whole, fx.Node) and _shape(whole) == _shape(node) is not None:
            return whole
    return None


def _collapse_views(node: fx.Node) -> None:
    """A view of views becomes one reshape of the first."""
    shape = _shape(node)
    if node.target not in _VIEWS or shape is None:
        return
    source = node.args[0]
    while isinstance(source, fx.Node) and (source.target in _VIEWS or source.target is aten.reshape.default):
        source = source.args[0]
    node.target = aten.reshape.default
    node.args = (source, list(shape))
    node.kwargs = {}
