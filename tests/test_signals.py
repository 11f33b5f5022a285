"""Sampled inputs: values, derivatives, and solves driven by them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from problems import f64

import hybridsam_bridge as hsb

BACKENDS = ["scipy", "torch", pytest.param("julia", marks=pytest.mark.julia)]
TIMES = f64(0.0, 0.5, 1.25, 2.0, 3.5)
VALUES = f64(1.0, -2.0, 0.5, 4.0, 3.0)


def previous(t, times=TIMES, values=VALUES):
    index = np.searchsorted(times.numpy(), t, side="right") - 1
    return values[max(index, 0)].item()


@pytest.mark.parametrize("t", [-1.0, 0.0, 0.3, 0.5, 1.0, 1.25, 3.4999, 3.5, 9.0])
def test_values_against_numpy(t):
    """np.interp and searchsorted; knots and beyond the ends among the times."""
    linear, steps = hsb.SampledSignal(TIMES), hsb.SampledSignal(TIMES, "previous")
    expected = np.interp(t, TIMES.numpy(), VALUES.numpy())
    assert linear(f64(t)[0], VALUES).item() == pytest.approx(expected, abs=1e-14)  # rounding
    assert steps(f64(t)[0], VALUES).item() == previous(t)


def test_several_channels():
    signal = hsb.SampledSignal(TIMES)
    values = torch.rand(5, 2, 3).double()
    out = signal(f64(0.9)[0], values)
    assert out.shape == (2, 3)
    weight = (0.9 - 0.5) / 0.75
    torch.testing.assert_close(out, (1 - weight) * values[1] + weight * values[2])


@pytest.mark.parametrize("interpolation", ["linear", "previous"])
@pytest.mark.parametrize("outside", ["hold", "fail"])
def test_gradients(interpolation, outside):
    """Against central differences, between knots: in the values and, where it is smooth, in time."""
    signal = hsb.SampledSignal(TIMES, interpolation, outside)
    t, values = (x.clone().requires_grad_() for x in (f64(0.7)[0], VALUES))
    assert torch.autograd.gradcheck(lambda t, v: signal(t, v) * torch.ones_like(t), (t, values))


def test_slope_at_a_knot_is_the_one_to_its_right():
    """A step that starts at a knot needs f_t of what follows; the sum of both slopes would be wrong."""
    signal = hsb.SampledSignal(TIMES)
    for knot, slope in ((0.0, -6.0), (0.5, 2.5 / 0.75), (3.5, 0.0)):
        t = f64(knot)[0].requires_grad_()
        assert torch.autograd.grad(signal(t, VALUES), t)[0].item() == pytest.approx(slope, abs=1e-14)


def test_batched_times():
    signal = hsb.SampledSignal(TIMES)
    ts = torch.linspace(-0.5, 4, 19).double()
    got = torch.func.vmap(signal, in_dims=(0, None))(ts, VALUES)
    np.testing.assert_allclose(got, np.interp(ts.numpy(), TIMES.numpy(), VALUES.numpy()), atol=1e-14)


class Driven(hsb.VectorField):
    """y' = -a y + s(t), the samples of s being the context."""

    state_shape = (1,)

    def __init__(self, interpolation="linear", outside="hold"):
        super().__init__()
        self.signal = hsb.SampledSignal(TIMES, interpolation, outside)
        self.a = torch.nn.Parameter(f64(0.8)[0])

    def forward(self, t, y, context=None):
        return -self.a * y + self.signal(t, context)


def exact(values, a, y, interpolation):
    """Interval by interval: y' = -a y + v + w (t - t0) with w the slope."""
    for k in range(len(TIMES) - 1):
        h = TIMES[k + 1] - TIMES[k]
        v = values[k]
        w = (values[k + 1] - v) / h if interpolation == "linear" else 0 * v
        decay = torch.exp(-a * h)
        y = y * decay + (v / a - w / a**2) * (1 - decay) + w * h / a
    return y


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("interpolation", ["linear", "previous"])
def test_solves_and_their_gradients(interpolation, backend):
    """Two samples with signals of their own, jumps among the outputs; end points and gradients in closed form."""
    field = Driven(interpolation)
    context = torch.stack([VALUES, VALUES.flip(0)]).requires_grad_()
    y0 = f64(1.0, -1.0).reshape(2, 1).requires_grad_()
    sol = hsb.solve(field, y0, TIMES, context=context, rtol=1e-8, atol=1e-10, backend=backend)
    inputs = (context, y0, field.a)
    end = sol.ys[:, -1, 0]
    expected = torch.stack([exact(c, field.a, y[0], interpolation) for c, y in zip(context, y0, strict=True)])
    # A jump or kink inside a step costs up to a hundred times rtol; gradients inherit it, and the continuous
    # adjoint of scipy adds its own tolerances.
    torch.testing.assert_close(end, expected, rtol=1e-5, atol=0)
    weights = f64(1.0, 0.3)
    ours = torch.autograd.grad(end @ weights, inputs)
    for got, want in zip(ours, torch.autograd.grad(expected @ weights, inputs), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_jump_between_outputs_is_not_missed(backend):
    """f has no derivative by t anywhere, yet it depends on t: solvers must see the jump inside their steps."""
    field = Driven("previous")
    end = hsb.solve(field, f64(1.0), f64(0, 3.5), context=VALUES, rtol=1e-7, atol=1e-9, backend=backend).ys[-1]
    assert end.item() == pytest.approx(exact(VALUES, field.a, f64(1.0)[0], "previous").item(), rel=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_outside_the_samples_fails_where_asked(backend):
    inside = hsb.solve(Driven(outside="fail"), f64(1.0), f64(0, 3.5), context=VALUES, backend=backend)
    assert bool(inside.success)
    with pytest.raises(hsb.SolveFailed) as caught:
        hsb.solve(Driven(outside="fail"), f64(1.0), f64(0, 5), context=VALUES, backend=backend)
    assert caught.value.time <= 3.5 + 1e-6
    held = hsb.solve(Driven(), f64(1.0), f64(0, 5), context=VALUES, backend=backend).ys[-1]
    a = 0.8
    left = exact(VALUES, f64(a)[0], f64(1.0)[0], "linear").item()
    assert held.item() == pytest.approx(3 / a + (left - 3 / a) * math.exp(-1.5 * a), rel=1e-5)


def test_jumps():
    assert hsb.SampledSignal(TIMES, "previous").jumps.tolist() == [0.5, 1.25, 2.0, 3.5]
    assert hsb.SampledSignal(TIMES).jumps.tolist() == [0.5, 1.25, 2.0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: hsb.SampledSignal([0.0]), "two or more"),
        (lambda: hsb.SampledSignal([0.0, 1.0, 1.0]), "strictly increasing"),
        (lambda: hsb.SampledSignal([0.0, math.inf]), "finite"),
        (lambda: hsb.SampledSignal([0.0, 1.0], "cubic"), "linear, previous"),
        (lambda: hsb.SampledSignal([0.0, 1.0], outside="wrap"), "hold, fail"),
        (lambda: hsb.SampledSignal([0.0, 1.0])(f64(0.5)[0], f64(1, 2, 3)), "one row for each of 2 times"),
        (lambda: hsb.SampledSignal([0.0, 1.0])(f64(0.5)[0], 3.0), "got float"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(hsb.InvalidInput, match=words):
        call()
