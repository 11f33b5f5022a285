"""What reaches a network, and how far other inputs lie from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from trust_models import SOLVER, KnownHeat, N, dense_heat, pointwise_heat

import hybridsam_bridge as hsb
from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.trust import VisitedInputs, network_inputs

TS = torch.linspace(0, 1, 3, dtype=torch.float64)
YS = torch.randn(4, 3, N, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_a_pointwise_network_sees_points_and_a_dense_one_states():
    points = network_inputs(pointwise_heat(0), TS, YS)
    assert points.shape == (4 * 3 * N, 1)
    np.testing.assert_array_equal(points[:, 0], YS.reshape(-1).numpy())
    states = network_inputs(dense_heat(0), TS, YS)
    np.testing.assert_array_equal(states, YS.reshape(-1, N).numpy())


def test_scaled_inputs_are_seen_as_the_network_gets_them():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(N, N).double()

        def forward(self, y):
            return self.layer(10 * y)

    seen = network_inputs(hsb.Additive(KnownHeat(), Scaled()), TS, YS)
    np.testing.assert_array_equal(seen, 10 * YS.reshape(-1, N).numpy())


@pytest.mark.parametrize("dimensions", [1, 2])
def test_a_convolution_sees_its_patches(dimensions):
    class Smooth(hsb.VectorField):
        hsb_role = "neural"

        def __init__(self):
            super().__init__()
            self.state_shape = (2, 5) if dimensions == 1 else (2, 5, 4)
            kind = nn.Conv1d if dimensions == 1 else nn.Conv2d
            self.conv = kind(2, 2, 3, padding="same").double()

        def forward(self, t, y, context=None):
            return self.conv(y[None])[0]

    field = Smooth()
    ys = torch.randn(2, 3, *field.state_shape, dtype=torch.float64)
    patches = network_inputs(field, TS, ys)
    assert patches.shape[1] == 2 * 3**dimensions
    # The convolution is a linear map of its patches: those found must reproduce its inner outputs.
    weight, bias = field.conv.weight.detach().reshape(2, -1).numpy(), field.conv.bias.detach().numpy()
    inner = field(TS[0], ys[0, 0]).detach()[(slice(None), *[slice(1, -1)] * dimensions)].reshape(2, -1).numpy()
    np.testing.assert_allclose(patches[: inner.shape[1]] @ weight.T + bias, inner.T, atol=1e-12)  # rounding


def test_science_in_julia_is_not_asked():
    source = hsb.JuliaField("function f!(du, u, p, t)\n du .= -u\nend", function="f!", state_shape=(N,))
    seen = network_inputs(hsb.Additive(source, nn.Linear(N, N).double()), TS, YS)
    np.testing.assert_array_equal(seen, YS.reshape(-1, N).numpy())


def test_a_corrected_output_sees_predictions():
    science = hsb.InitialValueModel(KnownHeat(), **SOLVER)
    model = hsb.OutputCorrected(science, nn.Linear(N, N).double())
    seen = network_inputs(model, TS, YS)
    with torch.no_grad():
        expected = science(TS, y0=YS[:, 0]).reshape(-1, N).numpy()
    np.testing.assert_array_equal(seen, expected)
    assert science.solver == SOLVER, "options are put back"


def test_missing_states_are_left_out():
    ys = YS.clone()
    ys[1, 2, 0] = torch.nan
    assert len(network_inputs(dense_heat(0), TS, ys)) == 4 * 3 - 1


def test_without_network_there_is_nothing_to_cover():
    assert network_inputs(KnownHeat(), TS, YS) is None


def test_own_rule_for_inputs():
    seen = network_inputs(KnownHeat(), TS, YS, inputs=lambda field, t, y, c: y[:3])
    np.testing.assert_array_equal(seen, YS.reshape(-1, N)[:, :3].numpy())


def test_residual_and_range_by_hand():
    plane = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 2, 0], [0, -2, 0]])
    visited = VisitedInputs(plane)
    inside = visited.compare(np.array([[0.5, 1.0, 0.0]]))
    assert (inside.residual, inside.outside, inside.rank, inside.dimension) == (0.0, 0.0, 2, 3)
    # Length 5, of which 4 points out of the plane.
    assert visited.compare(np.array([[0.0, 3.0, 4.0]])).residual == pytest.approx(0.8, abs=1e-15)
    half = visited.compare(np.array([[0.0, 1.0, 0.0], [0.0, 2.5, 0.0]]))
    assert half.outside == 0.5
    assert half.residual == 0.0


def test_range_is_not_taken_for_symmetric():
    visited = VisitedInputs(np.linspace(-1, 5, 50)[:, None])
    assert visited.compare(np.array([[-3.0], [4.0]])).outside == 0.5


def test_bad_input_is_refused():
    with pytest.raises(InvalidInput, match="at least one"):
        VisitedInputs(np.zeros((0, 3)))
