"""The discrete adjoint of a batch: the exact derivative of the numbers that the forward solve computed.

One step, with cotangents λ of u_{n+1} and k̄_i of the stages (from b_i λ and from outputs within the step):

    for i = s..1:  μ_i = E⁻ᵀ k̄_i,  ū_i = J(u_i)ᵀ μ_i,  and for j < i: k̄_j += A_ij ū_i + (C_ij/h) μ_i
    λ <- λ + Σ ū_i + ∇_u Σ_i [μ_iᵀ J(u_n) k_i + h d_i μ_iᵀ f_t(u_n)],   p̄ += Σ f_p(u_i)ᵀ μ_i + ∇_p of the same sum

(explicit methods: E⁻¹ is h, and the last sum is absent). All of it but the curvature term is linear in λ with
coefficients that do not depend on λ. So it is worked out for all steps at once, for n + 1 right-hand sides
(λ = the unit vectors, and the outputs' cotangents), and the only sequential part is, a step, a product of
n x n matrices and one evaluation of the curvature. Then every step's λ is known, and the parameters' products
are a few large calls. Large states (n > _DENSE) take one step at a time with Jacobian-vector products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from hybridsam_bridge.backends.embedded.record import Steps
from hybridsam_bridge.backends.embedded.stepper import Stepper, factorise

Tensor = torch.Tensor

_DENSE = 16  # unknowns up to which a step's whole map λ -> λ is formed
_ROWS = 16384  # stages handled at once: their intermediate tensors stay near the processor


@dataclass
class Cotangents:
    """Gradients of y0 (B, n), context (B, nc) and p (P,), and the cotangent λ of the state at t0 (B, n)."""

    y0: Tensor
    context: Tensor
    p: Tensor


class Adjoint:
    """Pulls ``grad_ys`` (B, T, n) back over ``steps``."""

    def __init__(self, stepper: Stepper, steps: Steps, ts: Tensor, context: Tensor, grad_ys: Tensor):
        self.stepper, self.steps, self.ts, self.grad_ys = stepper, steps, ts, grad_ys
        self.tableau, self.functions = stepper.tableau, stepper.functions
        self.context = context
        self.n = grad_ys.shape[-1]
        used = self.tableau.used
        like: Any = {"dtype": torch.float64, "device": ts.device}
        square = [[*row, *[0.0] * (used - len(row))] for row in self.tableau.A[:used]]
        self.A = torch.tensor(square, **like)
        square = [[*row, *[0.0] * (used - len(row))] for row in self.tableau.C[:used]]
        self.C = torch.tensor(square, **like)
        # Row i: the weights of what stages i+1, ... hand back to stage i, as they lie in memory.
        pairs = torch.stack([self.A, self.C], 2) if self.tableau.stiff else self.A[:, :, None]
        self.backward_mix = [pairs[i + 1 :, i].reshape(1, -1) for i in range(used)]
        self.b = torch.tensor(self.tableau.b[:used], **like)
        self.d = torch.tensor((self.tableau.d or (0.0,) * used)[:used], **like)
        self.lam = grad_ys.new_zeros(len(steps.ranking), self.n)
        self.out = Cotangents(
            torch.zeros_like(grad_ys[:, 0]),
            torch.zeros_like(context),
            torch.zeros(self.functions.plan.n_params, **like),
        )

    def run(self) -> Cotangents:
        """All steps, the last first, in blocks of whole rounds."""
        start, r = 0, 0
        rounds = self.steps.rounds
        limit = max(1, _ROWS // self.tableau.used)
        while r < len(rounds):
            stop_round, stop = r + 1, start + rounds[r]
            while stop_round < len(rounds) and stop + rounds[stop_round] - start <= limit:
                stop += rounds[stop_round]
                stop_round += 1
            _Block(self, start, stop, rounds[r:stop_round]).run()
            start, r = stop, stop_round
        self.out.y0[self.steps.ranking] = self.lam
        return self.out


class _Block:
    """Consecutive rounds: rows start..stop of the steps."""

    def __init__(self, whole: Adjoint, start: int, stop: int, rounds: list[int]):
        self.whole, self.rounds, self.start, self.stop = whole, rounds, start, stop
        steps = whole.steps
        self.t, self.h, self.u = (x[start:stop] for x in (steps.t, steps.h, steps.u))
        self.sample = steps.sample[start:stop]
        self.c = whole.context[self.sample]
        if steps.ks is None:
            self.ks = whole.stepper.stages(self.t, self.u, self.h, self.c)[: whole.tableau.used]
        else:
            self.ks = steps.ks[:, start:stop]
        self.times, self.states = whole.stepper.stage_points(self.t, self.u, self.h, self.ks)

    def run(self) -> None:
        used, rows, n = self.states.shape
        flat = (self.times.reshape(-1), self.states.view(-1, n), self.c.repeat(used, 1))
        seeds = self._output_seeds()
        if n <= _DENSE:
            jacs = self.whole.functions.rhs_jac(*flat)[1].view(used, rows, n, n)
            mus = self._sweep_dense(jacs, *seeds)
        else:
            mus = self._sweep_rounds(*seeds)
        self._parameters(mus, flat)

    def _output_seeds(self) -> tuple[Tensor, Tensor]:
        """What the outputs within each step add to the cotangents of u_n (N, n) and of the stages (s, N, n)."""
        whole = self.whole
        rows, j = whole.steps.outputs(self.start, self.stop)
        used, _, n = self.states.shape
        base, stages = torch.zeros_like(self.u), self.states.new_zeros(used, len(self.u), n)
        if len(rows):
            theta = ((whole.ts[j] - self.t[rows]) / self.h[rows]).clamp(0, 1)
            weights = whole.tableau.interpolation(theta)[:, :used]
            grads = whole.grad_ys[self.sample[rows], j]
            base.index_add_(0, rows, grads)
            stages.index_add_(1, rows, weights.t()[:, :, None] * grads)
        return base, stages

    # ---------------------------------------------------------------- small states: all steps at once

    def _sweep_dense(self, jacs: Tensor, base: Tensor, stages: Tensor) -> Tensor:
        """Advance λ over the block; returns μ (s, N, n)."""
        whole, stiff = self.whole, self.whole.tableau.stiff
        used, rows, n = self.states.shape
        eye = torch.eye(n, dtype=base.dtype, device=base.device).expand(rows, n, n)
        columns = torch.cat([eye, base.new_zeros(rows, n, 1)], 2)
        total = torch.cat([eye, base[:, :, None]], 2)
        mus = base.new_empty(used, rows, n, n + 1)
        # What stage i hands to the ones before it: ū_i, and μ_i/h for Rosenbrock methods.
        handed = base.new_empty(used, 2 if stiff else 1, columns.numel())
        solve = self._transposed_solve(jacs)
        transposed = jacs.transpose(-1, -2)
        inverse = (1 / self.h)[:, None, None]
        for i in range(used - 1, -1, -1):
            bar = whole.b[i] * columns
            bar[:, :, n] += stages[i]
            if i + 1 < used:
                later = handed[i + 1 :].view(-1, columns.numel())
                bar += torch.mm(whole.backward_mix[i], later).view(columns.shape)
            mus[i] = mu = solve(bar)
            back = handed[i, 0].view(columns.shape)
            torch.bmm(transposed[i], mu, out=back)
            total += back
            if stiff:
                torch.mul(mu, inverse, out=handed[i, 1].view(columns.shape))
        lams = self._scan_curved(total, mus) if stiff else self._scan(total)
        return (mus @ lams[:, :, None])[..., 0]

    def _transposed_solve(self, jacs: Tensor) -> Callable[[Tensor], Tensor]:
        if not self.whole.tableau.stiff:
            return lambda x: x * self.h[:, None, None]
        lu, pivots = factorise(self.whole.tableau.gamma, self.h, jacs[0])
        return lambda x: torch.linalg.lu_solve(lu, pivots, x, adjoint=True)

    def _scan(self, total: Tensor) -> Tensor:
        """λ after every step, as (N, n + 1) with a one appended: the input of the step's linear map."""
        ones = self.u.new_ones(len(self.u), 1)
        seen, offset = [], 0
        lam = self.whole.lam
        for count in self.rounds:
            now = torch.cat([lam[:count], ones[:count]], 1)
            seen.append(now)
            lam[:count] = torch.bmm(total[offset : offset + count], now[:, :, None])[:, :, 0]
            offset += count
        return torch.cat(seen)

    def _scan_curved(self, total: Tensor, mus: Tensor) -> Tensor:
        """The same with the curvature term, through M = Σ_i μ_i k_iᵀ and v = Σ_i h d_i μ_i."""
        whole = self.whole
        rows, n = self.u.shape
        outer = torch.bmm(mus.permute(1, 2, 3, 0).reshape(rows, n * (n + 1), -1), self.ks.permute(1, 0, 2))
        outer = outer.view(rows, n, n + 1, n).transpose(2, 3).reshape(rows, n * n, n + 1)
        slope = torch.tensordot(whole.d, mus, 1) * self.h[:, None, None]
        maps = torch.cat([total, outer, slope], 1)  # (N, n + n² + n, n + 1)
        ones = self.u.new_ones(rows, 1)
        seen, offset = [], 0
        lam = whole.lam
        for count in self.rounds:
            part = slice(offset, offset + count)
            now = torch.cat([lam[:count], ones[:count]], 1)
            seen.append(now)
            mapped = torch.bmm(maps[part], now[:, :, None])[:, :, 0]
            m = mapped[:, n : n + n * n].reshape(count, n, n)
            v = mapped[:, n + n * n :].contiguous()
            curved = whole.functions.curvature(self.t[part], self.u[part], self.c[part], m, v)
            torch.add(mapped[:, :n], curved, out=lam[:count])
            offset += count
        return torch.cat(seen)

    # ---------------------------------------------------------------- large states: one round at a time

    def _sweep_rounds(self, base: Tensor, stages: Tensor) -> Tensor:
        mus = torch.empty_like(stages)
        offset = 0
        for count in self.rounds:
            part = slice(offset, offset + count)
            mus[:, part] = self._step_back(part, base[part], stages[:, part])
            offset += count
        return mus

    def _step_back(self, part: slice, base: Tensor, stages: Tensor) -> Tensor:
        """One round; advances λ and returns its μ (s, rows, n)."""
        whole, tab, fns = self.whole, self.whole.tableau, self.whole.functions
        t, u, h, c = self.t[part], self.u[part], self.h[part], self.c[part]
        lam = whole.lam[: len(u)]
        bars = whole.b[:, None, None] * lam + stages
        mus = torch.empty_like(bars)
        if tab.stiff:
            lu, pivots = factorise(tab.gamma, h, fns.rhs_jac(t, u, c)[1])
        lam += base
        for i in range(tab.used - 1, -1, -1):
            if tab.stiff:
                mu = torch.linalg.lu_solve(lu, pivots, bars[i, :, :, None], adjoint=True)[..., 0]
            else:
                mu = bars[i] * h[:, None]
            mus[i] = mu
            back = fns.state_vjp(self.times[i, part], self.states[i, part], c, mu.contiguous())
            lam += back
            if i:
                bars[:i] += whole.A[i, :i, None, None] * back
                if tab.stiff:
                    bars[:i] += whole.C[i, :i, None, None] * (mu / h[:, None])
        if tab.stiff:
            m, v = self._contraction(mus, part)
            lam += fns.curvature(t, u, c, m, v)
        return mus

    # ---------------------------------------------------------------- parameters

    def _contraction(self, mus: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        m = torch.bmm(mus.permute(1, 2, 0), self.ks[:, part].permute(1, 0, 2))
        return m, torch.tensordot(self.whole.d, mus, 1) * self.h[part, None]

    def _parameters(self, mus: Tensor, flat: tuple[Tensor, Tensor, Tensor]) -> None:
        whole, fns = self.whole, self.whole.functions
        if not fns.plan.n_params and not fns.plan.nc:
            return
        used, rows, n = self.states.shape
        gp, gc = fns.parameter_vjp(*flat, mus.reshape(-1, n))
        gc = gc.view(used, rows, -1).sum(0)
        if whole.tableau.stiff:
            more, extra = fns.parameter_curvature(self.t, self.u, self.c, *self._contraction(mus, slice(None)))
            gp, gc = gp + more, gc + extra
        whole.out.p += gp
        whole.out.context.index_add_(0, self.sample, gc)
