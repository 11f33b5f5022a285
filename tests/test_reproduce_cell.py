"""The single-particle cell against closed forms, the published open-circuit curves and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import hybridsam_bridge as hsb
from hybridsam_bridge.reproduce import cell as c
from hybridsam_bridge.reproduce.cell import NEGATIVE, POSITIVE, Cell, Shells
from hybridsam_bridge.reproduce.stiff_cell import KNOTS, SLOPE, MoreDiffusion, profiles, study

T0 = torch.zeros((), dtype=torch.float64)
CELL = Cell(4e-15, KNOTS, SLOPE)  # one for all tests: it is traced once


def run(current, end, warm=0.0, **options):
    """The state at rest after 1.3 A h, ``warm`` K above ambient, and that at ``end``."""
    y0 = CELL.rest(torch.tensor([1.3], dtype=torch.float64))
    y0[0, -1] = warm
    ts = torch.tensor([0.0, end], dtype=torch.float64)
    with torch.no_grad():
        return y0[0], hsb.solve(CELL, y0, ts, current[None], backend="torch", **options).ys[0, -1]


def average(shells, x):
    return float(3 * shells.volumes @ x)


@pytest.mark.parametrize(
    ("curve", "measured"),
    [
        (c.graphite, [(0.2016233, 0.2163537), (0.3015981, 0.1622411), (0.5015476, 0.1326557), (0.7014971, 0.0935076)]),
        (c.nmc, [(0.5002781, 3.9707632), (0.6990184, 3.7301605), (0.9004812, 3.5702102)]),
    ],
)
def test_open_circuit_potentials_are_those_measured(curve, measured):
    """Points of the measured curves of Chen et al.; their fit, which the model uses, is off by up to 2.4 mV there."""
    x, volt = torch.tensor(measured, dtype=torch.float64).T
    assert float((curve(x) - volt).abs().max()) < 3e-3


def test_lithium_is_conserved():
    """What leaves one electrode enters the other: a linear invariant, which every Rosenbrock method keeps to round-off.
    The charge that passed follows from the current to the solver's tolerance."""
    before, after = run(torch.full_like(KNOTS, 5.0), 600.0, rtol=1e-4, atol=1e-6)
    amount = [
        NEGATIVE.capacity * average(CELL.shells, y[:10]) + POSITIVE.capacity * average(CELL.shells, y[10:20])
        for y in (before, after)
    ]
    assert amount[1] == pytest.approx(amount[0], rel=1e-13)
    passed = NEGATIVE.capacity * (average(CELL.shells, before[:10]) - average(CELL.shells, after[:10]))
    assert passed == pytest.approx(5.0 * 600 / 3600, rel=1e-10)


def test_diffusion_settles_to_the_closed_form():
    """A sphere with constant outward flux: surface minus mean settles to -flux R / (5 D) (Crank, The Mathematics of
    Diffusion, 6.3.3). The shells are of second order: four times finer, sixteen times closer
    (0.26 % of the drop with 20)."""
    rate, errors = 1e-5, []
    for count in (5, 20):
        shells = Shells(count)
        matrix = torch.func.jacrev(lambda x, shells=shells: shells.inner(x, 4e-15, 5.22e-6))(
            torch.zeros(count).double()
        )
        # At the steady profile every shell falls at the same 3 * rate, the mean's fall.
        load = shells.outer(torch.tensor(rate).double()) + 3 * rate
        x = torch.linalg.lstsq(matrix, -load[:, None], driver="gelsd").solution[:, 0]
        assert float((matrix @ x + load).abs().max()) < 1e-6 * rate
        drop = float(shells.surface(x)) - average(shells, x)
        errors.append(abs(drop / (-rate * 5.22e-6**2 / 4e-15 / 5) - 1))
    assert errors[1] < 3e-3
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.3)


def test_heat_leaves_by_the_time_constant():
    """At rest the temperature falls as exp(-t hA / C), C = 42.8 J/K from the layers of the cell."""
    _, after = run(torch.zeros_like(KNOTS), 900.0, warm=20.0, rtol=1e-7, atol=1e-8)
    assert float(after[-1]) == pytest.approx(20 * math.exp(-900 * 10 * 0.00531 / 42.7753), rel=1e-5)


def test_small_currents_meet_the_linear_resistance():
    """asinh of a small argument: eta = R T I / (F S j0), with j0 of the published rate at 298.15 K."""
    x, current = 0.6, 1e-4
    found = c.overpotential(POSITIVE, torch.tensor(x).double(), torch.tensor(current).double(), T0)
    surface = 3 * 0.665 / 5.22e-6 * 0.1027 * 75.6e-6
    exchange = 3.42e-6 * math.sqrt(1000 * 63104 * x * 63104 * (1 - x))
    assert float(found) == pytest.approx(8.314462618 * 298.15 / 96485.33212 * current / (surface * exchange), rel=1e-6)


def by_hand(current_at, slope):
    """The cell's equations once more, shell by shell in plain NumPy."""
    n, edges = 10, np.linspace(0, 1, 11)

    def diffuse(x, d_of, radius, leaving):
        flow = np.zeros(n + 1)  # outward, times r²
        for k in range(1, n):
            flow[k] = -d_of(0.5 * (x[k] + x[k - 1])) / radius**2 * edges[k] ** 2 * (x[k] - x[k - 1]) * n
        flow[n] = leaving
        return -(flow[1:] - flow[:-1]) * 3 / (edges[1:] ** 3 - edges[:-1] ** 3)

    def f(t, y):
        current, kelvin = current_at(t), 298.15 + y[-1]
        loss = 0.0
        rates = []
        for sign, x, (length, radius, share, c_max, k, energy, d_of) in (
            (1, y[:10], (8.52e-5, 5.86e-6, 0.75, 33133.0, 6.48e-7, 35000.0, lambda x: 3.3e-14)),
            (
                -1,
                y[10:20],
                (7.56e-5, 5.22e-6, 0.665, 63104.0, 3.42e-6, 17800.0, lambda x: 4e-15 * (1 + slope * (x - 0.6))),
            ),
        ):
            area = 0.065 * 1.58 * length * 3 * share / radius
            flux = current / (96485.33212 * area)  # mol/(m² s)
            rates.append(diffuse(x, d_of, radius, sign * flux / (c_max * radius)))
            at = (15 * x[9] - 10 * x[8] + 3 * x[7]) / 8
            j0 = k * math.exp(energy / 8.314462618 * (1 / 298.15 - 1 / kelvin)) * math.sqrt(1e3 * at * (1 - at)) * c_max
            loss += 2 * 8.314462618 * kelvin / 96485.33212 * math.asinh(current / area / (2 * j0))
        warm = (current * loss - 10 * 0.00531 * y[-1]) / c.HEAT_CAPACITY
        return np.concatenate([*rates, [warm]])

    return f


def test_right_hand_side_is_the_one_written_down_again():
    """At states with gradients, at times on and between the knots of the current: equal to round-off."""
    current = profiles()["random"]
    f = by_hand(lambda t: np.interp(t, KNOTS, current), SLOPE)
    generator = torch.Generator().manual_seed(1)
    for t in (0.0, 60.0, 95.0, 1190.0):
        y = CELL.rest(torch.tensor([1.0]).double())[0] + 0.1 * torch.rand(21, dtype=torch.float64, generator=generator)
        found = CELL(torch.tensor(t).double(), y, current).detach().numpy()
        assert np.abs(found - f(t, y.numpy())).max() < 1e-12 * np.abs(found).max()


def test_solution_is_that_of_scipy():
    """Radau at rtol 1e-9 over five minutes of 1 C; stoichiometries to 1e-6 and kelvin to 1e-5 are ten times what rtol
    1e-7 leaves."""
    y0, found = run(profiles()["pauses"], 300.0, rtol=1e-7, atol=1e-9)
    f = by_hand(lambda t: 5.0, SLOPE)
    expected = solve_ivp(f, (0, 300.0), y0.numpy(), "Radau", [300.0], rtol=1e-9, atol=1e-11).y[:, 0]
    assert np.abs(found.numpy() - expected)[:-1].max() < 1e-6
    assert float(found[-1]) == pytest.approx(expected[-1], abs=1e-5)
    assert expected[-1] > 0.3  # it did warm up


def test_network_can_be_the_missing_part():
    """A network that gives the true slope makes the hybrid's right-hand side the truth's, to round-off."""
    truth, plain, more = CELL, Cell(4e-15, KNOTS), MoreDiffusion(4, 10)
    more.diffusivity = lambda x: POSITIVE.diffusivity * SLOPE * (x - 0.6)
    y = truth.rest(torch.tensor([1.0]).double())[0] + 0.05 * torch.rand(21, dtype=torch.float64)
    current = profiles()["random"]
    whole, parts = truth(T0, y, current), plain(T0, y, current) + more(y)
    assert torch.allclose(whole, parts, rtol=1e-10, atol=1e-18)


def test_profiles_for_training_and_testing_differ_and_voltages_are_a_cells():
    current = profiles()
    assert len({tuple(x.tolist()) for x in current.values()}) == 3
    problem = study(True).build(0)
    assert problem.data.y.shape == (2, 6)
    assert bool(((problem.data.y > 3.0) & (problem.data.y < 4.3)).all())
    assert torch.equal(problem.data.given["context"], torch.stack([current["pauses"], current["pulses"]]))
    with torch.no_grad():
        scores = problem.score(problem.model)
    assert scores["theta_error"] == pytest.approx(math.log(2), rel=1e-12)
