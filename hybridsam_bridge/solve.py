"""``hsb.solve`` and the package's only autograd.Function."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from hybridsam_bridge import checks
from hybridsam_bridge.backends import select
from hybridsam_bridge.backends.base import Backend, Floats, Forward, Gradients, Options, Request, TensorBackend, split
from hybridsam_bridge.errors import SolveFailed, UnsupportedOperation
from hybridsam_bridge.fields.base import Field, flatten, planned
from hybridsam_bridge.fields.plan import Plan, Shape
from hybridsam_bridge.problem import Solution, Stats, Status


def solve(
    field: Field,
    y0: torch.Tensor,
    ts: torch.Tensor,
    context: torch.Tensor | None = None,
    method: str = "auto",
    rtol: float = 1e-6,
    atol: float | torch.Tensor = 1e-9,
    adjoint: str = "auto",
    backend: str = "auto",
    max_steps: int = 100_000,
    on_failure: str = "raise",
    *,
    time_limit: float | None = None,
    steps: Sequence[Any] | None = None,
    record_steps: bool = False,
    linear: str = "auto",
) -> Solution:
    """Solve dy/dt = field(t, y, context) for a batch of initial values, differentiably.

    Every sample takes adaptive steps of its own. Gradients flow to ``y0``, ``ts``, ``context`` and every
    parameter of ``field``.

    Args:
        field: an ``hsb.VectorField``, ``hsb.JuliaField`` or a composition of them.
        y0: ``(*batch, *state_shape)`` float32 or float64, the state at ``ts[0]``.
        ts: ``(T,)`` strictly increasing, T >= 2, in the model's unit of time.
        context: ``(*batch, *any)``, handed to the field sample by sample.
        method: a DifferentialEquations.jl name such as "Rodas5P", or "auto".
        rtol, atol: tolerances of the local error; atol in the units of the state, a number or a tensor of
            ``state_shape``.
        adjoint: "discrete" (exact derivative of the computed solution), "gauss" (continuous adjoint with
            Gauss quadrature), "forward" (forward sensitivities), or "auto".
        backend: "julia", "torch", "scipy" or "auto" (Julia if it is ready).
        max_steps: accepted and rejected steps a sample may take.
        on_failure: "raise", or "nan": failed samples become NaN from the first output they missed on and
            give zero gradient.
        time_limit: seconds the whole call may take; None takes ``hsb.configure(time_limit=...)``.
        steps: instead of error control, force these steps: one increasing sequence of times from ``ts[0]``
            to ``ts[-1]``, or one a sample.
        record_steps: return each sample's accepted steps in ``Solution.steps``.
        linear: how the linear systems of implicit steps are solved: "dense" LU, "sparse" LU, "krylov" (GMRES
            with a multigrid cycle over an incomplete LU; a sparse LU takes over where it does not converge), or
            "auto", by size and sparsity; ``Solution.stats.linear`` says which was taken.

    Returns:
        ``Solution`` with ys ``(*batch, T, *state_shape)`` in y0's dtype and on its device.

    Raises:
        InvalidInput: an argument is unusable; nothing was started.
        SolveFailed: a sample did not reach the end (``on_failure="raise"``), or the adjoint failed.
        BackendUnavailable, UnsupportedOperation, JuliaError: see ``hsb.errors``.
    """
    shaped = checks.check_solve(
        field, y0, ts, context, method, rtol, atol, adjoint, backend, max_steps, on_failure, time_limit, steps, linear
    )
    plan, parameters = planned(field, shaped.context_shape)
    engine, why = select(backend, plan)
    choice = engine.choose(plan, method, adjoint, linear)
    checks.check_output_shape(plan, shaped, parameters[0].device if parameters else torch.device("cpu"))
    tensors = (y0, ts, context, *parameters)
    needs_grad = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    if plan.mass is not None and ts.requires_grad:
        raise UnsupportedOperation("ts: a system with a mass matrix has no gradient for its output times; detach ts.")
    options = Options(
        method=choice.method,
        adjoint=choice.adjoint if needs_grad else "none",
        rtol=float(rtol),
        atol=shaped.atol,
        max_steps=int(max_steps),
        steps=shaped.steps,
        record_steps=record_steps,
        time_limit=shaped.time_limit,
        linear=choice.linear,
    )
    batch = shaped.batch
    like_ys = _Like((*batch, len(shaped.ts), *plan.state_shape), y0.dtype, y0.device)
    if isinstance(engine, TensorBackend):
        size = math.prod(batch)
        contexts = y0.new_zeros(size, 0) if context is None else context.reshape(size, -1)
        ys, forward = engine.solve_tensors(plan, y0.reshape(size, -1), ts, contexts, flatten(parameters), options)
        ys = ys.reshape(like_ys.shape).to(dtype=y0.dtype, device=y0.device)
    else:
        request = Request(shaped.y0, shaped.ts, shaped.context, _to_vector(parameters))
        if needs_grad:
            call = _Call(engine, plan, request, options, batch, like_ys, [])
            ys = _Solve.apply(call, *tensors)
            (forward,) = call.results
        else:  # autograd's bookkeeping would take as long as all the rest of a small call
            forward = engine.solve(plan, request, options)
            ys = _to_tensor(forward.ys, like_ys)
    if on_failure == "raise":
        _raise_first_failure(forward, batch)
    stats = Stats(
        steps=forward.steps.reshape(batch),
        rejected=forward.rejected.reshape(batch),
        f=forward.f.reshape(batch),
        jac=forward.jac.reshape(batch),
        seconds=forward.seconds,
        method=forward.extra.pop("method", choice.method),
        adjoint=options.adjoint,
        backend=engine.name,
        linear=forward.extra.pop("linear", choice.linear),
        why=" ".join(part for part in (why, choice.why, forward.extra.pop("why", "")) if part),
        tape_bytes=0 if forward.tape is None else forward.tape.nbytes,
        extra=forward.extra,
    )
    status = torch.from_numpy(np.ascontiguousarray(forward.status).reshape(batch))
    return Solution(ys=ys, ts=ts, status=status, stats=stats, steps=forward.step_times)


class _Like(NamedTuple):
    """What a tensor is to look like."""

    shape: Shape
    dtype: torch.dtype
    device: torch.device


class _Call(NamedTuple):
    """What one solve hands to its autograd node besides tensors; ``results`` takes what the node hands back."""

    engine: Backend
    plan: Plan
    request: Request
    options: Options
    batch: Shape
    like_ys: _Like
    results: list[Forward]


class _Solve(torch.autograd.Function):
    """ys of y0, ts, context (or None) and the field's parameters, as the user gave them, through a NumPy backend."""

    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: torch.Tensor | None) -> torch.Tensor:
        result = call.engine.solve(call.plan, call.request, call.options)
        call.results.append(result)
        ctx.tape = result.tape  # freed with ctx, also when backward never runs
        if result.tape is not None:
            result.tape.times = ctx.needs_input_grad[2]
        ctx.engine, ctx.batch, ctx.flat = call.engine, call.batch, result.ys.shape
        ctx.likes = [None if x is None else _Like(x.shape, x.dtype, x.device) for x in tensors]
        return _to_tensor(result.ys, call.like_ys)

    @staticmethod
    def backward(ctx: Any, grad_ys: torch.Tensor) -> tuple[Any, ...]:
        gradients = ctx.engine.vjp(ctx.tape, np.ascontiguousarray(_to_numpy(grad_ys)).reshape(ctx.flat))
        _raise_failed_adjoint(gradients, ctx.batch)
        sizes = [math.prod(like.shape) for like in ctx.likes[3:]]
        values = (gradients.y0, gradients.ts, gradients.context, *split(gradients.p, sizes))
        grads = [
            _to_tensor(value, like) if needed else None
            for value, like, needed in zip(values, ctx.likes, ctx.needs_input_grad[1:], strict=True)
        ]
        if torch.is_grad_enabled():  # create_graph: what comes out must not pass for a constant
            anchor = torch.zeros((), requires_grad=True)
            grads = [None if grad is None else _Once.apply(ctx.engine.name, grad, anchor) for grad in grads]
        return (None, *grads)


class _Once(torch.autograd.Function):
    """The identity, whose own derivative is refused: gradients of NumPy backends end here."""

    @staticmethod
    def forward(ctx: Any, backend: str, grad: torch.Tensor, anchor: torch.Tensor) -> torch.Tensor:
        ctx.backend = backend
        return grad.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        raise UnsupportedOperation(
            f'The {ctx.backend} backend gives first derivatives only. backend="torch" differentiates a solve twice; or '
            "take finite differences of its exact gradients, as hsb.sharpness does."
        )


def _to_numpy(x: torch.Tensor) -> Floats:
    """float64 values, on the CPU."""
    if x.dtype is not torch.float64:
        x = x.detach().to(torch.float64)
    return x.numpy(force=True)


def _to_vector(tensors: Sequence[torch.Tensor]) -> Floats:
    """As ``flatten``, without the graph."""
    if not tensors:
        return np.zeros(0)
    return np.concatenate([_to_numpy(x).reshape(-1) for x in tensors])


def _to_tensor(values: Floats, like: _Like) -> torch.Tensor:
    out = torch.from_numpy(values.reshape(like.shape))
    return out if like.dtype is torch.float64 and like.device.type == "cpu" else out.to(like.device, like.dtype)


def _where(batch: tuple[int, ...], flat: int) -> tuple[tuple[int, ...], str]:
    sample = tuple(int(i) for i in np.unravel_index(flat, batch)) if batch else ()
    return sample, f"sample {sample if len(sample) != 1 else sample[0]}" if batch else "the solve"


def _raise_first_failure(forward: Forward, batch: tuple[int, ...]) -> None:
    if not np.count_nonzero(forward.status):  # SUCCESS is 0
        return
    bad = np.flatnonzero(forward.status)
    status = Status(int(forward.status[bad[0]]))
    sample, name = _where(batch, int(bad[0]))
    time = float(forward.reached[bad[0]])
    others = f" ({len(bad)} of {len(forward.status)} samples failed)" if len(bad) > 1 else ""
    raise SolveFailed(
        f"{name[0].upper()}{name[1:]} {status.text} at t = {time:.6g}{others}.",
        status=status,
        sample=sample,
        time=time,
        hint=f'{status.hint} Or pass on_failure="nan" to go on without it.'.strip(),
    )


def _raise_failed_adjoint(gradients: Gradients, batch: tuple[int, ...]) -> None:
    if not np.count_nonzero(gradients.status):
        return
    bad = np.flatnonzero(gradients.status)
    status = Status(int(gradients.status[bad[0]]))
    sample, name = _where(batch, int(bad[0]))
    time = float(gradients.reached[bad[0]])
    raise SolveFailed(
        f"The backward solve (adjoint) of {name} {status.text} at t = {time:.6g}; no gradient was produced.",
        status=status,
        sample=sample,
        time=time,
        hint='Try adjoint="discrete" with a Rosenbrock method, or tighter tolerances.',
    )
