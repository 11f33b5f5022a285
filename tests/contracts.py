"""The contract tests that every backend's test module inherits.

A subclass sets ``backend`` and, where it differs, what follows. Tolerances are argued for where they stand.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numerics import SolveModule, directional
from problems import (
    END_POINTS,
    ROBER_GRADIENTS,
    ROBER_INTEGRAL,
    Decay,
    EndPoint,
    Explosion,
    HybridRobertson,
    Oregonator,
    Relaxation,
    Robertson,
    RobertsonIntegral,
    RunsOut,
    f64,
)

import hybridsam_bridge as hsb


class BackendContract:
    """What ``hsb.solve`` promises, on the backend of that name."""

    backend: str
    stiff_methods: tuple[str, ...] = ("auto",)
    weak_methods: tuple[str, tuple[str, ...]] = ("", ())  # a problem, and the methods that fail on it
    explicit_method: str = "Tsit5"
    adjoints: tuple[str, ...] = ("auto",)
    end_point_rtol: float = 1e-9  # with which the published end points are met to six digits
    gradient_digits: float = 6  # of ROBER's published gradients at rtol 1e-8
    forces_steps: bool = True
    lacking_method: tuple[str, str] = ("Radau", "")  # a method it has not, and the nearest that it has
    lacking_adjoint: str | None = None
    # A batch against its samples alone: sums in another order differ in the last bits, and the step sizes
    # pass that on; far below the solver's own error.
    batch_tolerance: float = 1e-10

    def solve(self, field, y0, ts, **options):
        return hsb.solve(field, y0, ts, backend=self.backend, **options)

    # ------------------------------------------------------------------ accuracy

    @pytest.mark.parametrize("case", END_POINTS, ids=lambda case: case.name)
    def test_published_end_points(self, case: EndPoint):
        # Six digits: the global error of a stiff solver is at most some hundred times its rtol.
        atol = self.end_point_rtol / 1e-9 * torch.as_tensor(case.atol)
        weak = self.weak_methods[1] if case.name == self.weak_methods[0] else ()
        for method in (m for m in self.stiff_methods if m not in weak):
            options = {"method": method, "rtol": self.end_point_rtol, "atol": atol}
            with torch.no_grad():
                sol = self.solve(case.make(), case.y0, f64(0, case.t_end), **options)
            error = (sol.ys[-1] - case.y_end).abs() / case.y_end.abs()
            assert error.max() < 1e-6, (method, error)

    @pytest.mark.parametrize("t_end", list(ROBER_GRADIENTS))
    def test_published_rober_gradients(self, t_end):
        for adjoint in self.adjoints:
            field, atol = Robertson(), f64(1e-11, 1e-15, 1e-11)
            sol = self.solve(field, f64(1, 0, 0), f64(0, t_end), rtol=1e-8, atol=atol, adjoint=adjoint)
            sol.ys[-1, 2].backward()
            reference = ROBER_GRADIENTS[t_end]
            error = ((field.k.grad - reference) / reference).abs().max()
            assert error < 10**-self.gradient_digits, (adjoint, error)

    def test_published_rober_integral(self):
        value, dk, dy0 = ROBER_INTEGRAL
        for adjoint in self.adjoints:
            field, y0 = RobertsonIntegral(), f64(1, 0, 0, 0).requires_grad_()
            sol = self.solve(field, y0, f64(0, 50), rtol=1e-8, atol=f64(1e-11, 1e-15, 1e-11, 1e-9), adjoint=adjoint)
            sol.ys[-1, 3].backward()
            tolerance = 10**-self.gradient_digits
            assert abs(sol.ys[-1, 3].item() / value - 1) < tolerance
            torch.testing.assert_close(field.k.grad, dk, rtol=tolerance, atol=0)
            # dG/dy0 is published to nine digits.
            torch.testing.assert_close(y0.grad[:3], dy0, rtol=max(tolerance, 1e-8), atol=0)
            assert y0.grad[3].item() == pytest.approx(1, rel=1e-9)

    @pytest.mark.parametrize("explicit", [False, True])
    def test_closed_form_value_and_gradients(self, explicit):
        """y(t) = y0 exp(-c (t - t0)): every gradient is known, those of the times too."""
        y0, c = f64(1.5, 0.5)[:, None].requires_grad_(), f64(0.7, 2.0)[:, None].requires_grad_()
        ts = f64(0.5, 0.9, 1.0, 2.25).requires_grad_()
        weights = torch.linspace(1, 2, 8, dtype=torch.float64).reshape(2, 4, 1)
        method = self.explicit_method if explicit else "auto"
        for adjoint in ("auto",) if explicit else self.adjoints:
            sol = self.solve(Decay(), y0, ts, context=c, method=method, rtol=1e-9, atol=1e-12, adjoint=adjoint)
            exact = y0[:, None] * torch.exp(-c[:, None] * (ts - ts[0])[None, :, None])
            got = torch.autograd.grad((sol.ys * weights).sum(), (y0, c, ts))
            wanted = torch.autograd.grad((exact * weights).sum(), (y0, c, ts))
            # 1e-6: rtol 1e-9 a step and an interpolant of lower order at the inner outputs and their slopes.
            torch.testing.assert_close(sol.ys, exact, rtol=1e-6, atol=0)
            for a, b in zip(got, wanted, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)

    def test_gradcheck(self):
        """Central differences of 1e-4 at rtol 1e-10: truncation 1e-8, step-size noise below 1e-6."""
        field = Relaxation()
        y0 = f64(0.2, 0.9).requires_grad_()
        ts = f64(0.0, 0.11, 0.3).requires_grad_()
        context = f64(1.0, 0.4).requires_grad_()
        for adjoint in self.adjoints:

            def run(y0, ts, context, rate, adjoint=adjoint):
                options = {"rtol": 1e-10, "atol": 1e-12, "adjoint": adjoint}
                solver = SolveModule(self, field, options)
                return torch.func.functional_call(solver, {"field.rate": rate}, (y0, ts, context))

            rate = f64(20.0).requires_grad_()
            assert torch.autograd.gradcheck(run, (y0, ts, context, rate), eps=1e-4, rtol=1e-4, atol=1e-5)

    def test_gradients_of_frozen_steps(self):
        """The discrete adjoint differentiates the numbers computed, so it holds at a loose tolerance: against
        central differences of fourth order with the same steps forced, 1e-7 relative at rtol 1e-3."""
        if not self.forces_steps:
            pytest.skip("this backend has no forced steps and no discrete adjoint")
        y0, context = f64(0.2, 0.9), f64(1.0, 0.4)
        ts = f64(0.0, 0.07, 0.33, 0.6, 1.5)
        weights = torch.linspace(1, -2, 10, dtype=torch.float64).reshape(5, 2)
        for method in ("Rodas5P", "Rodas4", "Rosenbrock23"):
            options = {"method": method, "rtol": 1e-3, "atol": 1e-5, "adjoint": "discrete"}
            steps = self.solve(Relaxation(), y0, ts, context=context, record_steps=True, **options).steps[0]
            assert len(steps) > 4
            assert not set(steps[1:-1]) & set(ts.tolist()), "outputs fall between steps"
            field = Relaxation()
            leaves = [y0.clone().requires_grad_(), context.clone().requires_grad_(), *field.parameters()]

            def loss(field=field, leaves=leaves, steps=steps, options=options):
                sol = self.solve(field, leaves[0], ts, context=leaves[1], steps=steps, **options)
                return (sol.ys * weights).sum()

            grads = torch.autograd.grad(loss(), leaves)
            for leaf, grad in zip(leaves, grads, strict=True):
                direction = torch.randn(leaf.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
                numeric = directional(loss, leaf, direction * leaf.detach().abs().max())
                exact = (grad * direction * leaf.detach().abs().max()).sum().item()
                assert exact == pytest.approx(numeric, rel=1e-7, abs=1e-9), (method, leaf.shape)

    # ------------------------------------------------------------------ shapes and types

    def test_batch_equals_its_samples(self):
        field = HybridRobertson(width=8)
        y0 = f64(1, 0, 0).repeat(2, 3, 1)
        y0[..., 1] = torch.linspace(0, 2e-5, 6, dtype=torch.float64).reshape(2, 3)
        ts = torch.logspace(-3, 2, 6, dtype=torch.float64)
        options = {"rtol": 1e-6, "atol": 1e-9}
        leaf = y0.clone().requires_grad_()
        together = self.solve(field, leaf, ts, **options)
        assert together.ys.shape == (2, 3, 6, 3)
        assert together.status.shape == (2, 3)
        assert together.stats.steps.shape == (2, 3)
        (together.ys[..., 1] * 1e4 + together.ys[..., 2]).sum().backward()
        total = [p.grad.clone() for p in field.parameters()]
        field.zero_grad()
        for index in np.ndindex(2, 3):
            single = y0[index].clone().requires_grad_()
            alone = self.solve(field, single, ts, **options)
            assert alone.ys.shape == (6, 3)
            (alone.ys[..., 1] * 1e4 + alone.ys[..., 2]).sum().backward()
            torch.testing.assert_close(together.ys[index], alone.ys, rtol=self.batch_tolerance, atol=1e-18)
            scale = single.grad.abs().max().item()
            tolerance = self.batch_tolerance
            torch.testing.assert_close(leaf.grad[index], single.grad, rtol=tolerance, atol=tolerance * scale)
        for a, p in zip(total, field.parameters(), strict=True):
            scale = p.grad.abs().max().item()
            torch.testing.assert_close(a, p.grad, rtol=10 * tolerance, atol=10 * tolerance * scale)

    def test_float32_in_float32_out(self):
        field = Explosion().float()
        y0 = torch.tensor([[0.1], [0.2]], requires_grad=True)
        sol = self.solve(field, y0, torch.tensor([0.0, 1.0, 2.0]), rtol=1e-5, atol=1e-7)
        assert sol.ys.dtype == torch.float32
        sol.ys.sum().backward()
        assert y0.grad.dtype == torch.float32
        assert field.a.grad.dtype == torch.float32
        exact = 1 / (1 / y0 - 2)
        torch.testing.assert_close(sol.ys[:, -1], exact, rtol=1e-4, atol=0)  # ten times rtol

    @pytest.mark.parametrize("shape", [(), (2, 3)])
    def test_state_shapes(self, shape):
        class Linear(hsb.VectorField):
            state_shape = shape

            def forward(self, t, y, context=None):
                assert y.shape == shape
                return -y

        y0 = torch.rand(4, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        sol = self.solve(Linear(), y0, f64(0, 1), rtol=1e-8, atol=1e-10)
        assert sol.ys.shape == (4, 2, *shape)
        torch.testing.assert_close(sol.ys[:, 1], y0 * math.exp(-1), rtol=1e-6, atol=0)

    def test_arguments_of_any_layout(self):
        """Transposed and expanded tensors are the numbers they show."""
        y0, c = f64(1.0, 2.0).expand(3, 2).t()[:, :1], f64(0.5).expand(2, 1)
        sol = self.solve(Decay(), y0, f64(0, 1), context=c)
        torch.testing.assert_close(sol.ys[:, 1], y0 * math.exp(-0.5), rtol=1e-5, atol=0)

    def test_first_output_is_the_initial_state(self):
        y0 = f64(0.3).requires_grad_()
        sol = self.solve(Explosion(), y0, f64(0, 1))
        assert sol.ys[0].item() == 0.3
        assert torch.autograd.grad(sol.ys[0].sum(), y0)[0].item() == 1

    # ------------------------------------------------------------------ bookkeeping

    def test_stats(self):
        sol = self.solve(Robertson(), f64(1, 0, 0).repeat(2, 1), f64(0, 40), record_steps=True)
        stats = sol.stats
        assert stats.backend == self.backend
        assert stats.method in hsb.methods.METHODS
        assert stats.adjoint in ("discrete", "gauss", "forward")
        assert "method" in stats.why
        assert (stats.steps > 5).all()
        assert (stats.f >= stats.steps).all()
        assert (stats.jac > 0).all()
        assert stats.seconds > 0
        assert stats.tape_bytes > 0
        assert bool(sol.success.all())
        for count, steps in zip(stats.steps, sol.steps, strict=True):
            assert len(steps) == count + 1
            assert (steps[0], steps[-1]) == (0, 40)
            assert (np.diff(steps) > 0).all()

    def test_no_grad_keeps_no_tape(self):
        with torch.no_grad():
            sol = self.solve(Robertson(), f64(1, 0, 0), f64(0, 40))
        assert not sol.ys.requires_grad
        assert sol.stats.adjoint == "none"
        assert sol.stats.tape_bytes == 0

    def test_inference_mode(self):
        with torch.inference_mode():
            sol = self.solve(Robertson(), f64(1, 0, 0), f64(0, 40))
        assert sol.ys[-1, 0].item() == pytest.approx(0.71583, abs=1e-4)
        assert sol.stats.tape_bytes == 0

    def test_backward_twice(self):
        y0 = f64(0.3).requires_grad_()
        end = self.solve(Explosion(), y0, f64(0, 1)).ys[-1].sum()
        first = torch.autograd.grad(end, y0, retain_graph=True)[0]
        assert torch.equal(first, torch.autograd.grad(end, y0)[0])

    def test_new_weights_count(self):
        """What is cached for a field must not hold its weights."""
        field = Explosion()
        ends = []
        for a in (1.0, 0.5, 1.0):
            field.a.data.fill_(a)
            ends.append(self.solve(field, f64(0.5), f64(0, 1), rtol=1e-9, atol=1e-12).ys[-1].item())
        assert ends[0] == ends[2] == pytest.approx(1.0, rel=1e-6)
        assert ends[1] == pytest.approx(1 / 1.5, rel=1e-6)

    # ------------------------------------------------------------------ failures

    def test_failed_samples_become_nan(self):
        field, y0 = Explosion(), f64(0.1, 1.0, 0.2)[:, None].requires_grad_()
        ts = f64(0, 0.5, 2.0)
        sol = self.solve(field, y0, ts, on_failure="nan")
        assert sol.success.tolist() == [True, False, True]
        assert sol.ys[1, 1].item() == pytest.approx(2.0, rel=1e-4)
        assert sol.ys[1, 2].isnan().all()
        torch.nan_to_num(sol.ys[:, 2]).sum().backward()
        good = f64(0.1, 0.2)[:, None].requires_grad_()
        other = Explosion()
        self.solve(other, good, ts).ys[:, 2].sum().backward()
        assert y0.grad[1].item() == 0
        torch.testing.assert_close(y0.grad[[0, 2]], good.grad, rtol=1e-9, atol=0)
        torch.testing.assert_close(field.a.grad, other.a.grad, rtol=1e-9, atol=0)

    def test_solve_failed_says_what_and_where(self):
        y0 = f64(0.1, 0.2, 0.25, 1.0).reshape(2, 2, 1)
        with pytest.raises(hsb.SolveFailed) as info:
            self.solve(Explosion(), y0, f64(0, 2))
        error = info.value
        assert error.status in (hsb.Status.STEP_TOO_SMALL, hsb.Status.NON_FINITE, hsb.Status.NONLINEAR_SOLVER)
        assert error.sample == (1, 1)
        assert error.time == pytest.approx(1.0, abs=0.05)
        assert error.hint
        assert "(1, 1)" in str(error)

    @pytest.mark.parametrize("explicit", [False, True])
    def test_undefined_right_hand_side(self, explicit):
        method = self.explicit_method if explicit else "auto"
        with pytest.raises(hsb.SolveFailed) as info:
            self.solve(RunsOut(), f64(0.0), f64(0, 2), method=method)
        assert info.value.status in (hsb.Status.NON_FINITE, hsb.Status.STEP_TOO_SMALL)
        assert 0.5 < info.value.time <= 1.0

    def test_undefined_from_the_start(self):
        with pytest.raises(hsb.SolveFailed) as info:
            self.solve(RunsOut(), f64(0.0), f64(1.5, 2))
        assert info.value.status == hsb.Status.NON_FINITE
        assert info.value.time == 1.5

    def test_max_steps(self):
        with pytest.raises(hsb.SolveFailed, match="max_steps") as info:
            self.solve(Robertson(), f64(1, 0, 0), f64(0, 40), max_steps=5)
        assert info.value.status == hsb.Status.MAX_STEPS
        assert 0 < info.value.time < 40

    def test_time_limit(self):
        field = Oregonator()
        self.solve(field, f64(1, 2, 3), f64(0, 1))  # compiled or traced before the clock runs
        with pytest.raises(hsb.SolveFailed) as info:
            self.solve(field, f64(1, 2, 3), f64(0, 1e9), rtol=1e-9, max_steps=10**9, time_limit=0.5)
        assert info.value.status == hsb.Status.TIME_LIMIT

    def test_methods_it_lacks(self):
        name, nearest = self.lacking_method
        with pytest.raises(hsb.UnsupportedOperation, match=rf"nearest it has is '{nearest}'"):
            self.solve(Robertson(), f64(1, 0, 0), f64(0, 40), method=name)

    def test_adjoints_it_lacks(self):
        if self.lacking_adjoint is None:
            pytest.skip("it has all of them")
        with pytest.raises(hsb.UnsupportedOperation, match=self.lacking_adjoint):
            self.solve(Robertson(), f64(1, 0, 0), f64(0, 40), adjoint=self.lacking_adjoint)

    def test_forced_steps_refused(self):
        if self.forces_steps:
            pytest.skip("it forces steps")
        with pytest.raises(hsb.UnsupportedOperation, match="steps"):
            self.solve(Robertson(), f64(1, 0, 0), f64(0, 40), steps=[0, 1, 40])
