"""The report on hybrid models with the solver in the loop."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import trust_models as models
from trust_models import HEAT_TIMES, SOLVER, N

from hybridsam_bridge import trust
from hybridsam_bridge.trust import report as report_module


@pytest.fixture(scope="module")
def heat_spaces():
    # The draws of the third are those of the first in shape and beyond them in size.
    return [trust.sine(2), trust.hats(N + 1), trust.sine(2).scaled(2.5, "large")]


def _heat_report(factory, spaces, **more):
    return trust.generalisation_report(
        factory,
        models.quick_fit(),
        models.HeatWithSink(),
        spaces=spaces,
        **{"n_train": 12, "n_test": 8, "ts": HEAT_TIMES, "solver": SOLVER, **more},
    )


@pytest.fixture(scope="module")
def pointwise(heat_spaces, tmp_path_factory):
    return _heat_report(models.pointwise_heat, heat_spaces, folder=tmp_path_factory.mktemp("pointwise"))


def test_a_pointwise_network_fails_along_amplitude(pointwise):
    own, modes, amplitude = pointwise.skill[0]
    # It learns the sink on the visited range to a few per cent; beyond it tanh goes flat where -u³ goes on.
    assert own < -1
    assert modes < -0.5
    assert amplitude > own + 0.7
    assert amplitude > modes + 0.3
    residual, outside = pointwise.coverage("residual")[0], pointwise.coverage("outside")[0]
    assert (residual == 0).all(), "one number has no other direction to go"
    assert outside[2] > outside[0] + 0.1
    text = pointwise.summary()
    assert "Trained on sine 2, the network's inputs leave the visited range on" in text
    assert "large (" in text.split("leave the visited range on")[1]
    assert "never visited" not in text
    assert "input is one number a point" in text


def test_parameters_and_impulses_of_the_pointwise_model(pointwise):
    mean, spread = pointwise.drift["D"]["sine 2"]
    assert mean == pytest.approx(0.02, rel=0.1)  # the truth's; identified since the network is pointwise
    assert spread == 0
    model, reference = pointwise.impulse_error["sine 2"]
    assert model < 0.5 * reference
    assert (pointwise.failures == 0).all()
    assert np.nanmax(pointwise.solver_change) < 0.5  # tolerance 1e-4 against errors of 1e-3 and more


def test_a_dense_network_fails_along_modes(heat_spaces):
    report = _heat_report(models.dense_heat, heat_spaces[:2], n_train=24)
    own, modes = report.skill[0]
    assert own < -0.5
    assert modes > 0, "worse than no network on modes that training never showed"
    residual = report.coverage("residual")
    assert residual[0, 1] > 0.3
    assert residual[0, 0] < 0.05
    text = report.summary()
    assert "Trained on sine 2, the network's inputs point in directions never visited on hats 9" in text
    assert "worse than no network on hats 9" in text


def test_files_can_be_read_back(pointwise):
    folder = pointwise.folder
    again = trust.GeneralisationReport.load(folder / "report.json")
    assert again.summary() == pointwise.summary()
    np.testing.assert_array_equal(again.skill, pointwise.skill)
    assert {p.name for p in folder.glob("*.png")} == {"skill.png", "outside.png", "residual.png", "drift.png"}
    for path in folder.glob("*.png"):
        assert path.read_bytes()[:4] == b"\x89PNG"
    data = json.loads((folder / "report.json").read_text())
    assert data["names"] == ["sine 2", "hats 9", "large"]
    assert data["skill"][0][0] == pytest.approx(pointwise.skill[0, 0], abs=1e-6)


def test_an_interrupted_report_goes_on(pointwise, heat_spaces, monkeypatch):
    (pointwise.folder / "rows" / "space01-seed0.json").write_text("{ half a row")
    ran = []
    real = report_module.run_row

    def counting(job, index, seed):
        ran.append((index, seed))
        return real(job, index, seed)

    monkeypatch.setattr(report_module, "run_row", counting)
    lines = []
    again = _heat_report(models.pointwise_heat, heat_spaces, folder=pointwise.folder, say=lines.append)
    assert ran == [(1, 0)]
    assert lines[0] == "2 of 3 rows were there already."
    # The same seeds, draws and arithmetic: the row made again is the same to the last digit.
    np.testing.assert_array_equal(again.skill, pointwise.skill)


def test_subspace_theorem_through_the_solver():
    # Linear truth, linear network from zero: on modes orthogonal to the training's it is as good as no network,
    # exactly, and on its own space the missing term is found. The modes decay alone, whatever the other do.
    second = np.sin(np.pi * np.arange(1, N + 1) / (N + 1))

    class High:
        name = "modes 3 and 4"

        def sample(self, n, x, rng, match=None):
            return rng.standard_normal((n, 2)) @ np.sin(np.pi * np.outer([3, 4], x))

    spaces = [trust.sine(2), High()]
    report = trust.generalisation_report(
        models.linear_heat,
        models.quick_fit(30, decay=0.0, rtol=1e-8, atol=1e-10),
        models.HeatWithLoss(),
        spaces=spaces,
        n_train=6,
        n_test=4,
        ts=HEAT_TIMES,
        solver={**SOLVER, "rtol": 1e-8, "atol": 1e-10},
        match=None,
        solver_check=False,
    )
    assert second.shape == (N,)
    assert report.skill[0, 0] < -3
    assert report.skill[1, 1] < -3
    # Rounding and the solver's tolerance of 1e-8 leave about 1e-7 of leakage between the modes.
    assert abs(report.skill[0, 1]) < 1e-5
    assert abs(report.skill[1, 0]) < 1e-5
    assert report.coverage("residual")[0, 1] == pytest.approx(1.0, abs=1e-6)
    assert np.isnan(report.solver_change).all()


def test_pendulum_amplitudes_and_forcings():
    # Not stiff: an explicit method does, and quicker.
    solver, fit = {**SOLVER, "method": "Tsit5"}, models.quick_fit(30, method="Tsit5")
    common = {"n_train": 8, "n_test": 6, "ts": torch.linspace(0, 4, 6, dtype=torch.float64), "solver": solver}
    boxes = [trust.Box("small", (-0.5, -0.5), (0.5, 0.5)), trust.Box("wide", (-2.0, -2.0), (2.0, 2.0))]
    amplitudes = trust.generalisation_report(
        models.hybrid_pendulum, fit, models.DampedPendulum(), spaces=boxes, **common
    )
    assert amplitudes.skill[0, 0] < -1
    assert amplitudes.skill[1, 0] < -0.3, "the wide box contains the small one"
    assert amplitudes.skill[0, 1] > amplitudes.skill[0, 0] + 0.7
    outside = amplitudes.coverage()
    assert outside[0, 1] > 0.5
    assert outside[1, 0] < 0.05

    forcings = trust.generalisation_report(
        models.hybrid_pendulum,
        fit,
        models.DampedPendulum(),
        vary="forcing",
        spaces=[trust.sine(1).scaled(0.4, "slow"), trust.sine(4).scaled(2.0, "strong")],
        grid=np.linspace(0, 1, 9),
        y0=torch.tensor([0.5, 0.0], dtype=torch.float64),
        impulses=0,
        solver_check=False,
        **common,
    )
    assert forcings.settings["vary"] == "forcing"
    assert forcings.skill[0, 0] < -0.7
    assert forcings.skill[0, 1] > forcings.skill[0, 0] + 0.5
    assert forcings.coverage()[0, 1] > 0.3


def test_parameters_can_be_varied():
    report = trust.generalisation_report(
        models.hybrid_pendulum,
        models.no_fit,
        models.DampedPendulum(),
        vary="parameter",
        spaces=[trust.Box("weak", (0.0,), (0.1,)), trust.Box("strong", (1.0,), (2.0,))],
        place=lambda draws: draws.expand(len(draws), 9),  # a constant forcing
        n_train=3,
        n_test=3,
        ts=torch.linspace(0, 2, 3, dtype=torch.float64),
        solver=SOLVER,
        impulses=1,
    )
    assert np.isfinite(report.skill).all()
    assert report.coverage()[0, 1] > 0.3


def test_fitzhugh_nagumo():
    spaces = [trust.cosine(2), trust.gaussian_field(0.15)]
    report = trust.generalisation_report(
        models.hybrid_fitzhugh,
        models.quick_fit(45, method="Tsit5"),
        models.FitzHughNagumoTruth(),
        spaces=spaces,
        n_train=6,
        n_test=6,
        ts=torch.linspace(0, 1.5, 5, dtype=torch.float64),
        grid=(np.arange(6) + 0.5) / 6,
        place=models.start_u,
        solver={**SOLVER, "method": "Tsit5"},
        noise=0.01,
        impulses=0,
        solver_check=False,
    )
    # A pointwise reaction learned on one family of modes serves the other, noise of 1% and all.
    assert (report.skill < -0.3).all()
    assert (report.coverage("residual") == 0).all()
