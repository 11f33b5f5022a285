"""Growing horizons and multiple shooting: the joints, the clock, and an oscillation that one long solve misses."""

from __future__ import annotations

import math

import pytest
import torch

import hybridsam_bridge as hsb


class Oscillator(hsb.VectorField):
    state_shape = (2,)

    def __init__(self, omega):
        super().__init__()
        self.p = hsb.ParameterSet(omega=hsb.Param(omega, transform="log", unit="1/s"))

    def forward(self, t, y, context=None):
        return torch.stack([y[1], -(self.p.omega**2) * y[0]])


class Clock(hsb.VectorField):
    """dy/dt = context * t: a wrong clock shows at once."""

    state_shape = (1,)

    def forward(self, t, y, context=None):
        return context[0, 0] * t.reshape(1)


def model(field, rtol=1e-6, backend="scipy"):
    return hsb.InitialValueModel(field, backend=backend, rtol=rtol, atol=1e-2 * rtol)


def cosine(omega=3.0, count=41, end=20.0):
    ts = torch.linspace(0, end, count, dtype=torch.float64)
    y = torch.stack([torch.cos(omega * ts), -omega * torch.sin(omega * ts)], -1)
    return hsb.Trajectories(ts, y[None], y0=torch.tensor([[1.0, 0.0]], dtype=torch.float64))


def test_stages_grow():
    data = cosine()
    horizon = hsb.GrowingHorizon(data, [(0, 5.0), (10, None)])
    assert len(horizon.at(0)["ts"]) == len(horizon.at(9)["ts"]) == 11
    assert len(horizon.at(10)["ts"]) == len(horizon.at(99)["ts"]) == 41
    lengths = []

    def loss(m, batch):
        lengths.append(len(batch["ts"]))
        return m(torch.ones(1)).sum()

    net = torch.nn.Linear(1, 1)
    opt = torch.optim.SGD(net.parameters(), lr=0.0)
    hsb.Trainer(net, opt, loss, progress=False).fit(horizon, steps=12)
    assert lengths == [11] * 10 + [41] * 2
    with pytest.raises(hsb.InvalidInput, match="stages"):
        hsb.GrowingHorizon(data, [(5, None)])


@pytest.mark.parametrize("segments", [1, 4, 7])
def test_the_truth_has_no_gap_and_the_loss_of_one_long_solve(segments):
    data = cosine()
    m = model(Oscillator(3.0))
    shooting = hsb.MultipleShooting(m, data, segments)
    single = hsb.DataLoss()(m, data.whole())
    # Both are solves at rtol 1e-6 of a motion of size one over 10 periods.
    assert shooting(m).item() == pytest.approx(single.item(), abs=1e-6)
    assert shooting.gap < 1e-8


def test_irregular_times_share_a_grid():
    ts = torch.tensor([0.0, 0.1, 0.5, 1.2, 1.3, 2.0]).double()
    y = torch.stack([torch.cos(3 * ts), -3 * torch.sin(3 * ts)], -1)[None].clone()
    y[0, 4, 1] = math.nan
    data = hsb.Trajectories(ts, y)
    m = model(Oscillator(3.0))
    shooting = hsb.MultipleShooting(m, data, 2)
    assert int(shooting.mask.sum()) == 11, "every measured value counts once"
    # zero residuals: what is left is the constant of the density
    assert shooting(m).item() == pytest.approx(0.5 * math.log(2 * math.pi), abs=1e-8)


def test_the_clock_of_each_segment_is_its_own():
    ts = torch.linspace(0, 2, 9).double()
    context = torch.tensor([2.0, -1.0]).double().reshape(2, 1, 1)
    y = 0.5 * context * (ts**2)[None, :, None]
    data = hsb.Trajectories(ts, y, context=context)
    m = model(Clock())
    shooting = hsb.MultipleShooting(m, data, 3)
    assert shooting(m).item() == pytest.approx(0.5 * math.log(2 * math.pi), abs=1e-8)
    assert shooting.gap < 1e-10
    wrong = hsb.MultipleShooting(m, data, 3, autonomous=True)
    wrong(m)
    assert wrong.gap > 0.1


def test_a_gap_is_measured_in_units_of_scale():
    data = cosine()
    m = model(Oscillator(3.0))
    shooting = hsb.MultipleShooting(m, data, 2, weight=0.0, scale=torch.tensor([2.0, 1.0]))
    with torch.no_grad():
        shooting.starts[0, 1, 0] += 0.2
    shooting(m)
    assert shooting.gap == pytest.approx(0.1**2 / 2, rel=1e-4)  # one of two states is 0.1 units off


def test_it_finds_a_frequency_that_one_long_solve_does_not():
    data = cosine(count=21, end=10.0)
    found = {}
    for name in ("single", "multiple"):
        m = model(
            Oscillator(2.0), rtol=1e-4, backend="torch"
        )  # two thirds of the truth: a period and a half off at the end
        loss = hsb.DataLoss() if name == "single" else hsb.MultipleShooting(m, data, 10, autonomous=True)
        params = [*m.parameters(), *loss.parameters()]
        trainer = hsb.Trainer(m, torch.optim.Adam(params, lr=0.05), loss, progress=False)
        trainer.fit(data, steps=80)
        found[name] = m.field.p.omega.item()
    assert found["multiple"] == pytest.approx(3.0, abs=0.1)
    assert abs(found["single"] - 3.0) > 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segments": 0}, "segments"),
        ({"segments": 41}, "segments"),
        ({"segments": 2, "weight": -1.0}, "weight"),
        ({"segments": 2, "starts": torch.zeros(1, 3, 2)}, r"starts: must have shape \(1, 2, 2\)"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(hsb.InvalidInput, match=message):
        hsb.MultipleShooting(model(Oscillator(1.0)), cosine(), **options)
