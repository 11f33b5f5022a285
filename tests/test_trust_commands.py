"""``hybridsam-bridge trust`` and ``reproduce spatial-physics``."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from hybridsam_bridge.cli import app
from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.tasks.trust import trust_command

MODULE = """
import torch
import trust_models as models
from hybridsam_bridge import trust

def trust_report():
    return dict(
        model_factory=models.pointwise_heat, fit=models.no_fit, truth=models.HeatWithSink(),
        spaces=[trust.sine(1), trust.sine(2)], n_train=2, n_test=2, ts=models.HEAT_TIMES, solver=models.SOLVER,
        impulses=0,
    )
"""

TASK = """
import torch
import hybridsam_bridge as hsb
import trust_models as models

def build(options, solver):
    torch.manual_seed(0)
    ts = torch.linspace(0, 1, 4, dtype=torch.float64)
    y0 = torch.tensor([[0.5, 0.0], [-0.4, 0.2]], dtype=torch.float64)
    with torch.no_grad():
        y = hsb.solve(models.DampedPendulum(), y0, ts, **models.SOLVER).ys
    far = hsb.Trajectories(ts, 4 * y, y0=4 * y0)
    model = hsb.InitialValueModel(models.hybrid_pendulum(0), **models.SOLVER)
    return hsb.Task("pendulum", model, hsb.DataLoss(), hsb.Trajectories(ts, y, y0=y0), far)
"""


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_spatial_physics_is_reproduced(tmp_path):
    text = run("reproduce", "spatial-physics", "--folder", tmp_path)
    assert "6.1e-04" in text
    data = json.loads((tmp_path / "spatial-physics.json").read_text())
    for row in (data["bias"][n] for n in ("8", "16", "32", "64")):
        assert row["low"] < row["published"] < row["high"]
    assert max(data["projection"].values()) < 1e-12  # the theorem, to rounding
    assert data["green"]["hats 24"] < 0.05 < data["green"]["cosine 8"]
    linear = data["cross_validation"]["linear"]
    skill, cosines = np.array(linear["skill"]), linear["names"].index("cosine 8")
    assert (np.diag(skill)[:-1] < -13).all()  # rounding; the field has modes above the grid's
    others = [i for i, name in enumerate(linear["names"]) if not name.startswith("cosine")]
    assert (skill[cosines, others] > -0.15).all()
    assert {p.name for p in tmp_path.glob("*.png")} == {"FD2.png", "FD4.png", "linear.png"}


def test_unknown_study_is_refused():
    with pytest.raises(InvalidInput, match="spatial-physics"):
        CliRunner().invoke(app, ["reproduce", "alchemy"], catch_exceptions=False)


def test_report_of_a_module(tmp_path):
    (tmp_path / "heat_report.py").write_text(MODULE)
    text = run("trust", tmp_path / "heat_report.py", "--folder", tmp_path / "out", "--seeds", "1")
    assert "2/2 trained on" in text
    assert "in 0 of 2 cases the network at least halves the error" in text
    assert (tmp_path / "out" / "report.json").exists()
    assert (tmp_path / "out" / "skill.png").exists()
    assert "2 of 2 rows were there already." in run(
        "trust", tmp_path / "heat_report.py", "--folder", tmp_path / "out", "--seeds", "1"
    )


@pytest.mark.slow  # each process imports torch
def test_report_of_a_module_in_two_processes(tmp_path):
    (tmp_path / "parallel_report.py").write_text(MODULE)
    text = run("trust", tmp_path / "parallel_report.py", "--folder", tmp_path / "out", "--workers", "2")
    assert "2/2 trained on" in text


def test_coverage_of_a_run(tmp_path):
    (tmp_path / "pendulum_task.py").write_text(TASK)
    (tmp_path / "run.toml").write_text(
        f'[task]\nname = "pendulum_task.py"\n[train]\nsteps = 1\n[output]\nfolder = "{tmp_path}/runs"\n'
    )
    run("train", tmp_path / "run.toml", "--quiet")
    (folder,) = (tmp_path / "runs").iterdir()
    text = run("trust", folder)
    assert "the validation data" in text
    stored = json.loads((folder / "trust.json").read_text())
    # Validation starts at four times the amplitude: two numbers in, both directions visited, range left.
    validation = stored["the validation data"]
    assert validation["outside"] > 0.5
    assert validation["dimension"] == 2
    assert validation["residual"] < 1e-12
    assert 0 < stored["a forecast of twice the time"]["outside"] < 1


def test_what_cannot_be_reported_is_refused(tmp_path):
    (tmp_path / "empty_report.py").write_text("x = 1\n")
    with pytest.raises(InvalidInput, match="trust_report"):
        trust_command(str(tmp_path / "empty_report.py"), None, 1, None, print)
    with pytest.raises(InvalidInput, match=r"config\.json"):
        trust_command(str(tmp_path), None, 1, None, print)
