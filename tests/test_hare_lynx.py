"""The main job: data, start, science-only fit against the published one, and a short run of the whole."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
import torch

import hybridsam_bridge as hsb
from hybridsam_bridge.tasks.hare_lynx.model import DATA, PUBLISHED, load, rates, rates_from_slopes
from hybridsam_bridge.tasks.hare_lynx.task import build, fit_science
from hybridsam_bridge.tasks.session import open_session, run


def test_the_table_is_the_published_one():
    folder = Path(os.environ.get("HYBRIDSAM_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "hare_lynx.csv").exists():
        pytest.skip(f"no hare_lynx.csv in {folder}; set HYBRIDSAM_DATA")
    with open(folder / "hare_lynx.csv") as one, open(DATA) as two:
        assert list(csv.reader(one)) == list(csv.reader(two))


def test_data_and_start():
    data = load()
    assert data.ts.tolist() == [float(i) for i in range(21)]
    assert data.y.shape == (1, 21, 2)
    start = rates_from_slopes(data)
    # Differences over two years of noisy counts: the right size is all that they can give.
    for name, value in PUBLISHED.items():
        assert value / 2 < start[name] < 2 * value


def test_science_only_fit_is_the_published_one():
    task = build({}, {"backend": "scipy"})
    found = fit_science(task, progress=False)
    # The published figures are posterior means under weak priors, given to two or three digits with posterior
    # standard deviations of 11 to 15 %; this is a maximum of the likelihood.
    for name, value in PUBLISHED.items():
        assert found["rates"][name] == pytest.approx(value, rel=0.05)
    assert rates(task.model) == found["rates"], "the hybrid starts from the fitted science"
    # z_init of the published fit: 33.956 and 5.933 thousand
    assert found["initial"] == pytest.approx([33.96, 5.93], rel=0.05)


def test_a_short_run_writes_everything(tmp_path, monkeypatch):
    # The science-only fit is tested above and costs seconds: here its result is given.
    known = {"rates": dict(PUBLISHED), "initial": [33.96, 5.93], "loss": 2.95, "evaluations": 0}
    monkeypatch.setattr("hybridsam_bridge.tasks.hare_lynx.task.fit_science", lambda task, progress: known)
    data = {"solver": {"backend": "scipy"}, "train": {"steps": 2}, "output": {"folder": str(tmp_path)}}
    folder, result, summary = run(open_session(data, "test", tmp_path), progress=False)
    assert result.reason == "finished"
    assert (folder.path / "fit.png").stat().st_size > 10_000
    saved = json.loads((folder.path / "summary.json").read_text())
    assert saved["published"] == PUBLISHED
    assert set(saved["rates"]) == set(PUBLISHED)
    assert all(0 <= share <= 1 for share in saved["network_share"].values())
    for name in PUBLISHED:
        assert name in summary["text"]


def test_network_starts_at_zero_and_keeps_numbers_positive():
    model = build({"width": 4}, {}).model
    y = torch.tensor([3.0, 5.0], dtype=torch.float64)
    assert model.field.neural(y).tolist() == [0.0, 0.0]
    assert len(hsb.neural_parameters(model)) == 4
    assert sum(p.numel() for p in hsb.scientific_parameters(model)) == 6


@pytest.mark.parametrize("options", [{"depth": 3}, {"width": 0}, {"width": "wide"}])
def test_bad_options_are_refused(options):
    with pytest.raises(hsb.InvalidInput, match=r"task\.options\."):
        build(options, {})
