"""Declared parameters: transforms, bounds, reports, and their way through a traced field."""

from __future__ import annotations

import math

import pytest
import torch

import hybridsam_bridge as hsb


def test_transforms_by_hand():
    p = hsb.ParameterSet(
        k=hsb.Param(0.5, transform="log", scale=2.0, unit="1/s"),
        lifted=hsb.Param(3.0, transform="log", bounds=(1.0, None)),
        f=hsb.Param(0.25, transform="logit", bounds=(0.0, 1.0)),
        x=hsb.Param([10.0, -20.0], scale=10.0),
    )
    assert p.raw_k.item() == pytest.approx(math.log(0.25), rel=1e-15)
    assert p.raw_lifted.item() == pytest.approx(math.log(2.0), rel=1e-15)
    assert p.raw_f.item() == pytest.approx(-math.log(3.0), rel=1e-14)
    assert p.raw_x.tolist() == [1.0, -2.0]
    report = p.report()
    assert report["k"] == (pytest.approx(0.5, rel=1e-15), "1/s")
    assert report["x"] == ([10.0, -20.0], "")


@pytest.mark.parametrize("raw", [-40.0, -3.0, 0.0, 5.0])
def test_bounds_hold_wherever_the_optimizer_goes(raw):
    p = hsb.ParameterSet(a=hsb.Param(0.5, transform="log"), b=hsb.Param(3.0, transform="logit", bounds=(2.0, 4.0)))
    with torch.no_grad():
        p.raw_a.fill_(raw)
        p.raw_b.fill_(raw)
    assert p.a > 0
    assert 2.0 <= p.b <= 4.0


def test_gradients_reach_the_trained_numbers_through_a_plan():
    class Decay(hsb.VectorField):
        state_shape = (1,)

        def __init__(self):
            super().__init__()
            self.rates = hsb.ParameterSet(k=hsb.Param(0.5, transform="log"))

        def forward(self, t, y, context=None):
            return -self.rates.k * y

    field = Decay()
    plan, p = field.plan(None)
    zero = torch.zeros((), dtype=torch.float64)
    dy = plan(zero, torch.tensor([2.0]).double(), torch.zeros(0).double(), p)
    assert dy.item() == pytest.approx(-1.0, rel=1e-15)
    dy.sum().backward()
    assert field.rates.raw_k.grad.item() == pytest.approx(-1.0, rel=1e-15)  # d(-e^x y)/dx = -k y
    assert [id(q) for q in hsb.scientific_parameters(field)] == [id(field.rates.raw_k)]


def test_assign_and_collect_from_a_composition():
    model = torch.nn.Module()
    model.one = hsb.ParameterSet(k=hsb.Param(1.0, transform="log", unit="1/s"), only=hsb.Param(2.0))
    model.two = hsb.ParameterSet(k=hsb.Param(3.0))
    model.one.assign(k=0.25)
    found = hsb.physical_values(model)
    assert found == {"one.k": (pytest.approx(0.25), "1/s"), "only": (2.0, ""), "two.k": (3.0, "")}
    with pytest.raises(hsb.InvalidInput, match="k: value -1"):
        model.one.assign(k=-1.0)
    with pytest.raises(hsb.InvalidInput, match="z: is not declared"):
        model.one.assign(z=1.0)


def test_state_dict_round_trip():
    one = hsb.ParameterSet(k=hsb.Param(0.3, transform="log"))
    two = hsb.ParameterSet(k=hsb.Param(7.0, transform="log"))
    two.load_state_dict(one.state_dict())
    assert torch.equal(one.k, two.k)


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        (hsb.Param(1.0, transform="exp"), "transform"),
        (hsb.Param(1.0, scale=0.0), "scale"),
        (hsb.Param(1.0, bounds=(0.0, None)), "identity"),
        (hsb.Param(1.0, transform="log", bounds=(0.0, 2.0)), "upper"),
        (hsb.Param(1.0, transform="logit", bounds=(0.0, None)), "logit"),
        (hsb.Param(1.0, transform="logit", bounds=(0.0, 1.0)), "inside"),
        (hsb.Param(-1.0, transform="log"), "inside"),
        (hsb.Param(math.nan), "finite"),
        (3.0, "hsb.Param"),
    ],
)
def test_contradictions_are_refused_by_name(declaration, message):
    with pytest.raises(hsb.InvalidInput, match=rf"k: .*{message}"):
        hsb.ParameterSet(k=declaration)


def test_a_taken_name_is_refused():
    with pytest.raises(hsb.InvalidInput, match="forward"):
        hsb.ParameterSet(forward=hsb.Param(1.0))


@pytest.mark.julia
def test_declared_parameters_reach_julia_source_in_physical_units():
    def declared():
        return hsb.ParameterSet(
            k=hsb.Param(0.5, transform="log"), shift=hsb.Param([0.1, 0.2], transform="logit", bounds=(0.0, 1.0))
        )

    class InTorch(hsb.VectorField):
        state_shape = (2,)

        def __init__(self):
            super().__init__()
            self.p = declared()

        def forward(self, t, y, context=None):
            return -self.p.k * y + self.p.shift

    source = "f!(du, u, p, t) = (du .= .-p.k .* u .+ p.shift; nothing)"
    fields = [InTorch(), hsb.JuliaField(source, state_shape=(2,), parameters=declared())]
    results = []
    for field in fields:
        y0, ts = torch.ones(2).double(), torch.tensor([0.0, 1.0]).double()
        ys = hsb.solve(field, y0, ts, method="Rodas5P", rtol=1e-8, atol=1e-10, backend="julia").ys
        ys[-1].sum().backward()
        assert len(hsb.scientific_parameters(field)) == 2
        results.append([ys[-1].detach(), *(p.grad for p in field.parameters())])
    # One method on one problem: only roundings differ between the two ways to write it.
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
