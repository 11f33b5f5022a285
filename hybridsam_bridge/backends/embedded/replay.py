"""The recorded steps once more in plain differentiable torch, for derivatives of derivatives."""

from __future__ import annotations

import torch

from hybridsam_bridge.backends.embedded.functions import batched_rhs, batched_rhs_jac
from hybridsam_bridge.backends.embedded.record import Steps
from hybridsam_bridge.backends.embedded.stepper import Stepper
from hybridsam_bridge.backends.embedded.tableaus import Tableau
from hybridsam_bridge.fields.derivatives import split_all
from hybridsam_bridge.fields.plan import Plan

Tensor = torch.Tensor


def replay(plan: Plan, stepper: Stepper, steps: Steps, y0: Tensor, ts: Tensor, context: Tensor, p: Tensor) -> Tensor:
    """ys (B, T, n) of the same steps, connected to y0, ts, context and p; failed samples give zeros."""
    return _Replay(plan, stepper, steps, ts, context, p).run(y0)


class _Replay:
    def __init__(self, plan: Plan, stepper: Stepper, steps: Steps, ts: Tensor, context: Tensor, p: Tensor):
        self.tableau, self.steps = stepper.tableau, steps
        self.ts, self.context = ts, context
        self.params = split_all(plan, p)
        self.timed = stepper.functions.timed
        self.rhs = batched_rhs(plan)
        self.rhs_jac = batched_rhs_jac(plan, self.timed)

    def run(self, y0: Tensor) -> Tensor:
        steps, start = self.steps, self.ts[0].detach()
        begin = self.ts[0].expand(len(y0))
        u = self._shifted(y0, begin, start - begin, self.context)
        u = u[steps.ranking]
        rows, samples, outputs = [], [], []
        offset = len(steps.t)
        for count in reversed(steps.rounds):
            part = slice(offset - count, offset)
            t, h, sample = steps.t[part], steps.h[part], steps.sample[part]
            c = self.context[sample]
            ks = stages(self.tableau, self, t, u[:count], h, c)
            row, j = steps.outputs(part.start, part.stop)
            if len(row):
                rows.append(self._output(u[:count], ks, t, h, row, j, c))
                samples.append(sample[row])
                outputs.append(j)
            new = u[:count] + _combine(self.tableau.b, ks)
            u = torch.cat([new, u[count:]])
            offset -= count
        ys = torch.zeros(len(y0), len(self.ts), y0.shape[1], dtype=y0.dtype, device=y0.device)
        first = torch.zeros_like(ys[:, 0])
        first = first.index_copy(0, steps.ranking, y0[steps.ranking])
        ys = torch.cat([first[:, None], ys[:, 1:]], 1)
        if not rows:
            return ys
        return ys.index_put((torch.cat(samples), torch.cat(outputs)), torch.cat(rows))

    def _output(self, u: Tensor, ks: list[Tensor], t: Tensor, h: Tensor, row: Tensor, j: Tensor, c: Tensor) -> Tensor:
        theta = ((self.ts.detach()[j] - t[row]) / h[row]).clamp(0, 1)
        weights = self.tableau.interpolation(theta)
        y = u[row]
        for i, k in enumerate(ks):
            y = y + weights[:, i, None] * k[row]
        times = self.ts.detach()[j]
        return self._shifted(y, times, self.ts[j] - times, c[row])

    def _shifted(self, y: Tensor, t: Tensor, by: Tensor, c: Tensor) -> Tensor:
        """The solution through (t, y) a time ``by`` later to second order, where ``by`` is zero but carries the
        derivative for the times."""
        if not self.ts.requires_grad:
            return y
        start = (t, y)
        tangent = (torch.ones_like(t), self.rhs(t, y, c, self.params))
        slope, bend = torch.func.jvp(lambda t, y: self.rhs(t, y, c, self.params), start, tangent)[:2]
        return y + by[:, None] * slope + 0.5 * (by**2)[:, None] * bend


def stages(tab: Tableau, model: _Replay, t: Tensor, u: Tensor, h: Tensor, c: Tensor) -> list[Tensor]:
    """The stages of one step as differentiable tensors, those that the solution depends on."""
    ks: list[Tensor] = []
    step = h[:, None]
    if tab.stiff:
        f, jac, dt = model.rhs_jac(t, u, c, model.params)
        eye = torch.eye(u.shape[1], dtype=u.dtype, device=u.device)
        lu, pivots = torch.linalg.lu_factor(eye / (tab.gamma * h)[:, None, None] - jac)
    for i in range(tab.used):
        if i or not tab.stiff:
            f = model.rhs(t + tab.c[i] * h, u + _combine(tab.A[i], ks) if i else u, c, model.params)
        if not tab.stiff:
            ks.append(step * f)
            continue
        right = f + _combine(tab.C[i], ks) / step if i else f
        if dt is not None and tab.d[i]:
            right = right + tab.d[i] * step * dt
        ks.append(torch.linalg.lu_solve(lu, pivots, right[:, :, None])[:, :, 0])
    return ks


def _combine(weights: tuple[float, ...], ks: list[Tensor]) -> Tensor:
    total = torch.zeros_like(ks[0])
    for weight, k in zip(weights, ks, strict=False):
        if weight:
            total = total + weight * k
    return total
