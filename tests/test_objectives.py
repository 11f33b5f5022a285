"""Noise models against SciPy's densities; the data loss with holes and failures; penalties by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

import hybridsam_bridge as hsb

PREDICTED = np.array([0.5, 2.0, 3.0])
OBSERVED = np.array([0.7, 1.5, 3.0])


@pytest.mark.parametrize(
    ("noise", "density"),
    [
        (hsb.Gaussian(0.3), scipy.stats.norm(PREDICTED, 0.3)),
        (hsb.Laplace(0.3), scipy.stats.laplace(PREDICTED, 0.3)),
        (hsb.LogNormal(0.3), scipy.stats.lognorm(0.3, scale=PREDICTED)),
        (hsb.Relative(0.1, floor=0.2), scipy.stats.norm(PREDICTED, np.sqrt(0.04 + (0.1 * PREDICTED) ** 2))),
    ],
)
def test_noise_is_the_negative_log_density(noise, density):
    value = noise(torch.from_numpy(PREDICTED), torch.from_numpy(OBSERVED))
    # both are a handful of float64 operations
    np.testing.assert_allclose(value, -density.logpdf(OBSERVED), rtol=1e-12)


@pytest.mark.parametrize("kind", [hsb.Gaussian, hsb.Laplace, hsb.LogNormal])
def test_fitted_sigma_finds_the_maximum_of_the_likelihood(kind):
    noise = kind(1.0, fitted=True)
    predicted, observed = torch.from_numpy(PREDICTED), torch.from_numpy(OBSERVED)
    opt = torch.optim.LBFGS(noise.parameters(), max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=1e-12)

    def closure():
        opt.zero_grad()
        loss = noise(predicted, observed).mean()
        loss.backward()
        return loss

    opt.step(closure)
    residual = OBSERVED - PREDICTED if kind is not hsb.LogNormal else np.log(OBSERVED / PREDICTED)
    best = np.abs(residual).mean() if kind is hsb.Laplace else np.sqrt((residual**2).mean())
    # L-BFGS stops at its change tolerance 1e-9, the square root of which bounds the argument
    assert noise.sigma.item() == pytest.approx(best, rel=1e-4)


class Constant(nn.Module):
    """Predicts a learnt number everywhere, NaN for samples listed as failed."""

    def __init__(self, failed=()):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
        self.failed = list(failed)

    def forward(self, ts, y0=None, context=None):
        y = self.a * torch.ones(3, len(ts), 1, dtype=torch.float64)
        rows = [torch.full_like(y[i], math.nan) if i in self.failed else y[i] for i in range(3)]
        return torch.stack(rows)


def holed():
    y = torch.arange(6.0, dtype=torch.float64).reshape(3, 2, 1)
    y[1, 0] = math.nan
    return hsb.Trajectories(torch.tensor([0.0, 1.0]).double(), y)


def test_missing_values_do_not_count():
    model = Constant()
    loss = hsb.DataLoss(hsb.Gaussian(1.0))(model, holed().whole())
    loss.backward()
    per_sample = [(4 + 1) / 4, 1 / 2, (4 + 9) / 4]  # halved squares of 2 - {0, 1}, {3}, {4, 5}
    assert loss.item() == pytest.approx(np.mean(per_sample) + 0.5 * math.log(2 * math.pi), rel=1e-14)
    assert model.a.grad.item() == pytest.approx(np.mean([(2 + 1) / 2, -1, (-2 - 3) / 2]), rel=1e-14)


def test_failed_samples_are_left_out_and_poison_nothing():
    model = Constant(failed=[1])
    noise = hsb.Gaussian(1.0, fitted=True)
    loss_fn = hsb.DataLoss(noise)
    loss = loss_fn(model, holed().whole())
    loss.backward()
    assert loss_fn.dropped == 1
    assert loss.item() == pytest.approx((5 / 4 + 13 / 4) / 2 + 0.5 * math.log(2 * math.pi), rel=1e-14)
    assert model.a.grad.item() == pytest.approx((1.5 - 2.5) / 2, rel=1e-14)
    assert bool(torch.isfinite(noise.log_sigma.grad))


def test_all_failed_is_nan():
    assert math.isnan(hsb.DataLoss()(Constant(failed=[0, 1, 2]), holed().whole()).item())


def test_samples_with_times_of_their_own_share_a_grid():
    data = hsb.Trajectories.from_samples(
        [torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.5, 2.0])],
        [torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0], [5.0]])],
    )
    assert data.ts.tolist() == [0.0, 0.5, 1.0, 2.0]
    assert data.mask[..., 0].tolist() == [[True, False, True, False], [True, True, False, True]]
    assert data.y[0, 2, 0] == 2.0
    assert data.until(1.0).ts.tolist() == [0.0, 0.5, 1.0]


class Decay(hsb.VectorField):
    state_shape = (2,)

    def forward(self, t, y, context=None):
        return -y


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 2, bias=False).double()
        with torch.no_grad():
            self.net.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))

    def forward(self, y):
        return self.net(y)


def test_penalties_by_hand():
    model = nn.Module()
    model.field = hsb.Additive(Decay(), Linear(), scale=0.5)
    states = torch.tensor([[[1.0, 2.0], [0.0, 1.0]]], dtype=torch.float64)
    batch = {"ts": torch.tensor([0.0, 1.0]).double(), "states": states}
    # network: 0.5 (y0, 3 y1) = (0.5, 3), (0, 1.5); science: -(1, 2), -(0, 1)
    assert hsb.FunctionalNorm(2.0)(model, batch).item() == pytest.approx(2.0 * (9.25 + 2.25) / 2, rel=1e-15)
    assert hsb.Orthogonality(2.0)(model, batch).item() == pytest.approx(2.0 * (6.5 + 1.5) / 2, rel=1e-15)
    assert hsb.WeightDecay(2.0)(model, batch).item() == pytest.approx(2.0 * 10.0, rel=1e-15)
    total = hsb.FunctionalNorm(1.0)(model, batch)
    total.backward()
    weight = model.field.neural.net.weight
    # d/dW of mean ||W y / 2||² = W E[y yᵀ] / 2
    moment = (states[0, 0].outer(states[0, 0]) + states[0, 1].outer(states[0, 1])) / 2
    torch.testing.assert_close(weight.grad, weight.detach() @ moment / 2, rtol=1e-14, atol=1e-15)


def test_explained_share_by_hand():
    field = hsb.Additive(Decay(), Linear(), scale=0.5)
    ts = torch.tensor([0.0, 1.0, 3.0]).double()
    ys = torch.tensor([[1.0, 2.0], [0.0, 1.0], [4.0, 0.0]], dtype=torch.float64)
    share = hsb.explained_share(field, ts, ys)
    # the network is half of y0 and one and a half of y1, the science all of it, at every time
    torch.testing.assert_close(share.total, torch.tensor([1 / 3, 0.6]).double(), rtol=1e-7, atol=0)
    assert share.over_time[1, 0] == 0.0, "at rest there is nothing to explain"
    torch.testing.assert_close(share.science + share.neural, field.science(None, ys) + 0.5 * field.neural(ys))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hsb.Gaussian(0.0), "sigma"),
        (lambda: hsb.Relative(0.1, floor=-1.0), "floor"),
        (lambda: hsb.FunctionalNorm(-1.0), "weight"),
        (lambda: hsb.Trajectories(torch.tensor([0.0, 0.0]), torch.zeros(1, 2, 1)), "ts"),
        (lambda: hsb.Trajectories(torch.tensor([0.0, 1.0]), torch.zeros(1, 3, 1)), "y: must be"),
        (lambda: hsb.Trajectories(torch.tensor([0.0, 1.0]), torch.full((1, 2, 1), math.nan)), "missing"),
        (lambda: hsb.Trajectories(torch.tensor([0.0, 1.0]), torch.ones(2, 2, 1), y0=torch.ones(3, 1)), "y0"),
        (lambda: hsb.FunctionalNorm(1.0)(nn.Linear(1, 1), {"ts": torch.zeros(2), "states": torch.ones(1)}), "Additive"),
        (lambda: hsb.DataLoss()(Constant(), {**holed().whole(), "y": torch.ones(3, 2, 2)}), "model predicts"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(hsb.InvalidInput, match=message):
        make()
