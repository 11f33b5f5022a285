"""Torch functions traced once into straight-line Python over torch's own operators.

vmap and the derivative transforms cost hundreds of microseconds of Python a call. Tracing them with make_fx
leaves the operators alone; what depends only on the fixed arguments (parameters) is hoisted out, and equal
operations are merged. With a batch dimension the function is traced at two sizes, and the integers that
differ become multiples of the size; where that does not work the caller falls back to the function itself.
"""

from __future__ import annotations

import operator
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import make_fx

from hybridsam_bridge.fields.simplify import NotTraceable, simplify

_SIZES = (11, 13)  # two batch sizes for the traces; primes, so that no product of other sizes meets them

# Operators with a faster binding of the same arguments in torch's namespace.
_DIRECT = frozenset(
    """mul add sub div neg tanh exp log sqrt sin cos sigmoid relu mm bmm addmm select unsqueeze squeeze stack cat
    where abs clamp maximum minimum pow reciprocal square rsqrt t transpose permute sum mean unbind log1p expm1
    sinh cosh gt lt ge le eq ne logical_and logical_or logical_not baddbmm reshape""".split()  # noqa: SIM905
)


class Program:
    """A traced function ``fn(*varying, fixed)``; ``bind(fixed)`` gives a plain function of the varying tensors.

    The varying tensors must be contiguous and have the shapes (but for the batch size) and the device of the
    example. Results may share memory with the arguments.
    """

    def __init__(self, source: str, constants: dict[str, Any], n_operators: int):
        self.source = source
        self.n_operators = n_operators
        self._constants = constants
        namespace = dict(constants)
        exec(compile(source, "<hybridsam_bridge traced>", "exec"), namespace)
        self._make: Callable[..., Callable[..., Any]] = namespace["make"]

    def identity(self) -> tuple[Any, ...]:
        """Equal for programs that compute the same: the source, and the values of the tensors in it."""
        marks: list[tuple[Any, ...]] = []
        for name, value in self._constants.items():
            if isinstance(value, torch.Tensor):
                marks.append((name, value.dtype, tuple(value.shape), value.cpu().numpy().tobytes()))
            else:
                marks.append((name, str(value)))
        return self.source, *marks

    def bind(self, fixed: Sequence[torch.Tensor]) -> Callable[..., Any]:
        """The function of the varying arguments, with what depends on ``fixed`` alone evaluated once."""
        return self._make(*fixed)


def trace(fn: Callable[..., Any], varying: Sequence[torch.Tensor], fixed: Sequence[torch.Tensor]) -> Program:
    """Trace ``fn(*varying, fixed)`` at these shapes. Raises ``NotTraceable``."""
    return _emit(_graph(fn, varying, fixed), len(varying), None, None)


def trace_batched(
    fn: Callable[..., Any], varying: Sequence[torch.Tensor], fixed: Sequence[torch.Tensor], batched: Sequence[bool]
) -> Program:
    """Trace ``fn`` for any batch size. ``varying`` are examples of one sample, ``batched`` says which of them get
    a leading batch dimension. Raises ``NotTraceable``.
    """
    graphs = []
    for size in _SIZES:
        args = [x.expand(size, *x.shape).contiguous() if b else x for x, b in zip(varying, batched, strict=True)]
        graphs.append(_graph(fn, args, fixed))
    return _emit(graphs[0], len(varying), graphs[1], list(batched).index(True))


def uses_first(fn: Callable[..., Any], varying: Sequence[torch.Tensor], fixed: Sequence[torch.Tensor]) -> bool:
    """Whether the value of ``fn(*varying, fixed)`` is computed from its first argument. Raises ``NotTraceable``."""
    first = next(iter(_graph(fn, varying, fixed).graph.nodes))
    return bool(first.users)


def _graph(fn: Callable[..., Any], varying: Sequence[torch.Tensor], fixed: Sequence[torch.Tensor]) -> fx.GraphModule:
    def flat(*args: torch.Tensor) -> Any:
        return fn(*args[: len(varying)], list(args[len(varying) :]))

    try:
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what the tracer does, not the user
            functional = torch.func.functionalize(flat, remove="mutations")
            module = make_fx(functional)(*[x.clone() for x in varying], *[x.detach().clone() for x in fixed])
    except Exception as error:
        raise NotTraceable(str(error)) from error
    module.graph.eliminate_dead_code()
    simplify(module.graph)
    return module


class _Writer:
    """Python source of a graph's arguments, integers compared with a twin traced at another batch size."""

    def __init__(self) -> None:
        self.constants: dict[str, Any] = {"torch": torch}

    def constant(self, name: str, value: Any) -> str:
        self.constants[name] = value
        return name

    def argument(self, value: Any, twin: Any) -> str:
        if isinstance(value, fx.Node):
            if not isinstance(twin, fx.Node) or twin.name != value.name:
                raise NotTraceable("the graph's structure depends on the batch size")
            return value.name
        if isinstance(value, (list, tuple)):
            if not isinstance(twin, (list, tuple)) or len(twin) != len(value):
                raise NotTraceable("the graph's structure depends on the batch size")
            inner = ", ".join(self.argument(a, b) for a, b in zip(value, twin, strict=True))
            return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
        if isinstance(value, int) and not isinstance(value, bool) and value != twin:
            return _multiple(value, twin)
        if value != twin and not (value != value and twin != twin):
            raise NotTraceable(f"an argument depends on the batch size: {value!r}, {twin!r}")
        if isinstance(value, (int, bool, str, type(None))) or (isinstance(value, float) and abs(value) < 1e300):
            return repr(value)
        return self.constant(f"_c{len(self.constants)}", value)

    def call(self, node: fx.Node, twin: fx.Node) -> str:
        if node.target is not twin.target:
            raise NotTraceable("the graph's structure depends on the batch size")
        args = [self.argument(a, b) for a, b in zip(node.args, twin.args, strict=True)]
        args += [f"{k}={self.argument(v, twin.kwargs.get(k))}" for k, v in node.kwargs.items()]
        if node.target is operator.getitem:
            return f"{args[0]}[{args[1]}]"
        return f"{self.function(node.target)}({', '.join(args)})"

    def function(self, target: Any) -> str:
        name = str(target).removeprefix("aten.").split(".")[0]
        if isinstance(target, torch._ops.OpOverload) and target.namespace == "aten" and name in _DIRECT:
            return self.constant(f"_torch_{name}", getattr(torch, name))
        plain = str(target).replace(".", "_").replace(":", "_")
        return self.constant(f"_op_{plain}", getattr(target, "_op", target))


def _multiple(value: int, twin: Any) -> str:
    slope, rest = divmod(value - twin, _SIZES[0] - _SIZES[1]) if isinstance(twin, int) else (0, 1)
    if rest or value != slope * _SIZES[0] or twin != slope * _SIZES[1]:
        raise NotTraceable(f"a size is no multiple of the batch size: {value}, {twin}")
    return "_n" if slope == 1 else f"{slope} * _n"


def _emit(module: fx.GraphModule, n_varying: int, other: fx.GraphModule | None, sized: int | None) -> Program:
    nodes = list(module.graph.nodes)
    twins = nodes if other is None else list(other.graph.nodes)
    if len(twins) != len(nodes) or any(a.op != b.op for a, b in zip(nodes, twins, strict=True)):
        raise NotTraceable("the graph's structure depends on the batch size")
    writer = _Writer()
    names = [node.name for node in nodes if node.op == "placeholder"]
    varies = set(names[:n_varying])
    last = _last_uses(nodes)
    head, body = [], []
    if sized is not None:
        body.append(f"_n = {names[sized]}.shape[0]")
    for node, twin in zip(nodes, twins, strict=True):
        if node.op == "get_attr":
            value, same = _attribute(module, node), _attribute(other or module, twin)
            if value.shape != same.shape or not torch.equal(value, same):
                raise NotTraceable("a constant depends on the batch size")
            writer.constant(node.name, value.detach())
        elif node.op == "call_function":
            line = f"{node.name} = {writer.call(node, twin)}"
            if re.search(r"\b_n\b", line) or any(a.name in varies for a in node.all_input_nodes):
                varies.add(node.name)
                dead = [n for n in last.get(node, ()) if n in varies]
                body.append(line + "".join(f"; {n} = None" for n in dead))
            else:
                head.append(line)
        elif node.op == "output":
            body.append(f"return {writer.argument(node.args[0], twin.args[0])}")
    lines = [f"def make({', '.join(names[n_varying:])}):", *(f"    {x}" for x in head)]
    lines += [f"    def run({', '.join(names[:n_varying])}):", *(f"        {x}" for x in body), "    return run"]
    return Program("\n".join(lines), writer.constants, len(body))


def _last_uses(nodes: Sequence[fx.Node]) -> dict[fx.Node, list[str]]:
    last: dict[str, fx.Node] = {}
    for node in nodes:
        for arg in node.all_input_nodes:
            last[arg.name] = node
    out: dict[fx.Node, list[str]] = {}
    for name, node in last.items():
        out.setdefault(node, []).append(name)
    return out


def _attribute(module: fx.GraphModule, node: fx.Node) -> torch.Tensor:
    value: Any = module
    for step in str(node.target).split("."):
        value = getattr(value, step)
    return value
