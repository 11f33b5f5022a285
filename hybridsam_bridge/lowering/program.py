"""``lower``: a torch right-hand side becomes a Program, plain data with Julia source inside."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hybridsam_bridge.fields.plan import TorchPart
from hybridsam_bridge.lowering.derive import Function, depends_on, functions
from hybridsam_bridge.lowering.emit import Emitter
from hybridsam_bridge.lowering.fuse import fuse
from hybridsam_bridge.lowering.ir import Graph, reachable
from hybridsam_bridge.lowering.schedule import Limits, schedule
from hybridsam_bridge.lowering.slots import Slots
from hybridsam_bridge.lowering.trace import trace

# Straight-line code beyond this many lines is written again with smaller tensors in loops.
MAX_LINES = 2000


@dataclass(frozen=True)
class Program:
    """Julia source of one part's right-hand side and its derivatives; plain data, picklable.

    Attributes:
        key: sha256 of what determines the compiled code: source and sizes, no values.
        source: definitions of f!, jac!, tgrad!, vjpu!, vjp!, hvp! and jvp!; all of them add to their outputs. Where
            vjp! and hvp! put some of gp off, flush! adds it.
        n, nc, n_params: sizes of state, context and parameters.
        workspace: doubles of scratch that every function needs at most.
        constants: data of the module's buffers and tensors, passed as ``k``.
        time_dependent, uses_context: whether f depends on t, on c.
        operators: nodes of work in the largest function, as a measure of size.
    """

    key: str
    source: str
    n: int
    nc: int
    n_params: int
    workspace: int
    constants: NDArray[np.float64] = field(repr=False)
    time_dependent: bool
    uses_context: bool
    operators: int


def lower(part: TorchPart, n: int, nc: int) -> Program:
    """Translate ``part`` for a state of ``n`` and a context of ``nc`` numbers.

    Raises ``UnsupportedOperation`` naming the operator, the user's line and the way out.
    """
    traced = trace(part, n, nc)
    graph = traced.graph
    made = [fuse(graph, function) for function in functions(traced, part)]
    offsets = np.cumsum([0, *(c.size for c in graph.constants)]).tolist()
    texts, workspace, slots = [], 0, Slots()
    with _deep_recursion():
        for function in made:
            text, need = _write(graph, function, offsets, slots)
            texts.append(text)
            workspace = max(workspace, need)
    workspace = 8 * math.ceil(workspace / 8)
    source = "\n".join([slots.definitions(workspace), *texts])
    workspace += slots.size
    flat = [c.reshape(-1) for c in graph.constants]
    constants = np.concatenate(flat) if flat else np.zeros(0)
    n_params = sum(spec.size for spec in part.parameters)
    marks = f"{source}\n{n} {nc} {n_params} {workspace} {constants.size}"
    work = max(sum(node.op not in ("view", "input", "const", "full") for node in _all(function)) for function in made)
    return Program(
        key=hashlib.sha256(marks.encode()).hexdigest(),
        source=source,
        n=n,
        nc=nc,
        n_params=n_params,
        workspace=workspace,
        constants=constants,
        time_dependent=depends_on(traced.f, traced.inputs["t"]),
        uses_context=depends_on(traced.f, traced.inputs["c"]),
        operators=work,
    )


def _all(function: Function) -> list:
    return reachable(sink.node for sink in function.sinks)


def _limits(function: Function) -> Iterator[Limits]:
    """From generous to none; the Jacobian's tensors have one row a state, mostly zeros by structure."""
    if function.name == "jac!" and not function.columns:
        yield Limits(16, 1024)
    yield Limits(16, 64)
    yield Limits(8, 32)
    yield Limits(1, 1)


def _write(graph: Graph, function: Function, offsets: list[int], slots: Slots) -> tuple[str, int]:
    lines: list[str] = []
    workspace = 0
    for limits in _limits(function):
        plan = schedule(graph, function, limits)
        lines, workspace = Emitter(plan, offsets, slots).body(), plan.workspace
        if len(lines) <= MAX_LINES:
            break
    if function.columns:
        lines = _by_columns(function.columns, lines)
    text = "\n".join(f"    {line}" for line in ["@inbounds begin", *lines, "end", "return nothing"])
    return f"function {function.name}({function.arguments})\n{text}\nend\n", workspace


def _by_columns(n: int, lines: list[str]) -> list[str]:
    """A dense Jacobian, one directional derivative a column."""
    return [
        f"for j = 1:{n}",
        f"k_fill!(w, 0, {2 * n}, 0.0)",
        "w[j] = 1.0",
        *lines,
        f"for i = 1:{n}",
        f"J[i, j] += w[{n} + i]",
        "end",
        "end",
    ]


@contextmanager
def _deep_recursion() -> Iterator[None]:
    """Expressions of small tensors are as deep as the model's longest chain of operators."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 100_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
