"""Hybrid forms around a solve: closed-form solutions, roles, shapes, gates."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import hybridsam_bridge as hsb

TS = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
# Solved by SciPy at rtol 1e-6 and compared with the closed form: errors stay within a few times rtol.
CLOSE = {"rtol": 2e-5, "atol": 1e-8}


class Decay(hsb.VectorField):
    """dy/dt = -k y, with k the model's own or the first number of the context."""

    state_shape = (1,)

    def __init__(self, k=1.0):
        super().__init__()
        self.rates = hsb.ParameterSet(k=hsb.Param(k, transform="log"))

    def forward(self, t, y, context=None):
        return -(self.rates.k if context is None else context[-1]) * y


def model(**options):
    return hsb.InitialValueModel(Decay(2.0), backend="scipy", **options)


class Constant(nn.Module):
    """A network that returns the same numbers for every input; they are its parameters."""

    def __init__(self, *values):
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def forward(self, x):
        return self.values.expand(*x.shape[:-1], -1)


def test_initial_value_model_solves_and_observes():
    m = model(y0=torch.tensor([3.0]).double(), observe=lambda y: 10 * y[..., 0])
    torch.testing.assert_close(m(TS), 30 * torch.exp(-2 * TS), **CLOSE)
    assert m.last.stats.backend == "scipy"
    assert not m.last.ys.requires_grad


def test_initial_state_can_be_declared_and_is_trained():
    m = model(y0=hsb.ParameterSet(start=hsb.Param(3.0, transform="log", unit="mol")))
    m(TS)[-1].sum().backward()
    # d(y(1))/d(log y0) = y(1)
    torch.testing.assert_close(m.y0.raw_start.grad, 3 * torch.exp(torch.tensor(-2.0)).double(), **CLOSE)
    with pytest.raises(hsb.InvalidInput, match="y0: neither"):
        model()(TS)
    with pytest.raises(hsb.InvalidInput, match="y0: holds 2 numbers"):
        model(y0=torch.ones(2).double())(TS)


def test_output_correction_adds_a_gated_network():
    science = model(y0=torch.tensor([3.0]).double(), observe=lambda y: torch.cat([y, y**2], -1))
    m = hsb.OutputCorrected(science, nn.Linear(3, 2), mask=[True, False], scale=0.5, with_time=True)
    predicted = m(TS)
    base = science(TS)
    features = torch.cat([TS[:, None], base], -1).float()
    expected = base + torch.stack([0.5 * m.neural(features)[:, 0].double(), torch.zeros(3)], -1)
    torch.testing.assert_close(predicted, expected, rtol=1e-12, atol=0)
    assert {id(p) for p in hsb.neural_parameters(m)} == {id(p) for p in m.neural.parameters()}
    assert [id(p) for p in hsb.scientific_parameters(m)] == [id(science.field.rates.raw_k)]


def test_output_correction_of_the_wrong_shape_is_named():
    m = hsb.OutputCorrected(model(y0=torch.tensor([3.0]).double()), nn.Linear(1, 2))
    with pytest.raises(hsb.InvalidInput, match=r"neural: must return the shape of the prediction \(3, 1\)"):
        m(TS)


def test_encoder_gives_every_sample_its_parameters_and_state():
    encoder = nn.Linear(2, 2).double()
    m = hsb.ParameterEncoder(
        model(),
        encoder,
        parameters={"k": hsb.Param(1.5, transform="logit", bounds=(1.0, 2.0))},
        initial_state={"start": hsb.Param(4.0, transform="log")},
    )
    inputs = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    predicted = m(TS, inputs)
    raw = encoder(inputs)
    k, start = 1 + torch.sigmoid(raw[:, 0]), 4 * raw[:, 1].exp()
    expected = start[:, None] * torch.exp(-k[:, None] * TS)
    torch.testing.assert_close(predicted[..., 0], expected, **CLOSE)
    predicted.sum().backward()
    (expected_grad,) = torch.autograd.grad(expected.sum(), encoder.weight)
    torch.testing.assert_close(encoder.weight.grad, expected_grad, rtol=1e-4, atol=1e-6)
    assert {id(p) for p in hsb.neural_parameters(m)} == {id(p) for p in encoder.parameters()}
    assert m.encode(inputs)["k"].shape == (5, 1)


def test_encoder_at_zero_gives_the_declared_values_and_follows_the_batch_context():
    m = hsb.ParameterEncoder(model(), Constant(0.0), {"k": hsb.Param(0.7, transform="log")})
    y0, context = torch.ones(2, 1).double(), torch.full((2, 3), 9.0).double()
    predicted = m(TS, torch.zeros(2, 1), y0=y0, context=context)  # Decay reads the last number
    torch.testing.assert_close(predicted[..., 0], torch.exp(-0.7 * TS).expand(2, 3), **CLOSE)


def test_encoder_trains_from_a_data_set():
    data = hsb.Trajectories(
        TS, torch.exp(-TS).expand(2, 3)[..., None].clone(), y0=torch.ones(2, 1).double(), inputs=torch.ones(2, 1)
    )
    m = hsb.ParameterEncoder(model(), nn.Linear(1, 1), {"k": hsb.Param(3.0, transform="log")})
    opt = hsb.SAM(torch.optim.Adam(m.parameters(), lr=0.1), rho=0.01, perturb=hsb.neural_parameters(m))
    result = hsb.Trainer(m, opt, hsb.DataLoss(hsb.Gaussian(0.1)), progress=False).fit(data, steps=15)
    assert result.best < result.rows[0]["loss"] / 5


def test_composed_nests_network_and_algebra():
    class Malus(nn.Module):
        """Intensity behind two polarisers: I0 cos²(angle)."""

        def __init__(self):
            super().__init__()
            self.i0 = nn.Parameter(torch.tensor(5.0))

        def forward(self, angle):
            return self.i0 * torch.cos(angle) ** 2

    before, after = nn.Linear(2, 1), nn.Linear(1, 1)
    m = hsb.Composed(before, Malus(), after)
    x = torch.randn(4, 2)
    torch.testing.assert_close(m(x), after(5.0 * torch.cos(before(x)) ** 2))
    assert [id(p) for p in hsb.scientific_parameters(m)] == [id(m.stages[1].i0)]
    turned = hsb.Composed(nn.Linear(2, 1), Malus(), roles=["science", "neural"])
    assert [id(p) for p in hsb.neural_parameters(turned)] == [id(turned.stages[1].i0)]


def test_composed_hands_tuples_on_and_nests_other_forms():
    class Ask(nn.Module):
        def forward(self, inputs):
            return TS, inputs

    inner = hsb.ParameterEncoder(
        model(), Constant(0.0, 0.0), {"k": hsb.Param(1.0, transform="log")}, {"y": hsb.Param(2.0)}
    )
    m = hsb.Composed(Ask(), inner)
    torch.testing.assert_close(m(torch.zeros(1, 1))[0, :, 0], 2 * torch.exp(-TS), **CLOSE)
    assert [id(p) for p in hsb.neural_parameters(m)] == [id(inner.encoder.values)]


def test_penalties_follow_the_last_solve():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor(0.5).double())

        def forward(self, y):
            return self.w * y

    field = hsb.Additive(Decay(2.0), Net())
    m = hsb.InitialValueModel(field, torch.tensor([3.0]).double(), backend="scipy")
    data = hsb.Trajectories(TS, torch.ones(1, 3, 1).double())
    plain = hsb.DataLoss()(m, data.whole())
    total = hsb.DataLoss(penalties=[hsb.FunctionalNorm(2.0)])(m, data.whole())
    states = 3 * torch.exp(-1.5 * TS)
    torch.testing.assert_close(total - plain, 2 * (0.25 * states**2).mean(), **CLOSE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hsb.ParameterEncoder(model(), nn.Linear(1, 1)), "declare"),
        (lambda: hsb.ParameterEncoder(model(), nn.Linear(1, 1), {"k": hsb.Param(-1.0, transform="log")}), "k: initial"),
        (
            lambda: hsb.ParameterEncoder(model(), nn.Linear(1, 1), {"k": hsb.Param(1)}, {"k": hsb.Param(1)}),
            "k: is declared",
        ),
        (
            lambda: hsb.ParameterEncoder(model(), nn.Linear(1, 3), {"k": hsb.Param(1.0)})(TS, torch.zeros(1, 1)),
            r"encoder: must return \(B, 1\), it returned shape \(1, 3\)",
        ),
        (lambda: hsb.Composed(), "at least one"),
        (lambda: hsb.Composed(nn.Linear(1, 1), 3), "stage_1"),
        (lambda: hsb.Composed(nn.Linear(1, 1), roles=["net"]), "roles"),
        (lambda: hsb.OutputCorrected(model(), nn.Linear(1, 1), mask=[0.3]), "mask"),
        (lambda: hsb.OutputCorrected(model(), nn.Linear(1, 1), scale=math.inf), "scale"),
        (lambda: hsb.InitialValueModel(nn.Linear(1, 1)), "field"),
        (lambda: hsb.InitialValueModel(Decay(), y0=[1.0]), "y0"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(hsb.InvalidInput, match=message):
        make()
