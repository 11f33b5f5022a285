"""The tunnels of the causal chambers: their physics, the measured light, the loader of the official wind dataset."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import hybridsam_bridge as hsb
from hybridsam_bridge.reproduce import light_tunnel as light
from hybridsam_bridge.reproduce import wind_tunnel as wind
from hybridsam_bridge.reproduce import wind_tunnel_measured as measured
from hybridsam_bridge.reproduce.data import data_folder
from hybridsam_bridge.reproduce.registry import load_study
from hybridsam_bridge.reproduce.run import build


@pytest.fixture(scope="module")
def rows():
    for file in light.FILES:
        if not (data_folder() / file).exists():
            pytest.skip(f"no {file} in {data_folder()}; set HYBRIDSAM_DATA")
    return light.load()


def r_squared(features, y):
    """NumPy's least squares with a constant."""
    matrix = np.column_stack([features, np.ones(len(y))])
    residual = y - matrix @ np.linalg.lstsq(matrix, y, rcond=None)[0]
    return 1 - residual @ residual / ((y - y.mean()) @ (y - y.mean()))


def test_measured_light_gives_the_published_least_squares(rows):
    """R² 0.615 without Malus's law, 0.917 with it, 0.926 with leakage: three digits are known."""
    y, colours = rows.far.numpy(), rows.brightness.numpy()
    assert len(y) == 11_000
    assert r_squared(colours, y) == pytest.approx(0.615, abs=5e-4)
    passed = np.cos(rows.angles[:, 0].numpy() - rows.angles[:, 1].numpy())[:, None] ** 2
    assert r_squared(colours * passed, y) == pytest.approx(0.917, abs=5e-4)
    assert r_squared(np.column_stack([colours * passed, colours]), y) == pytest.approx(0.926, abs=5e-4)


def test_own_least_squares_agree_with_numpy(rows):
    """The study's reference figures are NumPy's; both solve the same normal problem to rounding."""
    part = rows.batch(torch.arange(500))
    features = light.leakage_features(part["brightness"], part["angles"])
    found = light.least_squares(features, part["y"])
    with_constant = torch.cat([features, torch.ones(500, 1, dtype=torch.float64)], 1)
    fit = light.r_squared(with_constant @ found, part["y"])
    assert fit == pytest.approx(r_squared(features.numpy(), part["y"].numpy()), rel=1e-10)
    matrix = np.column_stack([rows.brightness.numpy(), np.ones(len(rows.near))])
    expected = np.linalg.lstsq(matrix, rows.near.numpy(), rcond=None)[0][:3]
    assert light.near_response(rows).numpy() == pytest.approx(expected, rel=1e-9)


def test_malus_law():
    """Aligned, crossed and at 45 degrees, for one unit of light: Tp, Tc and their mean."""
    malus = light.Malus()
    malus.p.assign(response=[1.0, 0.0, 0.0])
    brightness = torch.tensor([[1.0, 0.3, 0.9]] * 3, dtype=torch.float64)
    angles = torch.tensor([[0.4, 0.4], [0.4, 0.4 - math.pi / 2], [0.4, 0.4 + math.pi / 4]], dtype=torch.float64)
    expected = [light.ALIGNED, light.CROSSED, (light.ALIGNED + light.CROSSED) / 2]
    assert malus.intensity(brightness, angles).tolist() == pytest.approx(expected, rel=1e-12)
    turned = malus.intensity(brightness, angles + 0.7)  # only the angle between the polarisers counts
    assert turned.tolist() == pytest.approx(expected, rel=1e-12)


def test_light_roles_penalties_and_splits(rows):
    problem = build(load_study("light-tunnel", True), 0)
    assert [p.shape for p in hsb.scientific_parameters(problem.model)] == [(3,)]
    batch, model = problem.data, problem.model
    with torch.no_grad():
        scale = model.stages[1].scale
        added = model.stages[1].added(batch["brightness"], batch["angles"]) / scale
        science = model.stages[0].intensity(batch["brightness"], batch["angles"]) / scale
        square, product = light.NetworkSquare(2.0)(model, batch), light.MeanProduct(3.0)(model, batch)
    assert float(square) == pytest.approx(2 * float(added.square().mean()), rel=1e-12)
    assert float(product) == pytest.approx(3 * abs(float((science * added).mean())), rel=1e-10)
    taken = torch.cat([batch["angles"], batch["brightness"]], 1)
    other = torch.cat([problem.validation["angles"], problem.validation["brightness"]], 1)
    assert not bool((taken[:, None] == other[None]).all(-1).any())  # no row is in both parts


@pytest.mark.slow
def test_light_hybrid_beats_least_squares_on_held_out_rows(rows):
    """The full study's model with the functional norm, trained for a third of its time: a smaller error than least
    squares with leakage on the same test rows, and a better colour response than a sensor without colours."""
    problem = build(load_study("light-tunnel", False), 0)
    model, penalty = problem.model, light.NetworkSquare(0.1)
    groups = [
        {"params": hsb.neural_parameters(model), "lr": 3e-3},
        {"params": hsb.scientific_parameters(model), "lr": 3e-2},
    ]
    optimizer = torch.optim.Adam(groups)
    for _ in range(500):
        optimizer.zero_grad()
        (problem.loss_fn(model, problem.data) + penalty(model, problem.data)).backward()
        optimizer.step()
    with torch.no_grad():
        found = problem.score(model)
    assert found["prediction_error"] < found["ls_prediction_error"]
    plain = torch.cosine_similarity(torch.ones(3, dtype=torch.float64), light.near_response(rows), 0)
    assert found["cosine_similarity"] > 0.98 > float(plain)


RATIOS = (0.75, 0.8, 0.9, 0.999, 1.0)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("speed", [0.1, 0.5, 1.0])
def test_airflow_solves_its_quadratic(speed, ratio):
    """Z Q² + speed (Smax/Qmax) Q - speed² Smax = 0 to rounding, and Q is the positive root of NumPy's two."""
    z = float(wind.impedance(torch.tensor(ratio, dtype=torch.float64)))
    q = float(wind.airflow(torch.tensor(speed, dtype=torch.float64), torch.tensor(ratio, dtype=torch.float64)))
    linear, constant = speed * wind.PRESSURE_MAX / wind.FLOW_MAX, -(speed**2) * wind.PRESSURE_MAX
    assert abs(z * q * q + linear * q + constant) < 1e-12 * abs(constant)
    roots = np.roots([z, linear, constant]) if z else np.array([-constant / linear])
    assert max(roots.real) == pytest.approx(q, rel=1e-9)


def test_hatch_to_ratio_with_its_guard():
    found = wind.airflow_ratio(torch.tensor([0.0, 22.5, 45.0, 75.0, 90.0], dtype=torch.float64))
    assert found.tolist() == pytest.approx([0.75, 0.825, 0.9, 1.0, 1.0], rel=1e-12)
    assert float(wind.static_pressure(torch.tensor(0.7), torch.tensor(1.0))) == 0.0
    hatch = torch.tensor(90.0, requires_grad=True)
    wind.static_pressure(torch.tensor(0.7), wind.airflow_ratio(hatch)).backward()
    assert math.isfinite(float(hatch.grad))


def test_torque_of_loads():
    """T (Cmax - Cmin) L³, with the least load of 0.1."""
    loads = torch.tensor([0.01, 0.1, 0.5, 1.0], dtype=torch.float64)
    full = 0.05 * (0.27 - 0.166)
    assert wind.torque(loads).tolist() == pytest.approx([full * 1e-3, full * 1e-3, full / 8, full], rel=1e-12)
    # at full load and the fastest speed torque and drag balance: 5.2687e-8 has five digits
    assert full == pytest.approx(5.2687e-8 * (100 * math.pi) ** 2, rel=1e-4)


def test_simulated_impulses_are_the_chambers_equations():
    """Against SciPy, from load to load, with the friction term; noise is 0.2 Pa: its mean over 200 x 50 readings is
    below 0.01, its size within 3 %."""
    found = wind.simulate(200, 3)
    speeds, current = [np.array([0.1, 0.5])], np.array([0.1, 0.5])
    full, scale = 0.05 * 0.104, 3.481e-5 * 100 * math.pi
    for k in range(1, 50):
        load = np.array([max(0.1, wind.LOAD_IN[k]), 0.5])

        def f(t, w, load=load):
            return (full * load**3 - 5.2687e-8 * (w * 100 * math.pi) ** 2 - wind.FRICTION * full * w) / scale

        current = solve_ivp(f, (0, wind.PERIOD), current, "DOP853", rtol=1e-10, atol=1e-12).y[:, -1]
        speeds.append(current)
    w = np.array(speeds)
    share = 0.25 - 0.15 * found.hatch.numpy()[:, None] / 45  # 1 - r
    noise = found.pressure.numpy() - 74.8247 * share * (w[:, 0] ** 2 - w[:, 1] ** 2)
    assert abs(noise.mean()) < 0.01
    assert noise.std() == pytest.approx(0.2, rel=0.03)
    assert 0 <= float(found.hatch.min()) < 2
    assert 43 < float(found.hatch.max()) <= 45


def test_encoder_stands_for_theta_and_truth_predicts_the_impulses():
    """With the true hatch and without missing friction the science alone leaves the noise, 0.04 Pa² (3 % from 60 x 50
    readings' scatter, tripled)."""
    impulses = wind.simulate(200, 1, friction=0.0)
    problem = wind.problem(impulses, [60, 40, 100], 8, 0, quick=True)
    science = {id(p) for p in hsb.scientific_parameters(problem.model)}
    assert science == {id(p) for p in problem.model.encoder.parameters()}
    tunnel = wind.Tunnel(
        wind.Fans(impulses.ts, wind.loads_of(impulses)), impulses, method="Tsit5", rtol=1e-6, atol=1e-8, backend="torch"
    )
    with torch.no_grad():
        predicted = tunnel(impulses.ts, context=impulses.hatch[:, None])
    assert float((predicted - impulses.pressure).square().mean()) == pytest.approx(0.04, rel=0.09)


def write_dataset(path, impulses, ambient=95735.5):
    """In the columns of wt_intake_impulse_v1, with others between them."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["timestamp", "config", *measured.COLUMNS[1:], "mic"])
        for i, (pressure, hatch) in enumerate(zip(impulses.pressure, impulses.hatch, strict=True)):
            for k in range(50):
                loads = float(impulses.load_in[k]), float(impulses.load_out[k])
                reading = ambient + float(pressure[k])
                writer.writerow(
                    [1000 + 9 * i + float(impulses.ts[k]), "standard", i, float(hatch), *loads, reading, ambient, 3]
                )


def test_official_dataset_is_read(tmp_path, monkeypatch):
    """A file written in its format gives back the impulses; the study runs on it, with the barometer's offset."""
    impulses = wind.simulate(210, 0)
    folder = tmp_path / "wt_intake_impulse_v1"
    folder.mkdir()
    path = folder / "load_out_0.5_osr_downwind_4.csv"
    write_dataset(path, impulses)
    found = measured.load(path)
    assert float((found.pressure - impulses.pressure).abs().max()) < 1e-9  # 95735.5 in float64 has 1e-11
    assert torch.equal(found.hatch, impulses.hatch)
    assert torch.equal(found.load_in, impulses.load_in)
    assert float((found.ts - impulses.ts).abs().max()) < 1e-10
    monkeypatch.setenv("HYBRIDSAM_DATA", str(tmp_path))
    problem = build(load_study("wind-tunnel-measured", True), 0)
    assert hsb.physical_values(problem.model) == {"offset": (0.0, "Pa")}
    with torch.no_grad():
        assert math.isfinite(problem.score(problem.model)["prediction_error"])


def test_official_dataset_is_refused_where_it_is_not_one(tmp_path):
    impulses = wind.simulate(2, 0)
    path = tmp_path / "impulses.csv"
    write_dataset(path, impulses)
    lines = path.read_text().splitlines(keepends=True)
    cases = {
        "has no column pressure_ambient": [lines[0].replace("pressure_ambient", "p"), *lines[1:]],
        "99 rows, not a multiple of 50": lines[:-1],
        "flag changes within 50 rows": [lines[0], *lines[11:], *lines[1:11]],
        "load_in differs between impulses": [*lines[:-1], lines[-1].replace(",0.01,", ",1.0,")],
    }
    for message, changed in cases.items():
        path.write_text("".join(changed))
        with pytest.raises(hsb.InvalidInput, match=message):
            measured.load(path)
