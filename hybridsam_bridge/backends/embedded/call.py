"""One solve of a batch by the embedded backend: which method for whom, the tape, and the way back."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from hybridsam_bridge.backends.base import Floats, Forward, Options, Tape
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


@dataclass
class Group:
    """The samples ``index`` (S,) of the batch that one method solved, and their accepted steps."""

    index: Tensor
    stepper: Stepper
    steps: Steps


class EmbeddedTape(Tape):
    """The accepted steps of every group; ``good`` (B,) says who succeeded, ``ys`` (B, T, n) what came out."""

    def __init__(self, groups: list[Group], good: Tensor, ys: Tensor):
        self.groups, self.good, self.ys = groups, good, ys
        self.nbytes = sum(group.steps.nbytes for group in groups) + ys.nbytes


class Call:
    """A solve and, if the options ask for an adjoint, its pullback."""

    forward: Forward
    tape: EmbeddedTape

    def __init__(self, plan: Plan, options: Options):
        self.plan, self.options = plan, options
        self.taped = options.adjoint != "none"

    def solve(self, y0: Tensor, ts: Tensor, context: Tensor, p: Tensor) -> Tensor:
        """ys (B, T, n); sets ``forward`` and, if there is an adjoint, ``tape``."""
        start = time.perf_counter()
        limit = self.options.time_limit
        self.deadline = None if limit is None else start + limit
        self.functions = Functions(self.plan, p)
        y0, context = y0.contiguous(), context.contiguous()
        everyone = torch.arange(len(y0), device=y0.device)
        method, why = self._method()
        runs = [_Run(self, method, everyone, y0, ts, context)]
        if bool(runs[0].progress.stiff.any()):
            stiff = runs[0].progress.stiff.nonzero()[:, 0]
            method, why = self._switch(len(stiff), len(y0))
            runs.append(_Run(self, STIFF, stiff, y0[stiff], ts, context[stiff]))
        ys = self._report(runs, method, why, start)
        if self.taped:
            good = torch.from_numpy(self.forward.status).to(y0.device) == int(Status.SUCCESS)
            groups = [run.group(good) for run in runs]
            self.tape = EmbeddedTape([group for group in groups if group.steps.rounds], good, ys.clone())
            self.forward.tape = self.tape
        return ys

    def _method(self) -> tuple[str, str]:
        if self.options.method != "auto":
            return self.options.method, ""
        if self.options.steps is not None:
            return STIFF, f"method: {STIFF}, the default for forced steps."
        if self.plan.memo.get("embedded stiff"):
            return STIFF, f"method: {STIFF}, since {NONSTIFF} met stiffness or very small steps in this model."
        return NONSTIFF, f"method: {NONSTIFF}, no stiffness met."

    def _switch(self, count: int, size: int) -> tuple[str, str]:
        """What to say when some samples turned out to be stiff; all of them, and later solves begin there."""
        if count == size:
            self.plan.memo["embedded stiff"] = True
            return self._method()
        return STIFF, (
            f"method: {STIFF} for {count} of {size} samples, where {NONSTIFF} met stiffness or very small steps, "
            f"{NONSTIFF} for the others."
        )

    def _report(self, runs: list[_Run], method: str, why: str, start: float) -> Tensor:
        first = runs[0]
        ys = first.record.finish()
        first.collect()
        for run in runs[1:]:
            ys[run.index] = run.record.finish()
            run.collect()
            for name, values in vars(run.counts).items():
                getattr(first.counts, name)[run.index.cpu().numpy()] = values
            if first.times is not None and run.times is not None:
                for sample, times in zip(run.index.tolist(), run.times, strict=True):
                    first.times[sample] = times
        self.forward = Forward(
            ys=ys.detach().cpu().numpy(),
            **vars(first.counts),
            seconds=time.perf_counter() - start,
            step_times=first.times,
            extra={"method": method, "why": why},
        )
        return ys

    def pull(self, grad_ys: Tensor, y0: Tensor, ts: Tensor, context: Tensor, p: Tensor) -> tuple[Tensor, ...]:
        """Cotangents of the four inputs for those of ys (B, T, n). Failed samples give zero."""
        tape = self.tape
        grad_ys = torch.where(tape.good[:, None, None], grad_ys, 0.0).contiguous()
        lam, grad_context, grad_p = torch.zeros_like(y0), torch.zeros_like(context), torch.zeros_like(p)
        for group in tape.groups:
            found = Adjoint(group.stepper, group.steps, ts, context[group.index], grad_ys[group.index]).run()
            lam[group.index], grad_context[group.index] = found.y0, found.context
            grad_p += found.p
        grad_ts = self._time_gradients(grad_ys, lam, ts, context)
        return lam + grad_ys[:, 0], grad_ts, grad_context, grad_p

    def _time_gradients(self, grad_ys: Tensor, lam: Tensor, ts: Tensor, context: Tensor) -> Tensor:
        """g_j · f(t_j, y_j) for the outputs, -λ(t_0) · f(t_0, y_0) for the start."""
        ys = torch.nan_to_num(self.tape.ys)
        size, times, n = ys.shape
        flat_t, flat_c = ts.repeat(size), context.repeat_interleave(times, 0)
        slopes = self.functions.rhs(flat_t, ys.reshape(-1, n), flat_c).view(ys.shape)
        weights = torch.cat([-lam[:, None], grad_ys[:, 1:]], 1)
        return torch.where(self.tape.good[:, None, None], weights * slopes, 0.0).sum((0, 2))

    def replayed(self, y0: Tensor, ts: Tensor, context: Tensor, p: Tensor) -> Tensor:
        """ys (B, T, n) once more, as a differentiable function of the inputs; failed samples are zero."""
        ys = torch.zeros_like(self.tape.ys)
        for group in self.tape.groups:
            index = group.index
            part = replay(self.plan, group.stepper, group.steps, y0[index], ts, context[index], p)
            ys = ys.index_copy(0, index, part)
        return ys


@dataclass
class _Counts:
    """Per sample, as ``Forward`` reports them."""

    status: np.ndarray
    reached: np.ndarray
    steps: np.ndarray
    rejected: np.ndarray
    f: np.ndarray
    jac: np.ndarray


class _Run:
    """The samples ``index`` by one method."""

    counts: _Counts
    times: list[Floats] | None = None

    def __init__(self, call: Call, method: str, index: Tensor, y0: Tensor, ts: Tensor, context: Tensor):
        tableau, options = TABLEAUS[method], call.options
        if tableau.stiff:
            _check_memory(len(y0), call.plan.n)
        self.index, self.timed = index, options.record_steps
        self.stepper = Stepper(tableau, call.functions)
        self.record = Record(tableau, y0, ts, call.taped, options.record_steps, settings().tape_memory)
        watch = options.method == "auto" and not tableau.stiff
        stops = torch.from_numpy(call.plan.stops).to(ts)
        self.progress: Progress = integrate(
            self.stepper, y0, ts, context, options, self.record, call.deadline, watch, stops
        )

    def collect(self) -> None:
        """Bring what is reported to the host."""
        progress = self.progress
        steps, rejected = (x.cpu().numpy() for x in (progress.steps, progress.rejected))
        f, jac = (cost * (steps + rejected) for cost in self.stepper.costs)
        status, reached = progress.status.cpu().numpy(), progress.reached.cpu().numpy()
        self.counts = _Counts(status, reached, steps, rejected, f, jac)
        if self.timed:
            self.times = self.record.step_times()

    def group(self, good: Tensor) -> Group:
        """The accepted steps of those who got through by this method."""
        return Group(self.index, self.stepper, self.record.steps(good[self.index] & ~self.progress.stiff))


def _check_memory(size: int, n: int) -> None:
    needed, limit = 4 * size * n * n * 8, settings().tape_memory
    if needed > limit:
        raise UnsupportedOperation(
            f"The torch backend's Rosenbrock methods keep dense Jacobians: {size} samples of {n} unknowns need "
            f'{needed / 1e9:.1f} GB, above the limit of {limit / 1e9:.1f} GB. Use backend="julia", which works with '
            'sparse or Krylov solves, method="Tsit5" if the problem is not stiff, smaller batches, or raise '
            "hsb.configure(tape_memory=...)."
        )
