"""The forward solve of a batch: adaptive or forced steps, every sample with its own."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from hybridsam_bridge.backends.base import Options
from hybridsam_bridge.backends.embedded.control import Controller, error_norm, initial_step
from hybridsam_bridge.backends.embedded.record import Record
from hybridsam_bridge.backends.embedded.stepper import Stepper
from hybridsam_bridge.problem import Status

Tensor = torch.Tensor

_STIFF_LIMIT = 3.25  # h |λ| beyond which Tsit5 is held by stability, not by accuracy (Hairer and Wanner IV.2)
_STIFF_STEPS = 15  # so many in a row, and the problem is called stiff
_TRIAL = 50  # attempts between looks at how many steps are left; beyond _TOO_MANY a stiff method is worth trying
_TOO_MANY = 1000


@dataclass
class Progress:
    """Where every sample of the batch stands; tensors (B,)."""

    status: Tensor
    reached: Tensor
    steps: Tensor
    rejected: Tensor
    stiff: Tensor  # an explicit method left the sample, since an implicit one seems better
    attempts: int = 0


class _Rows:
    """The samples still running, one row each."""

    def __init__(self, sample: Tensor, t: Tensor, u: Tensor, c: Tensor, h: Tensor):
        self.sample, self.t, self.u, self.c, self.h = sample, t, u, c, h
        self.error = torch.full_like(t, 1e-4)
        self.count = torch.zeros_like(sample)
        self.output = torch.ones_like(sample)  # index of the next output time
        self.stiff = torch.zeros_like(sample)
        self.finite = torch.ones_like(sample, dtype=torch.bool)  # the last error estimate was finite

    def keep(self, index: Tensor) -> None:
        for name, value in vars(self).items():
            setattr(self, name, value[index])


def integrate(
    stepper: Stepper,
    y0: Tensor,
    ts: Tensor,
    context: Tensor,
    options: Options,
    record: Record,
    deadline: float | None,
    watch: bool,
    stops: Tensor,
) -> Progress:
    """Step every sample of y0 (B, n) from ts[0] to ts[-1], writing accepted steps to ``record``.

    Steps end at ``stops`` (K,), sorted times at which f may jump.

    ``deadline`` is on the clock of ``time.perf_counter``. With ``watch`` an explicit method leaves a sample,
    and marks it in ``Progress.stiff``, when stability and not accuracy limits its steps, or very many are left.
    """
    size, device = len(y0), y0.device
    progress = Progress(
        status=torch.full((size,), int(Status.NOT_RUN), device=device),
        reached=ts[0].expand(size).clone(),
        steps=torch.zeros(size, dtype=torch.int64, device=device),
        rejected=torch.zeros(size, dtype=torch.int64, device=device),
        stiff=torch.zeros(size, dtype=torch.bool, device=device),
    )
    if options.steps is not None:
        _forced(stepper, y0, ts, context, options, record, progress, stops)
    else:
        _Adaptive(stepper, ts, options, record, progress, deadline, watch, stops).run(y0, context)
    return progress


def _before(end: Tensor, h: Tensor, stops: Tensor) -> Tensor:
    """The step ``h`` to ``end``, a hair shorter at a stop, so that its last stage sees f from the left."""
    if not len(stops):
        return h
    return torch.where(torch.isin(end, stops), h - 4 * torch.finfo(end.dtype).eps * end.abs(), h)


class _Adaptive:
    def __init__(
        self,
        stepper: Stepper,
        ts: Tensor,
        options: Options,
        record: Record,
        progress: Progress,
        deadline: float | None,
        watch: bool,
        stops: Tensor,
    ):
        self.stepper, self.ts, self.options, self.record, self.progress = stepper, ts, options, record, progress
        self.controller = Controller(stepper.tableau)
        self.atol = torch.from_numpy(options.atol).to(ts.device)
        self.end = float(ts[-1])
        self.stops = stops
        self.goals = torch.cat([stops[(stops > ts[0]) & (stops < ts[-1])], ts[-1:]])
        self.deadline, self.watch = deadline, watch

    def run(self, y0: Tensor, context: Tensor) -> None:
        size = len(y0)
        t = self.ts[:1].expand(size).contiguous()
        h, f = initial_step(
            self.stepper.functions,
            self.stepper.tableau,
            t,
            y0,
            context,
            self.end - float(self.ts[0]),
            self.options.rtol,
            self.atol,
        )
        rows = _Rows(torch.arange(size, device=y0.device), t, y0, context, h)
        sound = torch.isfinite(f).all(1)
        if not bool(sound.all()):
            self._stop(rows, ~sound, Status.NON_FINITE)
        while len(rows.sample):
            if self.deadline is not None and time.perf_counter() > self.deadline:
                self._stop(rows, torch.ones_like(rows.sample, dtype=torch.bool), Status.TIME_LIMIT)
                return
            self._advance(rows)

    def _advance(self, rows: _Rows) -> None:
        options, stepper = self.options, self.stepper
        self.progress.attempts += 1
        goal = self.goals[torch.searchsorted(self.goals[:-1], rows.t, right=True)]
        last = rows.t + rows.h >= goal - 1e-12 * rows.h  # a sliver is not left for a step of its own
        arrived = torch.where(last, goal, rows.t + rows.h)
        h = torch.where(last, _before(goal, goal - rows.t, self.stops), rows.h)
        new, estimate, ks = stepper.attempt(rows.t, rows.u, h, rows.c)
        error = error_norm(estimate, rows.u, new, options.rtol, self.atol)
        accept = error <= 1
        if self.watch:
            self._watch(rows, h, new, ks, accept)
        shorter, smaller = self.controller.factors(error, rows.error)
        outputs = torch.searchsorted(self.ts, arrived, right=True)
        if bool(accept.all()):
            self.record.add(rows.sample, rows.t, h, arrived, rows.u, ks, rows.output, outputs)
            rows.t, rows.u, rows.output, rows.error = arrived, new, outputs, self.controller.remember(error)
            rows.h = torch.where(last, torch.maximum(h / shorter, rows.h), h / shorter)
        else:
            index = accept.nonzero()[:, 0]
            if len(index):
                sample, t, step, end, u = (x[index] for x in (rows.sample, rows.t, h, arrived, rows.u))
                self.record.add(sample, t, step, end, u, ks[:, index], rows.output[index], outputs[index])
            rows.t = torch.where(accept, arrived, rows.t)
            rows.u = torch.where(accept[:, None], new, rows.u)
            rows.output = torch.where(accept, outputs, rows.output)
            rows.error = torch.where(accept, self.controller.remember(error), rows.error)
            following = h / torch.where(accept, shorter, smaller)
            rows.h = torch.where(accept & last, torch.maximum(following, rows.h), following)
            self.progress.rejected[rows.sample] += (~accept).long()
            rows.finite = torch.isfinite(error)
        rows.count += 1
        self._retire(rows, accept & (arrived >= self.end))
        if self.watch:
            self._dismiss_stiff(rows)

    def _watch(self, rows: _Rows, h: Tensor, new: Tensor, ks: Tensor, accept: Tensor) -> None:
        """Hairer and Wanner's test: |k_7 - k_6| / |u_7 - u_6| estimates h |λ|."""
        tab = self.stepper.tableau
        sixth = rows.u + torch.mm(self.stepper._mix[5], ks[:5].view(5, -1)).view(rows.u.shape)
        scale = 1 / (self.atol + self.options.rtol * new.abs())
        slope = ((ks[tab.stages - 1] - ks[tab.stages - 2]) * scale).square().sum(1)
        gap = ((new - sixth) * scale).square().sum(1)
        stiff = accept & (slope > _STIFF_LIMIT**2 * gap)
        rows.stiff = torch.where(stiff, rows.stiff + 1, torch.where(accept, 0, rows.stiff))

    def _dismiss_stiff(self, rows: _Rows) -> None:
        """Leave the rows to an implicit method that stability holds back or that have very many steps to go."""
        held = rows.stiff >= _STIFF_STEPS
        if self.progress.attempts % _TRIAL == 0:
            held = held | (self.end - rows.t > _TOO_MANY * rows.h)
        if bool(held.any()):
            self.progress.stiff[rows.sample[held]] = True
            rows.keep((~held).nonzero()[:, 0])

    def _retire(self, rows: _Rows, done: Tensor) -> None:
        """Take out of the batch who arrived or failed."""
        tiny = rows.h <= 16 * torch.finfo(rows.t.dtype).eps * rows.t.abs()
        stuck = (tiny | ~torch.isfinite(rows.h) | (rows.h < torch.finfo(rows.t.dtype).tiny)) & ~done
        spent = (rows.count >= self.options.max_steps) & ~done
        if not bool((done | stuck | spent).any()):
            return
        if bool(done.any()):
            self._settle(rows, done, Status.SUCCESS)
        bad = stuck & ~rows.finite
        if bool(bad.any()):
            self._settle(rows, bad, Status.NON_FINITE)
        self._settle(rows, stuck & rows.finite, Status.STEP_TOO_SMALL)
        self._settle(rows, spent & ~stuck, Status.MAX_STEPS)
        rows.keep((~(done | stuck | spent)).nonzero()[:, 0])

    def _stop(self, rows: _Rows, which: Tensor, status: Status) -> None:
        self._settle(rows, which, status)
        rows.keep((~which).nonzero()[:, 0])

    def _settle(self, rows: _Rows, which: Tensor, status: Status) -> None:
        sample = rows.sample[which]
        self.progress.status[sample] = int(status)
        self.progress.reached[sample] = rows.t[which]
        self.progress.steps[sample] = rows.count[which] - self.progress.rejected[sample]


def _forced(
    stepper: Stepper,
    y0: Tensor,
    ts: Tensor,
    context: Tensor,
    options: Options,
    record: Record,
    progress: Progress,
    stops: Tensor,
) -> None:
    """The steps that the caller gave, sample by sample, no error control."""
    assert options.steps is not None
    counts = np.array([len(times) - 1 for times in options.steps])
    grid = np.full((len(counts), counts.max() + 1), np.inf)
    for row, given in zip(grid, options.steps, strict=True):
        row[: len(given)] = given
    times = torch.from_numpy(grid).to(y0.device)
    left = torch.from_numpy(counts).to(y0.device)
    u, output = y0, torch.ones_like(left)
    alive = torch.ones_like(left, dtype=torch.bool)
    for k in range(int(counts.max())):
        index = ((left > k) & alive).nonzero()[:, 0]
        if not len(index):
            break
        t, end = times[index, k], times[index, k + 1].contiguous()
        h = _before(end, end - t, stops)
        new, _, ks = stepper.attempt(t, u[index], h, context[index])
        progress.attempts += 1
        outputs = torch.searchsorted(ts, end, right=True)
        record.add(index, t, h, end, u[index], ks, output[index], outputs)
        sound = torch.isfinite(new).all(1)
        u = u.index_copy(0, index, new)
        output[index] = outputs
        progress.steps[index] += sound.long()
        progress.reached[index] = torch.where(sound, end, t)
        alive[index] = sound
    progress.status[:] = torch.where(alive, int(Status.SUCCESS), int(Status.NON_FINITE))
