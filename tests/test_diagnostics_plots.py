"""Figures hold what they should, are returned and saved."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import hybridsam_bridge as hsb
from hybridsam_bridge.diagnostics import plots
from hybridsam_bridge.diagnostics.identifiability import Estimate, Identifiability
from hybridsam_bridge.diagnostics.profile import Profile
from hybridsam_bridge.diagnostics.share import Share
from hybridsam_bridge.diagnostics.sharpness import PartSharpness, Sharpness

TS = torch.arange(3.0)


def saved(figure, path):
    assert path.read_bytes()[:4] == b"\x89PNG"
    return figure.axes


def test_fit_has_a_panel_an_observable_and_a_line_a_fit(tmp_path):
    measured = torch.tensor([[1.0, 2.0], [float("nan"), 3.0], [2.0, 4.0]])
    fits = {"hybrid": (TS, measured + 1), "science": (TS, measured - 1)}
    axes = saved(
        plots.plot_fit(TS, measured, fits, names=["a"], path=tmp_path / "deep" / "f.png"), tmp_path / "deep/f.png"
    )
    assert [a.get_ylabel() for a in axes] == ["a", "observable 1"]
    assert all(len(a.lines) == 3 for a in axes)
    np.testing.assert_array_equal(axes[1].lines[2].get_ydata(), [1.0, 2.0, 3.0])


def test_share_shows_both_parts(tmp_path):
    science, neural = torch.ones(4, 3, 2), 0.5 * torch.ones(4, 3, 2)
    share = Share(torch.tensor([1 / 3, 0.25]), neural, science, neural)
    axes = saved(plots.plot_share(share, TS, path=tmp_path / "s.png"), tmp_path / "s.png")
    assert axes[0].get_title() == "component 0: the network makes 33.3%"
    np.testing.assert_array_equal(axes[1].lines[1].get_ydata(), [0.5] * 3)


def test_profiles_of_one_parameter_share_a_panel(tmp_path):
    values = np.linspace(0, 2, 5)
    free = Profile("k", "1/s", values, (values - 1) ** 2, 1.92, (-np.inf, np.inf), "all")
    fixed = Profile("k", "1/s", values, 9 * (values - 1) ** 2, 1.92, (0.5, 1.5), "science")
    (axis,) = saved(plots.plot_profiles([free, fixed], path=tmp_path / "p.png"), tmp_path / "p.png")
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["all refitted (not identified)", "network fixed"]
    assert axis.get_xlabel() == "k (1/s)"


def test_open_intervals_stay_in_the_panel(tmp_path):
    e = Estimate("k", 2.0, "", (0.0, np.inf), (1.0, 3.0), 0.0, False)
    result = Identifiability({"k": e}, ["k"], np.zeros((1, 1)), np.ones((1, 1)), [])
    (axis,) = saved(plots.plot_intervals(result, path=tmp_path / "i.png"), tmp_path / "i.png")
    assert np.isfinite(axis.get_xlim()).all()


def test_sharpness_bars(tmp_path):
    part = PartSharpness(0.1, 1.0, 7.0, 3, "double backward")
    results = {"ERM": Sharpness(1.0, 0.1, {"neural": part}), "SAM": Sharpness(1.0, 0.1, {"neural": part, "all": part})}
    axes = saved(plots.plot_sharpness(results, path=tmp_path / "h.png"), tmp_path / "h.png")
    assert [bar.get_height() for bar in axes[1].patches if np.isfinite(bar.get_height())] == [7.0, 7.0, 7.0]


def test_bad_arguments_are_refused():
    with pytest.raises(hsb.InvalidInput, match="measured"):
        plots.plot_fit(TS, torch.ones(2, 1), {})
    with pytest.raises(hsb.InvalidInput, match="profiles"):
        plots.plot_profiles([])
    with pytest.raises(hsb.InvalidInput, match="results"):
        plots.plot_sharpness({})
