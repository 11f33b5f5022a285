"""Fisher information, intervals and profiles against closed forms; networks that can and cannot imitate."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import hybridsam_bridge as hsb

TS = torch.linspace(0.0, 4.0, 9, dtype=torch.float64)


class Line(nn.Module):
    """y = a t + network(t); the network is linear in its weights."""

    def __init__(self, power, a=2.0, transform="identity"):
        super().__init__()
        self.p = hsb.ParameterSet(a=hsb.Param(a, transform=transform, unit="m/s"))
        self.net = nn.Linear(1, 1, bias=False).double()
        self.power = power
        with torch.no_grad():
            self.net.weight.zero_()

    def forward(self, ts):
        return (self.p.a * ts + self.net((ts**self.power)[:, None])[:, 0])[None, :, None]


def data(noise=0.0):
    rng = torch.Generator().manual_seed(0)
    y = 2.0 * TS + noise * torch.randn(len(TS), dtype=torch.float64, generator=rng)
    return hsb.Trajectories(TS, y[None, :, None])


def test_linear_regression_has_its_textbook_interval():
    model, loss = Line(power=2), hsb.DataLoss(hsb.Gaussian(0.3))
    found = hsb.identifiability(model, loss, data().whole())
    design = np.stack([TS.numpy(), TS.numpy() ** 2], 1) / 0.3
    covariance = np.linalg.inv(design.T @ design)
    estimate = found.estimates["a"]
    half = 1.959963984540054 * math.sqrt(covariance[0, 0])
    assert estimate.interval == pytest.approx((2.0 - half, 2.0 + half), rel=1e-12)
    alone = 1.959963984540054 * 0.3 / float(TS.norm())
    assert estimate.interval_alone == pytest.approx((2.0 - alone, 2.0 + alone), rel=1e-12)
    assert estimate.kept == pytest.approx((alone / half) ** 2, rel=1e-12)
    assert estimate.identified
    assert not found.warnings
    assert "m/s" in estimate.unit
    assert "a" in found.text()


def test_a_network_that_can_imitate_the_science_leaves_nothing():
    found = hsb.identifiability(Line(power=1), hsb.DataLoss(hsb.Gaussian(0.3)), data().whole())
    estimate = found.estimates["a"]
    # 1 - cos² of one direction with itself, in float64
    assert estimate.kept == pytest.approx(0.0, abs=1e-14)
    assert not estimate.identified
    assert found.warnings == [w for w in found.warnings if "a is not identified: with the network free" in w]
    assert len(found.warnings) == 1


def test_a_prior_on_the_network_gives_some_of_it_back():
    loss, batch = hsb.DataLoss(hsb.Gaussian(1.0)), data().whole()
    found = hsb.identifiability(Line(power=1), loss, batch, prior=float((TS**2).sum()))
    # F - F²/(F + prior) with prior = F
    assert found.estimates["a"].kept == pytest.approx(0.5, rel=1e-12)


def test_log_parameters_get_asymmetric_intervals():
    model = Line(power=2, transform="log")
    found = hsb.identifiability(model, hsb.DataLoss(hsb.Gaussian(0.3)), data().whole())
    low, high = found.estimates["a"].interval
    assert low * high == pytest.approx(4.0, rel=1e-12), "symmetric about log 2"


def test_a_parameter_that_does_not_enter_is_reported():
    model = Line(power=2)
    model.q = hsb.ParameterSet(unused=hsb.Param(1.0, transform="log"))
    found = hsb.identifiability(model, hsb.DataLoss(hsb.Gaussian(0.3)), data().whole())
    assert found.estimates["unused"].interval == (0.0, math.inf)
    assert any("unused is not identified, even with the network fixed" in w for w in found.warnings)
    assert found.estimates["a"].identified


@pytest.mark.parametrize("noise", [hsb.Gaussian(0.3), hsb.LogNormal(0.2), hsb.Relative(0.1, floor=0.2)])
def test_information_is_the_mean_curvature_of_the_likelihood(noise):
    """E[d²(-log p)/d pred²] by quadrature over 200,000 draws; the mean of squares has an error of 1 %."""
    torch.manual_seed(0)
    predicted = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    z = torch.randn(200_000, dtype=torch.float64)
    width = {hsb.Gaussian: 0.3, hsb.Relative: math.sqrt(0.04 + 0.15**2)}.get(type(noise))
    observed = 1.5 + width * z if width else 1.5 * torch.exp(0.2 * z)
    many = predicted.detach().expand(len(z)).clone().requires_grad_()
    (score,) = torch.autograd.grad(noise(many, observed).sum(), many)
    assert noise.information(predicted.detach()).item() == pytest.approx(float(score.square().mean()), rel=0.02)


class Exponential(hsb.VectorField):
    state_shape = (1,)

    def __init__(self):
        super().__init__()
        self.p = hsb.ParameterSet(k=hsb.Param(0.5, transform="log", unit="1/s"))

    def forward(self, t, y, context=None):
        return -self.p.k * y


def test_fisher_information_through_a_solve():
    model = hsb.InitialValueModel(Exponential(), torch.ones(1).double(), backend="scipy", rtol=1e-8, atol=1e-10)
    trajectories = hsb.Trajectories(TS, torch.exp(-0.5 * TS)[None, :, None])
    found = hsb.identifiability(model, hsb.DataLoss(hsb.Gaussian(0.1)), trajectories.whole())
    # d y / d log k = -k t exp(-k t); the solver's adjoint at rtol 1e-8
    sensitivity = 0.5 * TS * torch.exp(-0.5 * TS) / 0.1
    assert found.fisher[0, 0] == pytest.approx(float(sensitivity @ sensitivity), rel=1e-5)


def test_profile_of_a_linear_model_is_the_parabola():
    model, loss = Line(power=2), hsb.DataLoss(hsb.Gaussian(0.3))
    batch = data(noise=0.3).whole()
    design = np.stack([TS.numpy(), TS.numpy() ** 2], 1)
    best, *_ = np.linalg.lstsq(design, batch["y"][0, :, 0].numpy(), rcond=None)
    model.p.assign(a=best[0])
    with torch.no_grad():
        model.net.weight.fill_(best[1])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    covariance = np.linalg.inv(design.T @ design / 0.3**2)
    sd = math.sqrt(covariance[0, 0])
    values = best[0] + sd * np.linspace(-3, 3, 13)
    profile = hsb.profile_likelihood(model, loss, batch, "a", values)
    # L-BFGS stops at a gradient of 1e-7 on a quadratic of size one
    np.testing.assert_allclose(profile.rise, np.linspace(-3, 3, 13) ** 2 / 2, atol=1e-6)
    # the interval is read off straight lines between points half a standard deviation apart
    assert profile.interval == pytest.approx((best[0] - 1.96 * sd, best[0] + 1.96 * sd), abs=0.02 * sd)
    assert profile.identified
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    fixed = hsb.profile_likelihood(model, loss, batch, "a", values, refit="science")
    alone = 0.3 / float(TS.norm())
    np.testing.assert_allclose(fixed.rise, ((values - best[0]) / alone) ** 2 / 2, rtol=1e-9, atol=1e-9)


def test_a_flat_profile_is_not_identified():
    model, loss = Line(power=1), hsb.DataLoss(hsb.Gaussian(0.3))
    profile = hsb.profile_likelihood(model, loss, data().whole(), "a", np.linspace(0, 4, 5))
    assert profile.interval == (-math.inf, math.inf)
    assert not profile.identified


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, b: hsb.profile_likelihood(m, hsb.DataLoss(), b, "z", [1, 2, 3]), "name: 'z'"),
        (lambda m, b: hsb.profile_likelihood(m, hsb.DataLoss(), b, "a", [1, 1]), "values"),
        (lambda m, b: hsb.profile_likelihood(m, hsb.DataLoss(), b, "a", [1, 2, 3], refit="none"), "refit"),
        (lambda m, b: hsb.identifiability(m, hsb.DataLoss(), b, level=1.0), "level"),
        (lambda m, b: hsb.identifiability(nn.Linear(1, 1), hsb.DataLoss(), b), "declares no"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(hsb.InvalidInput, match=message):
        call(Line(2), data().whole())
