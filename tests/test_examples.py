"""Every example runs in its short mode; the README's example runs as it stands."""

from __future__ import annotations

import importlib.util
import inspect
import math
import re
import sys
from pathlib import Path

import pytest
import torch

import hybridsam_bridge as hsb
from hybridsam_bridge.tasks.session import open_session, run
from hybridsam_bridge.train.settings import read

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = [
    "additive_pendulum",
    "composed_malus",
    "hare_lynx",
    "multiple_shooting_lorenz",
    "output_corrected_cooling",
    "parameter_encoder_reaction",
    "trust_heat",
]


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", EXAMPLES)
def test_short_mode(name, tmp_path):
    main = load(name).main
    options = {"folder": tmp_path} if "folder" in inspect.signature(main).parameters else {}
    found = main(short=True, **options)
    assert found
    assert all(math.isfinite(value) for value in found.values())


def test_the_readme_example_runs_and_learns():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    rows = (ROOT / "hybridsam_bridge" / "data" / "hare_lynx.csv").read_text().splitlines()[1:]
    data = torch.tensor([[float(x) for x in row.split(",")[1:]] for row in rows], dtype=torch.float64)
    torch.manual_seed(0)
    names = {"data": data}
    exec(code, names)
    first = float(names["closure"]().detach())
    for _ in range(3):
        last = float(names["optimizer"].step(names["closure"]).detach())
    assert last < first
    assert isinstance(names["field"], hsb.Additive)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "truth"),
    [
        # Noise of 1 % and a network that may take a part: a few per cent are what these can give.
        ("additive_pendulum", {"omega2": (1.1, 0.15)}),
        ("output_corrected_cooling", {"rate": (0.4, 0.05)}),
        ("parameter_encoder_reaction", {"k2": (0.5, 0.05), "worst_k1": (0.0, 0.15)}),
        ("composed_malus", {"offset": (12.0, 0.5)}),
        ("multiple_shooting_lorenz", {"sigma": (10.0, 0.3), "rho": (28.0, 0.3), "beta": (8 / 3, 0.05)}),
    ],
)
def test_whole_examples_find_what_was_put_in(name, truth):
    found = load(name).main()
    for key, (value, tolerance) in truth.items():
        assert found[key] == pytest.approx(value, abs=tolerance), key


def test_the_configuration_file_trains_a_task_of_ones_own(tmp_path):
    path = ROOT / "examples" / "pendulum.toml"
    changes = ["task.options.samples=4", "train.epochs=2", "train.batch_size=2", f"output.folder='{tmp_path}'"]
    _, result, _ = run(open_session(read(path, changes), str(path), path.parent), progress=False)
    assert result.reason == "finished"
    assert result.steps == 4


@pytest.mark.parametrize("name", ["pendulum", "lotka_volterra", "robertson"])
def test_hidden_physics_in_short(name):
    found = load("hidden_physics").main(name, seeds=1, short=True)
    assert set(found) == {"ERM", "SAM"}
    assert all(math.isfinite(x) for method in found.values() for values in method.values() for x in values)


def test_a_sweep_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    pytest.importorskip("optuna", reason="optuna is not installed (pip install optuna)")
    import optuna

    monkeypatch.chdir(tmp_path)
    sweep = load("sweep_optuna")
    monkeypatch.setattr(sweep, "objective", lambda trial: trial.suggest_float("rho", 1e-3, 0.5, log=True))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sweep.main(2)
    sweep.main(1)
    study = optuna.load_study(storage=f"sqlite:///{sweep.STORAGE}", study_name="hare_lynx")
    assert len(study.trials) == 3


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["pendulum", "lotka_volterra", "robertson"])
def test_sam_identifies_the_science_where_plain_training_does_not(name):
    found = load("hidden_physics").main(name, seeds=5)
    plain, sharp = found["ERM"], found["SAM"]
    # Every seed, not only the mean; runs took it from 0.28 to 0.05, 0.22 to 0.12 and 0.27 to 0.09.
    assert all(s < p for s, p in zip(sharp["theta"], plain["theta"], strict=True))
    assert sum(sharp["theta"]) < 0.7 * sum(plain["theta"])
    # In units of a tenth of the states' size: errors of two per cent are comparable with one per cent.
    assert sum(sharp["prediction"]) < 2.5 * sum(plain["prediction"])
