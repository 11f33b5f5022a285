"""The science of the stiff studies: published end points, SciPy on the same equations, and how stiff they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import END_POINTS
from scipy.integrate import solve_ivp

import hybridsam_bridge as hsb
from hybridsam_bridge.reproduce import stiff_hires, stiff_oregonator, stiff_rober
from hybridsam_bridge.reproduce.kinetics import network_layers
from hybridsam_bridge.reproduce.registry import load_study

PUBLISHED = {
    "rober-40": stiff_rober.Robertson(stiff_rober.K1),
    "hires": stiff_hires.Hires(stiff_hires.K4, stiff_hires.BACK),
    "orego-30": stiff_oregonator.Oregonator(stiff_oregonator.S),
}


def rober(t, y):
    a, b, c = y
    one, two, three, four = 0.04 * a, 3e7 * b * b, 1e4 * b * c, 0.003 * c
    return np.array([-one + three + four, one - two - three, two - four])


def hires(t, y):
    bind = 280 * y[5] * y[7]
    return np.array(
        [
            -1.71 * y[0] + 0.43 * y[1] + 8.32 * y[2] + 0.0007,
            1.71 * y[0] - 8.75 * y[1],
            -10.03 * y[2] + 0.43 * y[3] + 0.035 * y[4],
            8.32 * y[1] + 1.71 * y[2] - 1.12 * y[3],
            -1.745 * y[4] + 0.43 * (y[5] + y[6]),
            -bind + 0.69 * y[3] + 1.71 * y[4] - 0.43 * y[5] + 0.69 * y[6],
            bind - 1.81 * y[6],
            -bind + 1.81 * y[6],
        ]
    )


def oregonator(t, y):
    x, z = y[0], y[2]
    bromide = (z - (1 + x) * y[1]) / 77.27 + 0.003 * (3000 - y[1])
    return np.array([77.27 * (y[1] + x * (1 - 8.375e-6 * x - y[1])), bromide, 0.161 * (x - z)])


# What made the data, the same in NumPy, a typical start, an end within the study's window, sizes of the states.
TRUTHS = {
    "stiff-rober": (
        stiff_rober.Robertson(stiff_rober.K1, stiff_rober.BACK),
        rober,
        [0.75, 0.0, 0.3],
        4.0,
        (1.0, 1e-4, 1.0),
    ),
    "stiff-hires": (
        stiff_hires.Hires(stiff_hires.K4, stiff_hires.BACK),
        hires,
        [0.6, 0.05, 0.01, 0.3, 0.2, 0.3, 0.002, 0.0037],
        20.0,
        stiff_hires.SIZE,
    ),
    "stiff-oregonator": (
        stiff_oregonator.Oregonator(stiff_oregonator.S, stiff_oregonator.FLOW),
        oregonator,
        [5.0, 1e3, 1e4],
        0.5,
        stiff_oregonator.SIZE,
    ),
}


def solved(field, y0, end, rtol, atol):
    with torch.no_grad():
        return hsb.solve(field, y0, torch.tensor([0.0, end]).double(), rtol=rtol, atol=atol, backend="torch")


@pytest.mark.parametrize("name", PUBLISHED)
def test_equations_reach_the_published_end_points(name):
    """At rtol 1e-7 the global error stays below 1e-5; a wrong rate would show in the first digits."""
    point = next(p for p in END_POINTS if p.name == name)
    found = solved(PUBLISHED[name], point.y0, point.t_end, 1e-7, 1e3 * torch.as_tensor(point.atol)).ys[-1]
    assert torch.allclose(found, point.y_end, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("name", TRUTHS)
def test_data_are_those_of_the_whole_equations(name):
    """Against SciPy's Radau on equations written down again; 1e-6 of a size is ten times what rtol 1e-7 leaves."""
    field, f, y0, end, size = TRUTHS[name]
    size = np.array(size)
    expected = solve_ivp(f, (0, end), y0, "Radau", [end], rtol=1e-9, atol=1e-11 * size).y[:, 0]
    found = solved(field, torch.tensor(y0).double(), end, 1e-7, torch.from_numpy(1e-9 * size)).ys[-1]
    assert np.abs((found.numpy() - expected) / size).max() < 1e-6


@pytest.mark.parametrize("name", TRUTHS)
def test_explicit_solvers_need_fifty_times_the_steps(name):
    """At the studies' tolerances. Measured: 260 (Robertson), 68 (HIRES) and 990 (Oregonator) times, over the part of
    the window that takes SciPy's RK45 less than a second; over the rest the ratio grows."""
    field, f, y0, end, size = TRUTHS[name]
    atol = 1e-5 * np.array(size)
    implicit = solved(field, torch.tensor(y0).double(), end, 1e-3, torch.from_numpy(atol)).stats.steps
    explicit = solve_ivp(f, (0, end), y0, "RK45", [end], rtol=1e-3, atol=atol).nfev / 6
    assert explicit > 50 * int(implicit)


@pytest.mark.parametrize(
    ("name", "totals", "layers"),
    [
        ("stiff-rober", [[1, 1, 1]], "2-8-8-1"),
        # What the two conversions hand on, and the ligand.
        ("stiff-hires", [[0, 0, 1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 1, 1]], "4-8-8-2"),
        # X and Z: the feed is of Y alone.
        ("stiff-oregonator", [[1, 0, 0], [0, 0, 1]], "2-8-8-1"),
    ],
)
def test_networks_act_on_what_they_may(name, totals, layers):
    """They exchange, and neither make nor lose; sums of numbers around a tenth of their gain, so to round-off."""
    problem = load_study(name, True).build(0)
    network = problem.model.field.neural
    with torch.no_grad():
        rates = torch.stack([network(y) for y in problem.data.given["y0"]])
    size = float(rates.abs().max())
    assert size > 0
    assert float((rates @ torch.tensor(totals, dtype=torch.float64).T).abs().max()) < 1e-14 * size
    assert network_layers(network) == layers


def test_noise_is_on_what_is_trained_on_and_not_on_the_test():
    """Same seed and initial states; 8 x 12 x 2 numbers scatter by 0.005 within 20 % (four standard errors)."""
    study = stiff_rober.study(True)
    problem, other = study.build(0), study.build(1)
    assert not torch.equal(problem.data.y, other.data.y)
    truth = TRUTHS["stiff-rober"][0]
    with torch.no_grad():
        clean = hsb.solve(truth, problem.data.given["y0"], problem.data.ts, rtol=1e-7, atol=1e-10, backend="torch").ys
    assert float((problem.data.y - clean[..., [0, 2]]).std()) == pytest.approx(0.005, rel=0.2)
    model = problem.model
    with torch.no_grad():
        model.field.science.p.assign(k1=stiff_rober.K1)
        scores = problem.score(model)
    assert scores["theta_error"] < 1e-12
    assert scores["k1"] == pytest.approx(stiff_rober.K1, rel=1e-12)
