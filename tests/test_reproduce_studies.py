"""Every registered study runs end to end on the embedded backend; the data of the oscillators are what they claim."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from typer.testing import CliRunner

import hybridsam_bridge as hsb
from hybridsam_bridge.cli import app
from hybridsam_bridge.reproduce import duffing, pendulum, pendulum_gym
from hybridsam_bridge.reproduce.data import data_folder
from hybridsam_bridge.reproduce.registry import STUDIES, load_study
from hybridsam_bridge.reproduce.windows import windows


def need(*files):
    """Skip where a file of the data folder, ../shared/data or HYBRIDSAM_DATA, is missing."""
    for file in files:
        if not (data_folder() / file).exists():
            pytest.skip(f"no {file} in {data_folder()}; set HYBRIDSAM_DATA")


def run(name, folder, *args):
    command = ["reproduce", name, "--quick", "--folder", str(folder), *map(str, args)]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "FAILED" not in result.output
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("name", STUDIES)
def test_study_runs_end_to_end(name, tmp_path):
    """ERM and SAM, one seed, three steps, in this process: everything that the quick version writes."""
    need(*load_study(name, True).files)
    found = run(name, tmp_path, "--methods", "erm,sam", "--seeds", 1, "--steps", 3, "--workers", 1)
    for method in ("erm", "sam"):
        for column in ("theta_error", "prediction_error", "sharpness"):
            assert math.isfinite(found["methods"][method][column]["mean"])
    assert found["failed"] == []
    assert len(found["about"]) > 200
    assert all(backend.startswith("torch") for backend in found["backends"])
    assert (tmp_path / "comparison.png").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", STUDIES)
def test_quick_version_ends_in_two_minutes(name, tmp_path):
    import time

    need(*load_study(name, True).files)
    began = time.monotonic()
    run(name, tmp_path)
    assert time.monotonic() - began < 120


def reference(f, y0, ts):
    return solve_ivp(f, (0.0, ts[-1]), y0, "DOP853", ts, rtol=1e-11, atol=1e-12).y.T


def test_pendulum_data_are_the_damped_pendulum():
    """Against SciPy; both at tolerances of 1e-9 or less, errors over 20 time units stay below 1e-6."""
    data = pendulum.sequences(3, 40, 5)
    radius = data.given["y0"].norm(dim=1)
    assert bool(((radius >= 1.3) & (radius <= 2.3)).all())
    ts = np.arange(40) * 0.5
    for y in data.y.numpy():
        expected = reference(lambda t, y: [y[1], -((math.pi / 3) ** 2) * np.sin(y[0]) - 0.2 * y[1]], y[0], ts)
        assert np.abs(y - expected).max() < 1e-6


def test_duffing_data_are_the_forced_oscillator():
    """As above. A window started at t = 2.5 with its start as context continues the sequence."""
    data = duffing.sequences(3, 40, 5)
    ts = np.arange(40) * 0.5
    d = duffing

    def f(t, y):
        return [y[1], d.GAMMA * np.cos(d.OMEGA * t) - d.DELTA * y[1] - d.ALPHA * y[0] - d.BETA * y[0] ** 3]

    for y in data.y.numpy():
        assert np.abs(y - reference(f, y[0], ts)).max() < 1e-6
    cut = windows(data, 5, with_start=True)
    truth = d.Duffing(d.ALPHA, d.DELTA, d.BETA)
    given = cut.given
    with torch.no_grad():
        y = hsb.solve(truth, given["y0"], cut.ts, given["context"], rtol=1e-9, atol=1e-9, backend="torch").ys
    assert float((y - cut.y).abs().max()) < 1e-6


def test_gym_data_are_the_simulator():
    """The recorded steps obey the simulator's semi-implicit Euler; float32 records give 1e-5 in the velocity."""
    need(pendulum_gym.FILE)
    states, torque = pendulum_gym.load(100)
    angle, velocity = states[..., 0], states[..., 1]
    expected = velocity[:, :-1] + 0.05 * (15.0 * torch.sin(angle[:, :-1]) + 3.0 * torque[:, :-1])
    free = expected.abs() < 8.0
    assert float((velocity[:, 1:] - expected)[free].abs().max()) < 1e-5
    assert float((angle[:, 1:] - angle[:, :-1] - 0.05 * velocity[:, 1:])[free].abs().max()) < 1e-5
    assert bool((pendulum_gym.cut(states).y[..., 1].abs() < 8.0).all())
    field = pendulum_gym.Gravity(9.0)
    assert field(torch.tensor(0.0), torch.tensor([0.5, 0.1], dtype=torch.float64)).tolist() == pytest.approx(
        [0.1, 13.5 * math.sin(0.5)], rel=1e-12
    )


def test_missing_data_are_refused_at_the_start(monkeypatch, tmp_path):
    monkeypatch.setenv("HYBRIDSAM_DATA", str(tmp_path))
    with pytest.raises(hsb.InvalidInput, match=r"expert_pendulum.npz is not there.*HYBRIDSAM_DATA"):
        CliRunner().invoke(
            app, ["reproduce", "pendulum-gym", "--folder", str(tmp_path / "runs")], catch_exceptions=False
        )
    assert not (tmp_path / "runs").exists()


def test_windows_are_slices():
    y = torch.arange(24.0).double().reshape(2, 12, 1)
    data = hsb.Trajectories(0.5 * torch.arange(12.0).double(), y)
    cut = windows(data, 4, 3, with_start=True)
    assert cut.ts.tolist() == [0.0, 0.5, 1.0, 1.5]
    assert cut.y[:, :, 0].tolist()[:3] == [[0, 1, 2, 3], [12, 13, 14, 15], [3, 4, 5, 6]]
    assert cut.given["y0"].tolist() == cut.y[:, 0].tolist()
    assert cut.given["context"][:, 0].tolist() == [0, 0, 1.5, 1.5, 3, 3]
    with pytest.raises(hsb.InvalidInput, match="2 to 12"):
        windows(data, 13)
    uneven = hsb.Trajectories(torch.tensor([0.0, 1.0, 3.0]).double(), y[:, :3])
    with pytest.raises(hsb.InvalidInput, match="evenly spaced"):
        windows(uneven, 2)
