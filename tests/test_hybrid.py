"""Additive hybrids and the split of their parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import hybridsam_bridge as hsb
from hybridsam_bridge.fields.base import Field
from hybridsam_bridge.fields.plan import ParameterSpec, SourcePart, TorchPart


class LotkaVolterra(hsb.VectorField):
    state_shape = (2,)

    def __init__(self):
        super().__init__()
        self.k = nn.Parameter(torch.tensor([0.5, 0.03, 0.8, 0.02], dtype=torch.float64))

    def forward(self, t, y, context=None):
        a, b, c, d = self.k.unbind()
        return torch.stack([y[0] * (a - b * y[1]), y[1] * (d * y[0] - c)])


class Source(Field):
    """A stand-in for a field of Julia source: its plan is data, nothing here runs it."""

    state_shape = (2,)

    def __init__(self):
        super().__init__()
        self.k = nn.Parameter(torch.ones(3, dtype=torch.float64))

    def parts(self, context_shape):
        part = SourcePart("f!(du, u, p, t) = nothing", "f!", "f.jl", (ParameterSpec("k", (3,)),), named=False)
        return ((part, (self.k,)),)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2)).double()


T, Y, C = torch.tensor(0.3).double(), torch.tensor([30.0, 4.0]).double(), torch.zeros(0).double()


def through_plan(field):
    plan, p = field.plan(None)
    return plan(T, Y, C, p)


def test_sum_of_science_and_network():
    science, neural = LotkaVolterra(), net()
    field = hsb.Additive(science, neural)
    expected = science(T, Y) + neural(Y)
    assert torch.equal(field(T, Y), expected)
    assert torch.equal(through_plan(field), expected)
    assert field.state_shape == (2,)


def test_mask_and_scale_gate_the_network():
    science, neural = LotkaVolterra(), net()
    field = hsb.Additive(science, neural, mask=[False, True], scale=0.1)
    expected = science(T, Y) + torch.tensor([0.0, 0.1]).double() * neural(Y)
    # 0.1 is rounded in another precision in the line above
    torch.testing.assert_close(through_plan(field), expected, rtol=1e-7, atol=0)
    assert through_plan(field)[0] == science(T, Y)[0]


def test_a_trained_scale_gets_its_gradient():
    neural = net()
    field = hsb.Additive(LotkaVolterra(), neural, scale=nn.Parameter(torch.tensor(2.0, dtype=torch.float64)))
    through_plan(field).sum().backward()
    torch.testing.assert_close(field.scale.grad, neural(Y).sum().detach(), rtol=1e-14, atol=0)
    assert any(p is field.scale for p in hsb.neural_parameters(field))


def test_a_field_as_network_sees_time_and_context():
    class Forcing(hsb.VectorField):
        state_shape = (2,)

        def forward(self, t, y, context=None):
            return t * context

    field = hsb.Additive(LotkaVolterra(), Forcing())
    context = torch.tensor([1.0, 2.0]).double()
    torch.testing.assert_close(field(T, Y, context), LotkaVolterra()(T, Y) + 0.3 * context)


def test_float32_networks_join_a_float64_solve():
    field = hsb.Additive(LotkaVolterra(), net().float())
    assert through_plan(field).dtype == torch.float64


def test_changed_gates_make_a_new_plan_and_changed_weights_do_not():
    field = hsb.Additive(LotkaVolterra(), net(), scale=1.0)
    before, _ = field.plan(None)
    with torch.no_grad():
        field.science.k.mul_(2.0)
    assert field.plan(None)[0] is before
    field.scale.fill_(3.0)
    assert field.plan(None)[0] is not before


def test_a_julia_part_makes_several_parts():
    field = hsb.Additive(Source(), net(), mask=[True, False], scale=0.5)
    plan, p = field.plan(None)
    source, neural = plan.parts
    assert isinstance(source, SourcePart)
    assert source.gain is None
    assert isinstance(neural, TorchPart)
    dy = neural.fn(T, Y, C, plan.split(1, p))
    np.testing.assert_array_equal(dy.detach(), [0.5 * float(field.neural(Y)[0].detach()), 0.0])
    assert plan.n_params == 3 + sum(q.numel() for q in field.neural.parameters())


def test_a_julia_network_carries_the_gain_as_data():
    outer = hsb.Additive(LotkaVolterra(), hsb.Additive(LotkaVolterra(), Source(), scale=2.0), mask=[1, 0], scale=0.5)
    plan, _ = outer.plan(None)
    assert plan.parts[2].gain == (1.0, 0.0)


def test_a_trained_scale_with_julia_science():
    field = hsb.Additive(Source(), net(), scale=nn.Parameter(torch.tensor([3.0], dtype=torch.float64)))
    plan, p = field.plan(None)
    dy = plan.parts[1].fn(T, Y, C, plan.split(1, p))
    torch.testing.assert_close(dy, 3.0 * field.neural(Y))
    dy.sum().backward()
    torch.testing.assert_close(field.scale.grad, field.neural(Y).sum().detach().reshape(1))


def test_roles_follow_the_form():
    science = LotkaVolterra()
    science.rate_law = nn.Linear(2, 2)  # a layer inside the science is science
    field = hsb.Additive(science, net())
    wrapped = nn.ModuleDict({"model": field})
    assert {id(p) for p in hsb.scientific_parameters(wrapped)} == {id(p) for p in science.parameters()}
    assert {id(p) for p in hsb.neural_parameters(wrapped)} == {id(p) for p in field.neural.parameters()}


def test_roles_of_nested_forms_are_the_innermost():
    inner = hsb.Additive(LotkaVolterra(), net())
    outer = hsb.Additive(inner, net())
    neural = {id(p) for p in hsb.neural_parameters(outer)}
    assert neural == {id(p) for p in [*inner.neural.parameters(), *outer.neural.parameters()]}
    assert [id(p) for p in hsb.scientific_parameters(outer)] == [id(inner.science.k)]


def test_roles_without_a_form():
    class Own(LotkaVolterra):
        def __init__(self):
            super().__init__()
            self.net = net()
            self.rates = nn.ParameterDict({"r": torch.ones(1)})
            self.basis = nn.Linear(1, 1)
            self.basis.hsb_role = "science"

    model = Own()
    assert {id(p) for p in hsb.neural_parameters(model)} == {id(p) for p in model.net.parameters()}
    assert len(hsb.scientific_parameters(model)) == 4
    model.basis.hsb_role = "physics"
    with pytest.raises(hsb.InvalidInput, match="physics"):
        hsb.neural_parameters(model)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hsb.Additive(LotkaVolterra(), net(), mask=[True]), r"mask.*\(2,\).*\(1,\)"),
        (lambda: hsb.Additive(LotkaVolterra(), net(), mask=[0.5, 1.0]), "mask"),
        (lambda: hsb.Additive(LotkaVolterra(), net(), scale=torch.ones(3)), "scale.*broadcast"),
        (lambda: hsb.Additive(LotkaVolterra(), net(), scale=float("nan")), "scale"),
        (lambda: hsb.Additive(LotkaVolterra(), 3.0), "neural"),
        (lambda: hsb.Additive(net(), net()), "state_shape"),
        (lambda: hsb.Additive(LotkaVolterra(), net(), state_shape=(3,)), "different state shapes"),
        (lambda: hsb.Additive(LotkaVolterra(), Source(), scale=nn.Parameter(torch.ones(1))), "Julia"),
        (lambda: hsb.neural_parameters([1]), "model"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(hsb.InvalidInput, match=message):
        make()


def test_a_network_of_the_wrong_shape_is_named():
    field = hsb.Additive(LotkaVolterra(), nn.Linear(2, 3).double())
    with pytest.raises(hsb.InvalidInput, match="neural"):
        through_plan(field)
