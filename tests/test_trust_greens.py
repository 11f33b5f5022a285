"""Green's functions read from matrices, modules and predictors, against the exact ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.trust import Equation, Linear, Network, cosine, exact_green, greens_function, hats, sine
from hybridsam_bridge.trust.operators import mlp


def test_difference_operator_is_the_exact_one_at_the_grid():
    # The second difference with zero ends is nodally exact for point loads: its inverse is Δx G to rounding.
    equation = Equation(n=20, k=3.0)
    found = greens_function(equation.discrete_operator(), equation.grid)
    assert found.method == "impulses"
    assert found.linear
    assert found.error(lambda x, s: exact_green(x, s, k=3.0)) < 1e-12
    stencil = found.stencil()
    np.testing.assert_allclose(stencil.rows / (3.0 * 20**2), [0, -1, 2, -1, 0], atol=1e-10)  # condition about 160
    assert stencil.outside < 1e-12
    assert stencil.caution == ""


def test_element_data_give_the_whole_green_function():
    equation = Equation(n=24)
    model = Linear()
    model.fit(*equation.data(hats(24), 500, seed=0))
    found = greens_function(model, equation.grid)
    assert found.discrete_error(equation.element_operator()) < 1e-12
    # Against G itself: a hat is not a point load; on the diagonal of G the difference is Δx/6.
    assert found.error(exact_green) < 0.02
    assert not found.stencil().caution


def test_data_on_a_subspace_give_its_projection_and_a_caution():
    equation = Equation(n=16)
    model = Linear()
    model.fit(*equation.data(sine(4), 200, seed=0))
    found = greens_function(model, equation.grid)
    basis = equation.forcings(sine(4)) * np.sqrt(2 / 16)  # orthonormal on this grid
    expected = equation.discrete_operator() @ basis @ basis.T
    lam, exact = 4 * 16**2 * np.sin(np.pi * np.arange(1, 5) / 32) ** 2, (np.pi * np.arange(1, 5)) ** 2
    expected = expected @ basis @ np.diag(lam / exact) @ basis.T  # discrete to exact eigenvalues
    np.testing.assert_allclose(found.matrix, expected, atol=1e-14)
    assert "rank 4 of 15" in found.stencil().caution
    assert found.error(exact_green) > 0.02


def test_cosines_give_a_wrong_green_function():
    equation = Equation(n=24)
    model = Linear()
    model.fit(*equation.data(cosine(8), 500, seed=0))
    assert greens_function(model, equation.grid).error(exact_green) > 0.5


def test_nonlinear_models_by_their_jacobian():
    torch.manual_seed(0)
    module = mlp(9).double()
    grid = np.arange(1, 10) / 10
    found = greens_function(module, grid, about=0.3 * np.ones(9))
    assert found.method == "jacobian"
    assert not found.linear
    step = 1e-6
    x = torch.full((1, 9), 0.3, dtype=torch.float64)
    column = (module(x + step * torch.eye(9)[4]) - module(x - step * torch.eye(9)[4])) / (2 * step)
    np.testing.assert_allclose(found.matrix[:, 4], column[0].detach().numpy(), atol=1e-9)  # central differences
    impulses = greens_function(module, grid, about=0.3 * np.ones(9), method="impulses", size=1e-6)
    np.testing.assert_allclose(impulses.matrix, found.matrix, atol=1e-5)  # one-sided: size times the curvature


def test_predictors_without_gradients_and_float32_modules():
    equation = Equation(n=10)
    network = Network("small", mlp, steps=20)
    network.fit(*equation.data(hats(10), 50, seed=0))
    by_difference = greens_function(network, equation.grid, method="jacobian")
    scale = network.scales[1] / network.scales[0]
    by_autograd = greens_function(network.module, equation.grid, method="jacobian")
    np.testing.assert_allclose(by_difference.matrix, scale * by_autograd.matrix, atol=1e-8)  # central differences
    single = nn.Linear(9, 9)  # float32
    found = greens_function(single, equation.grid, method="jacobian")
    np.testing.assert_allclose(found.matrix, single.weight.detach().numpy(), atol=1e-7)


def test_bad_input_is_refused():
    with pytest.raises(InvalidInput, match="equally spaced"):
        greens_function(np.eye(3), [0.0, 0.1, 0.5])
    with pytest.raises(InvalidInput, match="method"):
        greens_function(np.eye(3), [0.1, 0.2, 0.3], method="magic")
    with pytest.raises(InvalidInput, match="model"):
        greens_function("net", [0.1, 0.2, 0.3])
    with pytest.raises(InvalidInput, match="that shape"):
        greens_function(np.ones((2, 3)), [0.1, 0.2, 0.3])
    with pytest.raises(InvalidInput, match="compare"):
        greens_function(np.eye(3), [0.1, 0.2, 0.3]).error(np.eye(4))
