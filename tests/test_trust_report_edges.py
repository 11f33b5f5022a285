"""The report where things fail, on other hybrid forms, over seeds and processes, and on bad input."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import trust_models as models
from trust_models import HEAT_TIMES, SOLVER, N

import hybridsam_bridge as hsb
from hybridsam_bridge import trust
from hybridsam_bridge.errors import InvalidInput


def test_failed_solves_are_cells():
    report = trust.generalisation_report(
        models.explosive,
        models.no_fit,
        models.HeatWithSink(),
        spaces=[trust.sine(1).scaled(0.01, "tiny"), trust.sine(1).scaled(3.0, "big")],
        n_train=2,
        n_test=4,
        ts=HEAT_TIMES,
        solver={**SOLVER, "max_steps": 1000},
        reference=models.pointwise_heat,
        impulses=0,
    )
    # y' = 2 |y| y from 3 sqrt 2 ends at t = 0.12, and from the mirrored state as well.
    np.testing.assert_array_equal(report.failures, [[0, 1], [0, 1]])
    assert np.isnan(report.skill[:, 1]).all()
    text = report.summary()
    assert "solves fail on big (100%)" in text
    assert "could not be solved" in text
    assert report.impulse_error == {}
    assert report.drift["rate"]["tiny"] == (2.0, 0.0)


def test_a_failed_fit_is_a_row(tmp_path):
    report = trust.generalisation_report(
        models.explosive,
        models.failing_fit,
        models.HeatWithSink(),
        spaces=[trust.sine(1)],
        n_train=2,
        n_test=2,
        seeds=[3, 4],
        ts=HEAT_TIMES,
        solver=SOLVER,
        folder=tmp_path,
    )
    assert [(space, seed) for space, seed, _ in report.failed_fits] == [("sine 1", 3), ("sine 1", 4)]
    assert "SolveFailed" in report.failed_fits[0][2]
    assert "the fit failed" in report.summary()
    assert (tmp_path / "skill.png").exists()


@pytest.mark.slow  # each process imports torch
def test_rows_in_other_processes_are_the_same():
    common = {
        "spaces": [trust.sine(1), trust.sine(2)],
        "n_train": 3,
        "n_test": 3,
        "ts": HEAT_TIMES,
        "solver": SOLVER,
        "impulses": 0,
        "solver_check": False,
    }
    make = partial(
        trust.generalisation_report, models.pointwise_heat, models.quick_fit(3), models.HeatWithSink(), **common
    )
    # One process or two: the same arithmetic on one thread each.
    np.testing.assert_array_equal(make(workers=2).skill, make().skill)


@pytest.mark.parametrize("factory", [models.corrected_heat, models.observed_heat])
def test_other_hybrid_forms(factory):
    report = trust.generalisation_report(
        factory,
        models.quick_fit(4),
        models.HeatWithSink(),
        spaces=[trust.sine(2)],
        n_train=3,
        n_test=3,
        ts=HEAT_TIMES,
        solver=SOLVER,
    )
    assert report.failures[0, 0] == 0
    assert np.isfinite(report.skill).all()
    # The reference is the equations alone with the same D for both forms, fitted to the same data.
    alone = report.rows[0]["reference_parameters"]["D"]
    assert alone != pytest.approx(0.03, rel=0.01)
    assert report.coverage("dimension")[0, 0] == (N if factory is models.corrected_heat else 1)


def test_seeds_have_a_spread():
    report = trust.generalisation_report(
        models.pointwise_heat,
        models.no_fit,
        models.HeatWithSink(),
        spaces=[trust.sine(1)],
        n_train=2,
        n_test=2,
        seeds=2,
        ts=HEAT_TIMES,
        solver=SOLVER,
        impulses=0,
    )
    assert len(report.rows) == 2
    values = [np.log10(r["cells"][0]["error"] / r["cells"][0]["reference_error"]) for r in report.rows]
    assert report.skill[0, 0] == pytest.approx(np.mean(values), abs=1e-12)  # the same numbers, rounding
    assert report.skill_spread[0, 0] == pytest.approx(np.std(values), abs=1e-12)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"vary": "weather"}, "vary"),
        ({"spaces": []}, "spaces"),
        ({"spaces": [trust.sine(1), trust.sine(1)]}, "twice"),
        ({"n_train": 0}, "n_train"),
        ({"seeds": []}, "seeds"),
        ({"noise": -1.0}, "noise"),
        ({"match": "max"}, "match"),
        ({"reference": "persistence"}, "reference"),
        ({"grid": [[0.1]]}, "grid"),
        ({"grid": [0.1, 0.2]}, "place"),
        ({"truth": torch.nn.Linear(2, 2)}, "field"),
        ({"truth": models.Explosive(), "spaces": [trust.sine(1).scaled(9.0)]}, "truth itself"),
        ({"model_factory": lambda seed: torch.nn.Linear(2, 2)}, "model_factory"),
        ({"model_factory": lambda seed: None, "workers": 2}, "picklable"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_refused(change, match):
    arguments = {
        "model_factory": models.pointwise_heat,
        "fit": models.no_fit,
        "truth": models.HeatWithSink(),
        "spaces": [trust.sine(1)],
        "n_train": 2,
        "n_test": 2,
        "ts": HEAT_TIMES,
        "solver": SOLVER,
    }
    with pytest.raises(InvalidInput, match=match):
        trust.generalisation_report(**{**arguments, **change})


def test_a_report_of_another_kind_is_refused(tmp_path):
    (tmp_path / "report.json").write_text("[]")
    with pytest.raises(InvalidInput, match="not a generalisation report"):
        trust.GeneralisationReport.load(tmp_path / "report.json")
    with pytest.raises(InvalidInput, match="folder"):
        trust.GeneralisationReport(["a"], {}, []).figures()


def test_public_names():
    assert hsb.generalisation_report is trust.generalisation_report
    assert hsb.greens_function is trust.greens_function
