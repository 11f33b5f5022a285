"""Jumps of inputs: steps end there, and values on both sides are the right ones."""

from __future__ import annotations

import math

import pytest
import torch
from problems import f64

import hybridsam_bridge as hsb
from hybridsam_bridge.errors import InvalidInput

julia = pytest.mark.julia
KNOTS = f64(0.0, 0.31, 0.9, 1.7, 2.0)
INPUT = f64(1.0, -2.0, 3.0, 0.5, 9.0)


class Tank(hsb.VectorField):
    """y' = input(t) - k y, an input that jumps."""

    state_shape = (1,)

    def __init__(self):
        super().__init__()
        self.signal = hsb.SampledSignal(KNOTS, "previous")
        self.k = torch.nn.Parameter(f64(1.5))

    def forward(self, t, y, context=None):
        return self.signal(t, context)[None] - self.k * y


def exact(t, y, values, k=1.5):
    """From knot to knot in closed form."""
    for start, end, u in zip(KNOTS, KNOTS[1:], values, strict=False):
        if start >= t:
            break
        h = min(t, end.item()) - start.item()
        y = u / k + (y - u / k) * math.exp(-k * h)
    return y


SOLVERS = [
    *(("torch", method) for method in ("Rodas5P", "Rosenbrock23", "Tsit5")),
    *(
        pytest.param("julia", method, marks=julia)
        for method in ("Rodas5P", "Rodas4", "Rosenbrock23", "Tsit5", "KenCarp4", "FBDF")
    ),
]


@pytest.mark.parametrize(("backend", "method"), SOLVERS)
def test_solution_in_closed_form(backend, method):
    """A hundred times the tolerance, which leaves room for interpolants of low order between steps; at outputs on jumps
    too. A step across a jump would be off by percents."""
    ts = f64(0, 0.2, 0.31, 0.5, 1.7, 1.99)
    sol = hsb.solve(Tank(), f64(2.0), ts, context=INPUT, method=method, rtol=1e-7, atol=1e-9, backend=backend)
    expected = [exact(t.item(), 2.0, INPUT.tolist()) for t in ts]
    torch.testing.assert_close(sol.ys[:, 0], f64(*expected), rtol=1e-5, atol=1e-6)


BACKENDS = ["torch", pytest.param("julia", marks=julia)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_steps_are_wasted_at_jumps(backend):
    """Without stops the error control finds each of three jumps by rejected steps, some ten a jump."""
    sol = hsb.solve(Tank(), f64(2.0), f64(0, 1.99), context=INPUT, method="Rodas5P", backend=backend, record_steps=True)
    assert int(sol.stats.rejected) <= 4
    assert set(KNOTS[1:4].tolist()) <= set(sol.steps[0].tolist())


REVERSIBLE = [
    ("torch", "Rodas5P", "discrete"),
    ("torch", "Tsit5", "discrete"),
    pytest.param("julia", "Rodas5P", "discrete", marks=julia),
    pytest.param("julia", "Tsit5", "discrete", marks=julia),
    pytest.param("julia", "KenCarp4", "discrete", marks=julia),
    pytest.param("julia", "Rodas5P", "gauss", marks=julia),
]


@pytest.mark.parametrize(("backend", "method", "adjoint"), REVERSIBLE)
def test_gradients_in_closed_form(backend, method, adjoint):
    """For the start, the rate and the input's values; from differences of the closed form."""
    field, y0, values = Tank(), f64(2.0).requires_grad_(), INPUT.clone().requires_grad_()
    ts = f64(0, 0.5, 1.7, 1.99)
    sol = hsb.solve(
        field, y0, ts, context=values, method=method, adjoint=adjoint, rtol=1e-8, atol=1e-10, backend=backend
    )
    grads = torch.autograd.grad(sol.ys[1:].sum(), [y0, field.k, values])

    def loss(y=2.0, k=1.5, values=None):
        values = INPUT.tolist() if values is None else values
        return sum(exact(t.item(), y, values, k) for t in ts[1:])

    def slope(f, h=1e-5):
        return (f(h) - f(-h)) / (2 * h)

    expected = [slope(lambda h: loss(y=2.0 + h)), slope(lambda h: loss(k=1.5 + h))]
    for i in range(5):
        expected.append(slope(lambda h, i=i: loss(values=[u + h * (i == j) for j, u in enumerate(INPUT.tolist())])))
    # The solve's own error at rtol 1e-8, and 1e-10 of the differences.
    torch.testing.assert_close(torch.cat([g.reshape(-1) for g in grads]), f64(*expected), rtol=1e-6, atol=1e-7)


@julia
def test_gradient_for_output_times_takes_the_slope_before_a_jump():
    ts = f64(0, 0.5, 1.7).requires_grad_()
    sol = hsb.solve(Tank(), f64(2.0), ts, context=INPUT, rtol=1e-8, atol=1e-10, backend="julia")
    (grad,) = torch.autograd.grad(sol.ys[2, 0], [ts])
    assert grad[2].item() == pytest.approx(3.0 - 1.5 * sol.ys[2, 0].item(), rel=1e-9)


class Switched(hsb.VectorField):
    state_shape = (1,)
    jumps = (0.4,)

    def forward(self, t, y, context=None):
        return torch.where(t >= 0.4, -1.0, 1.0) * torch.ones_like(y)


@pytest.mark.parametrize("backend", BACKENDS)
def test_declared_jumps(backend):
    """A kink at a declared time is met exactly: one step a side would do, whatever the tolerance."""
    sol = hsb.solve(Switched(), f64(0.0), f64(0, 1), rtol=1e-2, atol=1e-2, backend=backend)
    assert sol.ys[-1].item() == pytest.approx(0.4 - 0.6, abs=1e-12)


def test_bad_jumps_are_refused():
    field = Switched()
    field.jumps = (0.1, float("inf"))
    with pytest.raises(InvalidInput, match="jumps"):
        hsb.solve(field, f64(0.0), f64(0, 1))
