"""The embedded backend: batched solves in torch, on any device, exact gradients to second order.

Right-hand sides are the user's one-sample functions over whole batches (``embedded.functions``); steps,
interpolants and the discrete adjoint are in ``backends/embedded``.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from hybridsam_bridge import methods
from hybridsam_bridge.backends.base import (
    Availability,
    Choice,
    Floats,
    Forward,
    Gradients,
    Options,
    Request,
    Tape,
    TensorBackend,
)
from hybridsam_bridge.backends.embedded.call import Call
from hybridsam_bridge.errors import UnsupportedOperation
from hybridsam_bridge.fields.plan import Plan

Tensor = torch.Tensor


class TorchBackend(TensorBackend):
    """Rosenbrock methods and Tsit5 over batches, with the discrete adjoint."""

    name = "torch"

    def availability(self) -> Availability:
        return Availability(True, "torch is a dependency of the package")

    def choose(self, plan: Plan, method: str, adjoint: str, linear: str) -> Choice:
        """``method`` "auto" stays: it is resolved sample by sample as the solve goes, and reported with it."""
        methods.require_plain(self.name, linear, plan.mass is not None)
        why = ""
        if adjoint == "auto":
            adjoint = "discrete"
            why = "adjoint: discrete, the exact derivative of the computed solution."
        elif adjoint not in ("discrete", "none"):
            raise UnsupportedOperation(
                f'The torch backend has no adjoint {adjoint!r}; use adjoint="discrete" or "auto", or backend="julia" '
                'for "gauss" and "forward".'
            )
        if method != "auto":
            methods.require(method, self.name)
        return Choice(method, adjoint, why)

    def solve_tensors(
        self, plan: Plan, y0: Tensor, ts: Tensor, context: Tensor, p: Tensor, options: Options
    ) -> tuple[Tensor, Forward]:
        _check_precision(y0, options)
        tensors = [x.to(device=y0.device, dtype=torch.float64) for x in (y0, ts, context, p)]
        call = Call(plan, options)
        if options.adjoint == "none":
            with torch.no_grad():
                ys = call.solve(*[x.detach() for x in tensors])
        else:
            ys = _EmbeddedSolve.apply(call, *tensors)
        return ys, call.forward

    def solve(self, plan: Plan, request: Request, options: Options) -> Forward:
        inputs = [torch.from_numpy(x) for x in (request.y0, request.ts, request.context, request.p)]
        call = Call(plan, options)
        with torch.no_grad():
            call.solve(*inputs)
        if options.adjoint != "none":
            call.forward.tape = _ArrayTape(call, inputs)
        return call.forward

    def vjp(self, tape: Tape, grad_ys: Floats) -> Gradients:
        assert isinstance(tape, _ArrayTape)
        if tape.call is None:
            raise RuntimeError("This solve's tape was freed; call backward(retain_graph=True) to go back twice.")
        with torch.no_grad():
            y0, ts, context, p = (x.numpy() for x in tape.call.pull(torch.from_numpy(grad_ys), *tape.inputs))
        status = np.zeros(len(y0), dtype=np.int64)
        return Gradients(y0, ts, context, p, status, np.full(len(y0), float(tape.inputs[1][0])))


class _ArrayTape(Tape):
    """The tape of a solve that came and went as arrays."""

    def __init__(self, call: Call, inputs: list[Tensor]):
        self.call: Call | None = call
        self.inputs = inputs
        self.nbytes = call.tape.nbytes

    def release(self) -> None:
        self.call, self.inputs, self.nbytes = None, [], 0


class _EmbeddedSolve(torch.autograd.Function):
    """ys of (y0, ts, context, p). The backward is the discrete adjoint; if a graph of it is asked for, the
    recorded steps are taken again in plain differentiable torch."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> Tensor:
        ctx.call = call
        ctx.save_for_backward(*tensors)
        return call.solve(*[x.detach() for x in tensors])

    @staticmethod
    def backward(ctx: Any, grad_ys: Tensor) -> tuple[Any, ...]:
        call, tensors = ctx.call, ctx.saved_tensors
        if not torch.is_grad_enabled():
            return (None, *call.pull(grad_ys, *tensors))
        needed = [x for x in tensors if x.requires_grad]
        grad_ys = torch.where(call.tape.good[:, None, None], grad_ys, 0.0)
        ys = call.replayed(*tensors)
        found = iter(torch.autograd.grad(ys, needed, grad_ys, create_graph=True, allow_unused=True))
        return (None, *[next(found) if x.requires_grad else None for x in tensors])


def _check_precision(y0: Tensor, options: Options) -> None:
    least = 4 * torch.finfo(torch.float32).eps
    if y0.dtype == torch.float32 and options.rtol < least:
        warnings.warn(
            f"rtol={options.rtol:g} is below what float32 results hold ({least:.1g}); the solve runs in float64, but "
            "pass y0 as float64 to keep its digits.",
            stacklevel=4,
        )
