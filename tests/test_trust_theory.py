"""The paper's setting (arXiv 2506.15199): exact solutions, both theorems, and the cross-validation matrix."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_bvp

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.trust import (
    Box,
    Equation,
    Linear,
    cosine,
    cross_validate,
    exact_green,
    fit_bias,
    gaussian_field,
    hats,
    linear_fit,
    linear_limit,
    polynomial,
    sine,
    standard_models,
    standard_spaces,
)
from hybridsam_bridge.trust.theory import fit_coefficient, linear_descent

# Published biases of the second-order fit on polynomials of degree 2, at N = 8, 16, 32, 64.
PUBLISHED = {8: "6.1e-04", 16: "1.5e-04", 32: "3.9e-05", 64: "9.7e-06"}


@pytest.mark.parametrize("space", [polynomial(6), sine(5), cosine(5), hats(6), gaussian_field()], ids=lambda s: s.name)
def test_solutions_satisfy_the_equation(space):
    equation = Equation(n=12, k=1.7)
    for j in (0, space.dim - 1):

        def ode(x, y, j=j):
            return np.stack([y[1], -space.basis(x)[:, j] / equation.k])

        mesh = np.linspace(0, 1, 241)  # contains the knots of hats(6)
        found = solve_bvp(ode, lambda a, b: np.array([a[0], b[0]]), mesh, np.zeros((2, 241)), tol=1e-9)
        # solve_bvp's own tolerance is 1e-9 relative on the residual; solutions are of order 0.1.
        np.testing.assert_allclose(equation.solutions(space)[:, j], found.sol(equation.grid)[0], atol=2e-9)


def test_biharmonic_is_poisson_twice():
    equation, modes = Equation("biharmonic", n=16), np.pi * np.arange(1, 7)
    # Closed form for sines; quadrature is exact to rounding.
    np.testing.assert_allclose(equation.solutions(sine(6)), equation.forcings(sine(6)) / modes**4, atol=1e-15)


def test_two_dimensions_follow_the_eigenvalues():
    equation, n = Equation("poisson2d", n=8), 8
    lam = 4 * n**2 * np.sin(np.pi * np.arange(1, 4) / (2 * n)) ** 2  # of the second difference on sines
    expected = equation.forcings(sine(3)) / (lam[:, None] + lam[None, :]).reshape(-1)
    np.testing.assert_allclose(equation.solutions(sine(3)), expected, atol=1e-14)  # direct solve: rounding


def test_bias_of_second_order_fit_matches_its_closed_form():
    # For f = c0 + c1 x + c2 x², FD2(u) exceeds f by c2 Δx²/6, so with independent coefficients of equal variance
    # w/k = Σ(f·g)/Σ(g·g) with g = f + e, summed over the basis and the interior points.
    for n in (8, 16, 32, 64):
        x = np.arange(1, n) / n
        e = 1 / (6 * n**2)
        w = np.sum(1 + x**2 + x**2 * (x**2 + e)) / np.sum(1 + x**2 + (x**2 + e) ** 2)
        bias = fit_bias(Equation(n=n, k=2.5), polynomial(2, "monomial"), 2)
        assert bias == pytest.approx(abs(w - 1), rel=1e-7)  # cancellation: bias 1e-5 from numbers good to 1e-15


def test_published_biases_are_a_draw_of_the_same_setting():
    limit = {n: fit_bias(Equation(n=n), polynomial(2, "monomial"), 2) for n in PUBLISHED}
    # A finite sample scales the bias at every N by one factor, to the two digits printed.
    factors = np.array([float(text) / limit[n] for n, text in PUBLISHED.items()])
    rounding = np.array([0.05 / float(text[:3]) for text in PUBLISHED.values()])
    low, high = (factors * (1 - rounding)).max(), (factors * (1 + rounding)).min()
    assert low < high
    # That factor lies inside the scatter of 1000 draws (the central 95% of 200 repetitions) ...
    scatter = [fit_bias(Equation(n=64), polynomial(2, "monomial"), 2, 1000, seed) / limit[64] for seed in range(200)]
    assert np.quantile(scatter, 0.025) < low
    assert high < np.quantile(scatter, 0.975)
    # ... and a draw with that factor has all the printed digits at once.
    seed = next(i for i, s in enumerate(scatter) if low < s < high)
    found = {n: f"{fit_bias(Equation(n=n), polynomial(2, 'monomial'), 2, 1000, seed):.1e}" for n in PUBLISHED}
    assert found == PUBLISHED


@pytest.mark.parametrize(("order", "degree"), [(2, 2), (2, 3), (4, 4), (4, 5)])
def test_bias_has_the_order_of_the_stencil(order, degree):
    biases = [fit_bias(Equation(n=n), polynomial(degree, "monomial"), order) for n in (16, 32, 64)]
    slopes = np.log2(np.array(biases[:-1]) / biases[1:])
    # The next term of the expansion is one power of Δx smaller: the departure halves with Δx.
    departure = np.abs(slopes - order)
    assert departure[1] < 0.15
    assert departure[1] < 0.6 * departure[0]


@pytest.mark.parametrize(("order", "degree"), [(2, 0), (2, 1), (4, 2), (4, 3)])
def test_bias_is_zero_below_the_order(order, degree):
    # Rounding of u (1e-17) over Δx² = 1/64² leaves 1e-13 in the difference.
    assert fit_bias(Equation(n=64), polynomial(degree, "monomial"), order) < 2e-13


def test_more_samples_do_not_remove_the_bias():
    limit = fit_bias(Equation(n=16), polynomial(4, "monomial"), 2)
    many = fit_bias(Equation(n=16), polynomial(4, "monomial"), 2, samples=100_000)
    assert many == pytest.approx(limit, rel=0.05)  # sampling error of 1e5 draws is about 1%


@pytest.mark.parametrize("space", [polynomial(8), sine(8), cosine(8), hats(6), hats(24)], ids=lambda s: s.name)
def test_linear_model_converges_to_the_projection(space):
    equation, rng = Equation(n=24), np.random.default_rng(0)
    operator = equation.element_operator()
    basis = equation.forcings(space)  # seen as finite-element data: interpolated on the grid, u = A f exactly
    start = rng.standard_normal(operator.shape)
    f = rng.standard_normal((500, space.dim)) @ basis.T
    u = f @ operator.T
    limit = linear_limit(operator, basis, start)
    np.testing.assert_allclose(linear_fit(f, u, start), limit, atol=1e-12)
    # Gradient descent itself, 5000 accelerated steps: the slowest direction has decayed to about 1e-9.
    np.testing.assert_allclose(linear_descent(f, u, start, 5000), limit, atol=1e-7)


def test_linear_limit_depends_on_the_space_alone():
    equation = Equation(n=16)
    weights = []
    for samples in (20, 2000):
        model = Linear()
        model.fit(*equation.data(sine(4), samples, seed=samples))
        weights.append(model.weight)
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-14)  # rounding


def test_cross_validation_of_the_linear_model():
    spaces = [polynomial(8), sine(8), cosine(8), hats(24), gaussian_field()]
    skill = cross_validate(Linear, Equation(n=24), spaces).skill
    own = np.diag(skill)
    assert (own[:4] < -14).all(), "near machine precision on its own space"
    others = np.delete(skill[2], 2)
    assert (others > -0.15).all(), "trained on cosines: at least 70% of the error of predicting zero elsewhere"
    # Hats fill the grid, so what is left elsewhere is the interpolation error of the forcing, of order Δx².
    assert (np.delete(skill[3], 3) < -1.7).all()


def test_families_nest():
    equation = Equation(n=24)
    skill = cross_validate(Linear, equation, [sine(2), sine(4), sine(8)]).skill
    assert (skill[np.tril_indices(3)] < -14).all(), "a larger space of the family contains the smaller"
    assert (skill[np.triu_indices(3, 1)] > -2).all()


def test_parameter_fit_and_black_box_fail_in_opposite_directions():
    spaces = [polynomial(1), polynomial(2), polynomial(4), polynomial(8)]
    equation = Equation(n=24)
    difference = cross_validate(standard_models(equation)[0], equation, spaces)
    black_box = cross_validate(Linear, equation, spaces)
    drift = np.abs(np.array(difference.drift) - 1)
    assert (np.diff(drift) > 0).all(), "richer data bias the parameter more"
    assert drift[0] < 1e-12
    assert (np.diff(black_box.skill[:, 3]) < 0).all(), "richer data help the black box"


def test_biharmonic_and_two_dimensions_have_the_same_structure():
    for equation in (Equation("biharmonic", n=16), Equation("poisson2d", n=8)):
        skill = cross_validate(Linear, equation, [sine(2), sine(4), cosine(3)], n_train=300).skill
        # Conditioning of the fit (the eigenvalues of u span 4 to 6 decades) leaves 1e-11 of rounding.
        assert skill[1, 0] < -11
        assert skill[1, 1] < -11
        assert skill[0, 1] > -2.5
        assert skill[2, 0] > -0.5


def test_noise_raises_the_floor_and_keeps_the_structure():
    spaces = [sine(4), cosine(4)]
    skill = cross_validate(Linear, Equation(n=16), spaces, n_train=1000, noise=1e-3).skill
    # Noise 1e-3 averaged over 1000 samples for 4 unknown directions: 1e-3 sqrt(4/1000) = 6e-5.
    assert -4.6 < skill[0, 0] < -3.8
    assert skill[1, 0] > -0.15


@pytest.mark.parametrize(
    "kinds", [slice(3, 7), pytest.param(slice(7, 8), marks=pytest.mark.slow)], ids=["dense", "FNO"]
)
def test_networks_learn_their_own_space_and_not_the_other(kinds):
    equation = Equation(n=12)
    for make in standard_models(equation, steps=300)[kinds]:
        result = cross_validate(make, equation, [sine(3), cosine(3)], n_train=100, n_test=50)
        own, far = np.diag(result.skill), result.skill[1, 0]
        # Short trainings reach 3 to 10% of the solution's size; far from home the error stays of order one.
        assert (own < -0.8).all(), result.model
        assert far > -0.9, result.model
        assert far > own[1] + 0.5, result.model


@pytest.mark.parametrize(
    ("kinds", "orders"),
    [(slice(0, 3), tuple(range(1, 9))), pytest.param(slice(3, 7), (2, 8), marks=pytest.mark.slow)],
    ids=["closed form", "networks"],
)
def test_the_whole_matrix(kinds, orders):
    equation, spaces = Equation(n=24), standard_spaces(24, orders)
    for make in standard_models(equation, steps=400)[kinds]:
        result = cross_validate(make, equation, spaces, n_train=200, n_test=100)
        assert result.relative_error.shape == (3 * len(orders) + 2, 3 * len(orders) + 2)
        assert np.isfinite(result.relative_error).all()
        families = [name.split()[0] for name in result.names]
        cosines, sines = ([i for i, name in enumerate(families) if name == kind] for kind in ("cosine", "sine"))
        if result.drift is None:  # black boxes trained on cosines have little skill on sines
            assert np.median(result.skill[np.ix_(cosines, sines)]) > -0.5, result.model


def test_bad_input_is_refused():
    with pytest.raises(InvalidInput, match="order"):
        polynomial(-1)
    with pytest.raises(InvalidInput, match="elements"):
        hats(1)
    with pytest.raises(InvalidInput, match="legendre"):
        polynomial(2, "chebyshev")
    with pytest.raises(InvalidInput, match="match"):
        sine(2).sample(3, np.linspace(0, 1, 5), np.random.default_rng(0), match="max")
    with pytest.raises(InvalidInput, match="low <= high"):
        Box("bad", (1.0,), (0.0,))
    with pytest.raises(InvalidInput, match="biharmonic"):
        fit_bias(Equation("biharmonic"), sine(2))
    with pytest.raises(InvalidInput, match="2 and 4"):
        fit_coefficient(np.ones((5, 1)), np.ones((5, 1)), 6, 3)
    with pytest.raises(InvalidInput, match="spaces"):
        cross_validate(Linear, Equation(), [])
    with pytest.raises(InvalidInput, match="closed"):
        exact_green(np.ones(2), np.ones(2), equation="heat")


def test_draws_have_the_stated_size():
    x, rng = np.linspace(0, 1, 41), np.random.default_rng(0)
    draws = sine(3).scaled(2.5).sample(7, x, rng, match="rms")
    np.testing.assert_allclose(np.sqrt(np.mean(draws**2, axis=1)), 2.5, rtol=1e-12)  # exact but for rounding
    field = gaussian_field(0.2).sample(4000, x, rng)
    # Unit mean square over the interval by construction; 4000 draws of about 5 effective modes: 1% scatter,
    # and the trapezoid's end points weigh a little more here.
    assert np.mean(field**2) == pytest.approx(1.0, rel=0.08)
    # Independent coefficients of unit variance, whichever their distribution.
    from dataclasses import replace

    assert np.var(replace(sine(2), coefficients="uniform").draw(20_000, rng)) == pytest.approx(1.0, rel=0.03)
