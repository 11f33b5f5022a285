"""Runs a right-hand side and torch's own derivatives of it once, and records the operators as nodes.

One joint run gives everything: f, the pull-back of v (reverse mode), and the pull-back of (tau, d) through
that (reverse over reverse), which is the gradient of v . (f_u d + f_t tau) for u, c, p and, for v, the
directional derivative f_u d + f_t tau itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from hybridsam_bridge.errors import HybridSAMError, UnsupportedOperation
from hybridsam_bridge.fields.plan import TorchPart
from hybridsam_bridge.lowering import operators, registry
from hybridsam_bridge.lowering.ir import Graph, Node
from hybridsam_bridge.lowering.symbols import Spelling, Symbol

_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent)
_PLAN = str(Path(__file__).parent.parent / "fields" / "plan.py")

operators.load()


@dataclass(frozen=True)
class Traced:
    """The joint graph of one part. Each p list has one node a parameter.

    ``f``, ``jd`` (n,); ``gt`` (), ``gu``, ``gc``, ``gp``: pull-back of v; ``hu``, ``hc``, ``hp``: gradient of
    v . (f_u d + f_t tau). ``v``, ``d``, ``tau``, ``t``, ``c`` are the inputs themselves.
    """

    graph: Graph
    inputs: dict[str, Node]
    f: Node
    jd: Node
    gt: Node
    gu: Node
    gc: Node
    gp: list[Node]
    hu: Node
    hc: Node
    hp: list[Node]


@dataclass
class _Place:
    """Where in the user's code the run is, for messages."""

    forward: dict[str, str] = field(default_factory=dict)  # operator -> file:line of its last use
    in_user_code: bool = False

    def of(self, name: str) -> str:
        found = _user_line()
        self.in_user_code = found is not None
        if found is not None:
            self.forward[name] = found
            return found
        stem = name.removesuffix("_data").removesuffix("_backward").removesuffix("_double")
        for known, line in self.forward.items():
            if known == stem or known.startswith(stem):
                return f"{line} (in its derivative)"
        return "in the derivatives of the right-hand side"


def _user_line() -> str | None:
    frame: FrameType | None = sys._getframe(1)
    first_outside = None
    while frame is not None:
        file = frame.f_code.co_filename
        if frame.f_code in (_record.__code__, _rewritten.__code__):
            return first_outside
        if first_outside is None and not file.startswith((_TORCH, _HERE, _PLAN)) and not file.startswith("<"):
            first_outside = f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return None


class _Mutates(Exception):
    """The code writes in place: torch has to rewrite it (functionalize), which costs it a second of imports."""


class _Reshapes(Exception):
    """torch's derivative of an operator reshapes in place, which again only functionalize can rewrite."""


class Recorder(TorchDispatchMode):
    """Builds nodes for every operator that torch dispatches while it is active."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler (1.5 s) to keep it away from this mode

    def __init__(self, graph: Graph, pure: bool):
        super().__init__()
        self.graph = graph
        self.pure = pure
        self.place = _Place()
        self.tape: list[tuple[Any, Any, Any, Any]] | None = None
        self._constants: dict[tuple[Any, ...], tuple[torch.Tensor, Node]] = {}

    def node(self, tensor: torch.Tensor) -> Node:
        """The node of a tensor; a tensor that nothing recorded made is a constant."""
        if isinstance(tensor, Symbol):
            return tensor.node
        if tensor.is_complex() or tensor.layout is not torch.strided:
            raise UnsupportedOperation("complex and sparse tensors have no translation to Julia; use real dense ones.")
        if tensor._is_zerotensor():
            return self.graph.full(0.0, tuple(tensor.shape), registry.kind_of(tensor.dtype))
        key = (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype)
        if key not in self._constants:
            made = self.graph.const(tensor.detach().to("cpu", torch.float64).numpy(), registry.kind_of(tensor.dtype))
            self._constants[key] = (tensor, made)
        return self._constants[key][1]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tape, self.tape = self.tape, None  # what an operator is made of does not go on the tape
        try:
            out = self._dispatch(func, args, kwargs or {})
        finally:
            self.tape = tape
        if tape is not None:
            tape.append((func, args, kwargs or {}, out))
        return out

    def _dispatch(self, func: Any, args: Any, kwargs: Any) -> Any:
        name = registry.operator_name(func)
        symbols = [a for a in pytree.tree_leaves((args, kwargs)) if isinstance(a, Symbol)]
        where = self.place.of(name)
        if func._schema.is_mutable and symbols:
            return self._in_place(func, name, where, args, kwargs)
        structural = all(s.node.literal is not None for s in symbols)
        if name in registry.COMPOSITES and not structural:
            with self:
                return self._refusing(where, func, registry.COMPOSITES[name], *args, **kwargs)
        handler = registry.ENTRIES.get(name)
        random = torch.Tag.nondeterministic_seeded in func.tags
        plain_args, plain_kwargs = pytree.tree_map(_value, (args, kwargs)) if symbols else (args, kwargs)
        if handler is None and not structural and func._can_decompose():
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        if handler is None or random or (not symbols and name not in registry.LITERALS):
            if structural and not random:
                return func(*plain_args, **plain_kwargs)  # constants all the way
            raise registry.unsupported(func, where, name)
        out = func(*plain_args, **plain_kwargs)
        return self._record(handler, where, func, out, args, kwargs)

    def _in_place(self, func: Any, name: str, where: str, args: Any, kwargs: Any) -> Any:
        """In-place steps of torch's own derivative formulas, which work on fresh tensors without other views."""
        if self.pure and self.place.in_user_code:
            raise _Mutates
        target, plain = args[0], registry.out_of_place(func)
        if plain is None or not isinstance(target, Symbol) or target.node.op == "input":
            raise registry.unsupported(func, where, name)
        with self:
            result = plain(*args, **kwargs)
        if tuple(result.shape) != tuple(target.shape):  # a symbol cannot change its shape
            raise _Reshapes if self.pure else registry.unsupported(func, where, name)
        target.node, target.value = self.node(result), _value(result)
        return target

    def _record(self, handler: Any, where: str, func: Any, out: Any, args: Any, kwargs: Any) -> Any:
        def swap(value: Any) -> Any:
            return self.node(value) if isinstance(value, torch.Tensor) else value

        swapped = pytree.tree_map(swap, (args, kwargs))
        made = self._refusing(where, func, handler, self.graph, out, *swapped[0], **swapped[1])
        if isinstance(out, torch.Tensor):
            return Symbol.make(made, out)
        pairs = [n if n is None or t is None else Symbol.make(n, t) for t, n in zip(out, made, strict=True)]
        return pairs if isinstance(out, list) else tuple(pairs)

    @staticmethod
    def _refusing(where: str, func: Any, handler: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except registry.Refused as refused:
            raise UnsupportedOperation(
                f'{where}: {func}: {refused} Rewrite it, or solve with backend="torch" or backend="scipy", '
                "which run any torch code."
            ) from None


def _value(item: Any) -> Any:
    """Example numbers for torch. Constants meet them in float64, as parameters and states do."""
    if isinstance(item, Symbol):
        return item.value
    if isinstance(item, torch.Tensor):
        return item.to("cpu", torch.float64) if item.is_floating_point() else item.cpu()
    return item


def _derive(fn: Callable[..., Any], x: dict[str, Any], params: Sequence[Any]) -> tuple[Any, ...]:
    """f, its pull-back of v, and the pull-back of (tau, d) through that; None where a result is zero."""
    f = fn(x["t"], x["u"], x["c"], params).to(torch.float64)
    points = [x["t"], x["u"], x["c"], *params]
    first = _pull([f], points, [x["v"]])
    second = _pull([first[0], first[1]], [*points, x["v"]], [x["tau"], x["d"]])
    return f, first, second


def _pull(outputs: Sequence[Any], inputs: Sequence[Any], cotangents: Sequence[Any]) -> Sequence[Any]:
    pairs = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o is not None and o.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    # Contracted to one number: autograd checks given cotangents with SymPy, whose import takes half a second.
    total = sum((o * c).sum() for o, c in pairs)
    return torch.autograd.grad(total, inputs, create_graph=True, allow_unused=True)


def _derive_rewritten(fn: Callable[..., Any], x: dict[str, Any], params: Sequence[Any]) -> tuple[Any, ...]:
    """What ``_derive`` does, all of it inside functionalize."""

    def joint(t: Any, u: Any, c: Any, params: Any, v: Any, d: Any, tau: Any) -> Any:
        def pulled(t: Any, u: Any, c: Any, params: Any, v: Any) -> Any:
            outputs: Any = torch.func.vjp(lambda *a: fn(*a).to(torch.float64), t, u, c, params)
            f, pull = outputs
            gt, gu, gc, gp = pull(v)
            return (gt, gu), (f, gc, gp)

        outputs: Any = torch.func.vjp(pulled, t, u, c, params, v, has_aux=True)
        (gt, gu), pull, (f, gc, gp) = outputs
        ht, hu, hc, hp, jd = pull((tau, d))
        return f, [gt, gu, gc, *gp], [ht, hu, hc, *hp, jd]

    run = torch.func.functionalize(joint, remove="mutations_and_views")
    made: tuple[Any, ...] = run(x["t"], x["u"], x["c"], list(params), x["v"], x["d"], x["tau"])
    return made


def _rewritten(part: TorchPart, n: int, nc: int) -> Callable[..., Any]:
    """``part.fn`` without in-place writes: what functionalize makes of it, taken down and played back.

    Derivatives are taken of the playback. Taken through functionalize they would go wrong: autograd describes
    a written slice by its place in memory, and symbols have none.
    """
    recorder = Recorder(Graph(), pure=False)
    x, params = _symbols(recorder.graph, part, n, nc, requires_grad=False)
    tape: list[tuple[Any, Any, Any, Any]] = []
    recorder.tape = tape
    start = [x["t"], x["u"], x["c"], *params]
    run = torch.func.functionalize(part.fn, remove="mutations_and_views")
    with recorder, Spelling():
        result = run(x["t"], x["u"], x["c"], params)

    def play(t: Any, u: Any, c: Any, params: Sequence[Any]) -> Any:
        now = dict(zip(map(id, start), [t, u, c, *params], strict=True))

        def swap(item: Any) -> Any:
            return now.get(id(item), item)

        for func, args, kwargs, out in tape:
            args, kwargs = pytree.tree_map(swap, (args, kwargs))
            if registry.operator_name(func) == "copy":  # has no derivative of its own
                made = args[1].expand(args[0].shape)
            else:
                made = func(*args, **kwargs)
            now |= {id(o): m for o, m in zip(pytree.tree_leaves(out), pytree.tree_leaves(made), strict=True)}
        return swap(result)

    return play


def trace(part: TorchPart, n: int, nc: int) -> Traced:
    """Record ``part`` for a state of ``n`` and a context of ``nc`` numbers.

    Raises ``UnsupportedOperation`` naming the operator and the user's line.
    """
    try:
        fn = part.fn
        try:
            return _record(fn, part, n, nc)
        except _Mutates:
            fn = _rewritten(part, n, nc)
        except _Reshapes:
            return _record(fn, part, n, nc, pure=False)
        try:
            return _record(fn, part, n, nc)
        except _Reshapes:
            return _record(fn, part, n, nc, pure=False)
    except HybridSAMError:
        raise
    except (RuntimeError, TypeError) as error:
        raise _explained(error, part) from error


def _symbols(graph: Graph, part: TorchPart, n: int, nc: int, requires_grad: bool) -> tuple[dict[str, Any], list[Any]]:
    def symbol(name: str, shape: tuple[int, ...], offset: int = 0) -> Symbol:
        # One half is as good as any number: it keeps logarithms, roots and divisions finite while tracing.
        example = torch.full(shape, 0.5, dtype=torch.float64)
        return Symbol.make(graph.input(name, shape, offset), example, requires_grad)

    x = {name: symbol(name, (n,)) for name in ("u", "v", "d")}
    x |= {"t": symbol("t", ()), "tau": symbol("tau", ()), "c": symbol("c", (nc,))}
    params, offset = [], 0
    for spec in part.parameters:
        params.append(symbol("p", spec.shape, offset))
        offset += spec.size
    return x, params


def _record(fn: Callable[..., Any], part: TorchPart, n: int, nc: int, pure: bool = True) -> Traced:
    graph = Graph()
    recorder = Recorder(graph, pure)
    x, params = _symbols(graph, part, n, nc, requires_grad=pure)
    derive = _derive if pure else _derive_rewritten
    with torch.enable_grad(), recorder, Spelling():
        f, first, second = derive(fn, x, params)
    zeros = [graph.full(0.0, p.shape) for p in (x["t"], x["u"], x["c"], *params, x["v"])]
    gt, gu, gc, *gp = [z if g is None else recorder.node(g) for g, z in zip(first, zeros, strict=False)]
    _, hu, hc, *hp, jd = [z if g is None else recorder.node(g) for g, z in zip(second, zeros, strict=True)]
    inputs = {name: s.node for name, s in x.items()}
    return Traced(graph, inputs, recorder.node(f), jd, gt, gu, gc, gp, hu, hc, hp)


def _explained(error: Exception, part: TorchPart) -> Exception:
    """torch's refusals to let a symbol's numbers out, with advice; other errors as they are."""
    text = str(error)
    if "leaf Variable" in text and "in-place" in text:
        return UnsupportedOperation(
            f"{part.name}: the right-hand side writes into one of its arguments or parameters in place. It must be a "
            "pure function: work on a clone."
        )
    if "derivative for" in text and "is not implemented" in text:
        return UnsupportedOperation(
            f"{part.name}: torch itself has no second derivative here ({text.splitlines()[0]}). Rewrite the "
            'operator with simpler ones, or solve with backend="scipy" and adjoint="gauss".'
        )
    marks = ("tensor subclass", "data pointer", "storage", "functorch", "numpy()", "setup_context", "vmap")
    if any(mark in text for mark in marks):
        return UnsupportedOperation(
            f"{part.name}: the right-hand side leaves torch ({text.splitlines()[0]}). Keep to tensor operators "
            'without .numpy(), .tolist(), .data or custom autograd functions, or solve with backend="torch" or '
            'backend="scipy".'
        )
    return error
