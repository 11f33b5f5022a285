"""The embedded backend: batched solves in torch, on any device, exact gradients to second order.

Right-hand sides are the user's one-sample functions over whole batches (``embedded.functions``); steps,
interpolants and the discrete adjoint are in ``backends/embedded``.
"""

from __future__ import annotations

import time
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
from hybridsam_bridge.backends.embedded.adjoint import Adjoint
from hybridsam_bridge.backends.embedded.functions import Functions
from hybridsam_bridge.backends.embedded.integrate import Progress, integrate
from hybridsam_bridge.backends.embedded.record import Record, Steps
from hybridsam_bridge.backends.embedded.replay import replay
from hybridsam_bridge.backends.embedded.stepper import Stepper
from hybridsam_bridge.backends.embedded.tableaus import TABLEAUS
from hybridsam_bridge.config import settings
from hybridsam_bridge.errors import UnsupportedOperation
from hybridsam_bridge.fields.plan import Plan
from hybridsam_bridge.problem import Status

Tensor = torch.Tensor

STIFF, NONSTIFF = "Rodas5P", "Tsit5"


class TorchTape(Tape):
    """The accepted steps, and what they were taken with."""

    def __init__(self, stepper: Stepper, steps: Steps, good: Tensor, ys: Tensor):
        self.stepper, self.steps, self.good, self.ys = stepper, steps, good, ys
        self.nbytes = steps.nbytes + ys.nbytes


class TorchBackend(TensorBackend):
    """Rosenbrock methods and Tsit5 over batches, with the discrete adjoint."""

    name = "torch"

    def availability(self) -> Availability:
        return Availability(True, "torch is a dependency of the package")

    def choose(self, plan: Plan, method: str, adjoint: str) -> Choice:
        why = []
        if adjoint == "auto":
            adjoint = "discrete"
            why.append("adjoint: discrete, the exact derivative of the computed solution.")
        elif adjoint not in ("discrete", "none"):
            raise UnsupportedOperation(
                f'The torch backend has no adjoint {adjoint!r}; use adjoint="discrete" or "auto", or backend="julia" '
                'for "gauss" and "forward".'
            )
        if method != "auto":
            methods.require(method, self.name)
        return Choice(method, adjoint, " ".join(why))

    def solve_tensors(
        self, plan: Plan, y0: Tensor, ts: Tensor, context: Tensor, p: Tensor, options: Options
    ) -> tuple[Tensor, Forward]:
        _check_precision(y0, options)
        tensors = [x.to(device=y0.device, dtype=torch.float64) for x in (y0, ts, context, p)]
        call = _Call(plan, options)
        if options.adjoint == "none":
            with torch.no_grad():
                ys = call.solve(*[x.detach() for x in tensors])
        else:
            ys = _EmbeddedSolve.apply(call, *tensors)
        return ys, call.forward

    def solve(self, plan: Plan, request: Request, options: Options) -> Forward:
        tensors = [torch.from_numpy(x) for x in (request.y0, request.ts, request.context, request.p)]
        call = _Call(plan, options)
        with torch.no_grad():
            call.solve(*tensors)
        call.inputs = tensors
        if call.forward.tape is not None:
            call.forward.tape.call = call  # type: ignore[attr-defined]
        return call.forward

    def vjp(self, tape: Tape, grad_ys: Floats) -> Gradients:
        call = tape.call  # type: ignore[attr-defined]
        with torch.no_grad():
            y0, ts, context, p = call.pull(torch.from_numpy(grad_ys), *call.inputs)
        size = len(y0)
        zero = np.zeros(size, dtype=np.int64)
        return Gradients(
            y0.numpy(), ts.numpy(), context.numpy(), p.numpy(), zero, np.full(size, float(call.inputs[1][0]))
        )


def _check_precision(y0: Tensor, options: Options) -> None:
    eps = torch.finfo(torch.float32).eps
    if y0.dtype == torch.float32 and options.rtol < 4 * eps:
        warnings.warn(
            f"rtol={options.rtol:g} is below what float32 results hold ({4 * eps:.1g}); the solve runs in float64, but "
            "pass y0 as float64 to keep its digits.",
            stacklevel=4,
        )


class _Call:
    """One solve: its numbers, its tape, and the way back."""

    forward: Forward
    tape: TorchTape
    inputs: list[Tensor]

    def __init__(self, plan: Plan, options: Options):
        self.plan, self.options = plan, options

    def solve(self, y0: Tensor, ts: Tensor, context: Tensor, p: Tensor) -> Tensor:
        """ys (B, T, n); sets ``forward`` and, if there is an adjoint, ``tape``."""
        start = time.perf_counter()
        limit = self.options.time_limit
        self.deadline = None if limit is None else start + limit
        functions = Functions(self.plan, p)
        method, why = self._method()
        y0, context = y0.contiguous(), context.contiguous()
        record, stepper, progress = self._attempt(method, functions, y0, ts, context)
        if progress.stiff:
            self.plan.memo["embedded stiff"] = True
            method, why = self._method()
            record, stepper, progress = self._attempt(method, functions, y0, ts, context)
        ys = record.finish()
        good = progress.status == int(Status.SUCCESS)
        if self.options.adjoint != "none":
            self.tape = TorchTape(stepper, record.steps(good), good, ys.clone())
        self.forward = self._report(ys, progress, record, stepper, time.perf_counter() - start, method, why)
        return ys

    def _method(self) -> tuple[str, str]:
        if self.options.method != "auto":
            return self.options.method, ""
        if self.options.steps is not None:
            return STIFF, f"method: {STIFF}, the default for forced steps."
        if self.plan.memo.get("embedded stiff"):
            return STIFF, f"method: {STIFF}, since {NONSTIFF} met stiffness or very small steps in this model."
        return NONSTIFF, f"method: {NONSTIFF}, no stiffness met."

    def _attempt(
        self, method: str, functions: Functions, y0: Tensor, ts: Tensor, context: Tensor
    ) -> tuple[Record, Stepper, Progress]:
        tableau = TABLEAUS[method]
        if tableau.stiff:
            _check_memory(len(y0), self.plan.n)
        stepper = Stepper(tableau, functions)
        record = Record(
            tableau, y0, ts, self.options.adjoint != "none", self.options.record_steps, settings().tape_memory
        )
        watch = self.options.method == "auto" and not tableau.stiff
        progress = integrate(stepper, y0, ts, context, self.options, record, self.deadline, watch)
        return record, stepper, progress

    def _report(
        self, ys: Tensor, progress: Progress, record: Record, stepper: Stepper, seconds: float, method: str, why: str
    ) -> Forward:
        steps, rejected = (x.cpu().numpy() for x in (progress.steps, progress.rejected))
        f, jac = stepper.costs
        return Forward(
            ys=ys.detach().cpu().numpy(),
            status=progress.status.cpu().numpy(),
            reached=progress.reached.cpu().numpy(),
            steps=steps,
            rejected=rejected,
            f=f * (steps + rejected),
            jac=jac * (steps + rejected),
            seconds=seconds,
            tape=self.tape if self.options.adjoint != "none" else None,
            step_times=_step_times(record, ys, progress) if self.options.record_steps else None,
            extra={"method": method, "why": why},
        )

    def pull(self, grad_ys: Tensor, y0: Tensor, ts: Tensor, context: Tensor, p: Tensor) -> tuple[Tensor, ...]:
        """Cotangents of the four inputs for those of ys (B, T, n). Failed samples give zero."""
        good = self.tape.good
        grad_ys = torch.where(good[:, None, None], grad_ys, 0.0).contiguous()
        cotangents = Adjoint(self.tape.stepper, self.tape.steps, ts, context, grad_ys).run()
        grad_ts = self._time_gradients(grad_ys, cotangents.y0, ts, context)
        return cotangents.y0 + grad_ys[:, 0], grad_ts, cotangents.context, cotangents.p

    def _time_gradients(self, grad_ys: Tensor, lam: Tensor, ts: Tensor, context: Tensor) -> Tensor:
        """g_j · f(t_j, y_j) for the outputs, -λ(t_0) · f(t_0, y_0) for the start."""
        ys = torch.nan_to_num(self.tape.ys)
        size, times, n = ys.shape
        flat_t, flat_c = ts.repeat(size), context.repeat_interleave(times, 0)
        slopes = self.tape.stepper.functions.rhs(flat_t, ys.reshape(-1, n), flat_c).view(ys.shape)
        weights = torch.cat([-lam[:, None], grad_ys[:, 1:]], 1)
        return torch.where(self.tape.good[:, None, None], weights * slopes, 0.0).sum((0, 2))


class _EmbeddedSolve(torch.autograd.Function):
    """ys of (y0, ts, context, p). The backward is the discrete adjoint; if a graph of it is asked for, the
    recorded steps are taken again in plain differentiable torch."""

    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> Tensor:
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
        ys = replay(call.plan, call.tape.stepper, call.tape.steps, *tensors)
        found = iter(torch.autograd.grad(ys, needed, grad_ys, create_graph=True, allow_unused=True))
        return (None, *[next(found) if x.requires_grad else None for x in tensors])


def _step_times(record: Record, ys: Tensor, progress: Progress) -> list[Floats]:
    start = record.ts[:1].cpu().numpy()
    if not record.end_times:
        return [start.copy() for _ in range(len(ys))]
    samples, times = (torch.cat(x).cpu().numpy() for x in zip(*record.end_times, strict=True))
    return [np.concatenate([start, times[samples == b]]) for b in range(len(ys))]


def _check_memory(size: int, n: int) -> None:
    needed, limit = 4 * size * n * n * 8, settings().tape_memory
    if needed > limit:
        raise UnsupportedOperation(
            f"The torch backend's Rosenbrock methods keep dense Jacobians: {size} samples of {n} unknowns need "
            f'{needed / 1e9:.1f} GB, above the limit of {limit / 1e9:.1f} GB. Use backend="julia", which works with '
            'sparse or Krylov solves, method="Tsit5" if the problem is not stiff, smaller batches, or raise '
            "hsb.configure(tape_memory=...)."
        )
