"""``hybridsam-bridge reproduce``: runs, resumes, chooses by validation alone, records failures, publishes."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import hybridsam_bridge as hsb
from hybridsam_bridge.cli import app
from hybridsam_bridge.reproduce import publish, registry, runner
from hybridsam_bridge.reproduce.methods import Penalised
from hybridsam_bridge.reproduce.registry import load_study
from hybridsam_bridge.reproduce.run import Run, build, load_best

LINE = str(Path(__file__).with_name("reproduce_line.py"))
SCORES = ("theta_error", "prediction_error", "validation", "sharpness", "best_step")


def reproduce(*args):
    result = CliRunner().invoke(app, ["reproduce", *map(str, args)], catch_exceptions=False)
    return result.exit_code, result.output


def line(folder, *args, workers=1):
    return reproduce(LINE, "--workers", workers, "--folder", folder, *args)


def results(folder):
    return json.loads((folder / "results.json").read_text())


def run_record(folder, *names):
    return json.loads(folder.joinpath(*names, "summary.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a study that ran undisturbed."""
    folder = tmp_path_factory.mktemp("whole")
    code, text = line(folder)
    assert code == 0, text
    return folder


def test_every_run_leaves_configuration_versions_metrics_and_figure(whole):
    folders = {"erm", "functional-norm-0.001", "functional-norm-100", "sam-0.01", "sam-0.1"}
    assert {p.name for p in whole.iterdir() if p.is_dir()} == folders
    for name in ("config.json", "versions.json", "metrics.csv", "summary.json", "best.safetensors"):
        assert (whole / "erm" / "seed-0" / name).exists(), name
    assert (whole / "comparison.png").stat().st_size > 1000
    assert "torch" in results(whole)["versions"]


def test_hyperparameters_are_chosen_by_validation_alone(whole):
    """By the seed used for tuning; the huge penalty keeps k near the truth, so θ would have chosen it."""
    found = results(whole)["methods"]
    for method, values in {"functional-norm": ("0.001", "100"), "sam": ("0.01", "0.1")}.items():
        validation = {float(v): run_record(whole, f"{method}-{v}", "seed-0")["validation"] for v in values}
        assert found[method]["value"] == min(validation, key=validation.get)
        assert dict(found[method]["validation_by_value"]) == validation
    theta = [run_record(whole, f"functional-norm-{v}", "seed-0")["theta_error"] for v in ("0.001", "100")]
    assert found["functional-norm"]["value"] == 0.001
    assert theta[1] < theta[0]


def test_statistics_are_those_of_the_runs(whole):
    found = results(whole)["methods"]["erm"]
    for column in ("theta_error", "prediction_error", "sharpness"):
        values = [run_record(whole, "erm", f"seed-{s}")[column] for s in (0, 1)]
        assert found[column]["values"] == values
        assert found[column]["mean"] == pytest.approx(statistics.fmean(values), rel=1e-15)
        assert found[column]["std"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5, rel=1e-12)  # n - 1


def test_scores_are_those_of_the_best_weights(whole):
    """The gap by its definition: one step of length ρ along the network's gradient. Same arithmetic: 1e-9."""
    record, study = run_record(whole, "sam-0.1", "seed-1"), results(whole)
    problem = build(load_study(LINE, False), 1)
    load_best(problem.model, hsb.RunFolder(whole / "sam-0.1" / "seed-1"))
    with torch.no_grad():
        scores = problem.score(problem.model)
    assert {k: record[k] for k in scores} == pytest.approx(scores, rel=1e-12)
    model, batch = problem.model, problem.data
    before = problem.loss_fn(model, batch)
    network = hsb.neural_parameters(model)
    grads = torch.autograd.grad(before, network)
    norm = torch.sqrt(sum(g.square().sum() for g in grads))
    with torch.no_grad():
        for p, g in zip(network, grads, strict=True):
            p += study["sharpness_rho"] * g / norm
        gap = problem.loss_fn(model, batch) - before
    assert record["sharpness"] == pytest.approx(float(gap), rel=1e-9)


def test_finished_runs_are_not_repeated(whole):
    stamps = {p: p.stat().st_mtime_ns for p in whole.rglob("summary.json")}
    code, text = line(whole, "--seeds", 3)
    assert code == 0
    assert "5 of 5 runs are finished already" in text
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert results(whole)["methods"]["erm"]["seeds"] == [0, 1, 2]
    line(whole)  # as the other tests know it


def test_other_settings_in_the_same_folder_are_refused(whole):
    with pytest.raises(hsb.InvalidInput, match=r"holds a run with other settings \(steps, train\)"):
        line(whole, "--steps", 7)


def test_stopped_run_goes_on_to_the_same_numbers(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("LINE_TERM", "20")
    code, text = line(tmp_path)
    assert (code, "SIGTERM" in text) == (143, True)
    assert (tmp_path / "erm" / "seed-0" / "last.safetensors").exists()
    assert not (tmp_path / "erm" / "seed-0" / "summary.json").exists()
    monkeypatch.delenv("LINE_TERM")
    code, _ = line(tmp_path)
    assert code == 0
    for name in ("erm", "sam-0.1"):
        one, other = (run_record(folder, name, "seed-0") for folder in (tmp_path, whole))
        assert {k: one[k] for k in SCORES} == {k: other[k] for k in SCORES}


def test_processes_give_the_same_numbers_and_survive_a_death(whole, tmp_path, monkeypatch):
    trap = tmp_path / "trap"
    trap.touch()
    monkeypatch.setenv("LINE_KILL", str(trap))
    code, text = line(tmp_path / "runs", "--methods", "sam", "--seeds", 1, workers=2)  # two values of ρ: two runs
    assert "a process of the runs died" in text
    assert not trap.exists()
    code, text = line(tmp_path / "runs", "--methods", "sam", "--seeds", 1, workers=2)
    assert code == 0, text
    for name in ("sam-0.01", "sam-0.1"):
        one, other = (run_record(folder, name, "seed-0") for folder in (tmp_path / "runs", whole))
        assert {k: one[k] for k in SCORES} == {k: other[k] for k in SCORES}


def test_process_that_was_stopped_takes_no_further_run(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_stopped", "")
    monkeypatch.setenv("LINE_TERM", "5")
    runs = [Run(LINE, False, "erm", None, seed, str(tmp_path)) for seed in (0, 1)]
    assert [runner._unless_stopped(run)["ended"] for run in runs] == ["SIGTERM", "SIGTERM"]
    assert runs[0].folder.exists()
    assert not runs[1].folder.exists()


def test_failing_run_is_reported_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("LINE_FAIL", "1")
    code, text = line(tmp_path, "--methods", "erm,sam")
    assert code == 0
    assert "FAILED: RuntimeError: no such line" in text
    found = results(tmp_path)
    assert found["methods"]["erm"]["seeds"] == [0]
    assert [(r["method"], r["seed"]) for r in found["failed"]] == [("erm", 1), ("sam", 1)]
    monkeypatch.delenv("LINE_FAIL")
    line(tmp_path, "--methods", "erm,sam")
    assert results(tmp_path)["methods"]["erm"]["seeds"] == [0, 1]


def test_study_of_which_nothing_works_ends_with_an_error_code(tmp_path, monkeypatch):
    monkeypatch.setenv("LINE_FAIL", "0")
    code, text = line(tmp_path, "--methods", "erm", "--seeds", 1)
    assert code == 1
    assert "no such line" in text


def test_penalties_count_in_training_only():
    model = torch.nn.Linear(1, 1)
    loss = Penalised(lambda model, batch: torch.tensor(1.0), lambda model, batch: torch.tensor(5.0))
    assert float(loss(model.train(), None)) == 6.0
    assert float(loss(model.eval(), None)) == 1.0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["alchemy"], "known: .*pendulum.*spatial-physics"),
        ([], "name a task"),
        ([LINE, "--methods", "erm,adam"], "'adam' is not known. Known: erm, weight-decay"),
        ([LINE, "--methods", "orthogonality"], "does not apply to line: the model is no sum"),
        ([LINE, "--seeds", "0"], "seeds: must be at least 1"),
        ([LINE, "--workers", "0"], "workers: must be at least 1"),
        ([LINE, "--steps", "0"], "steps: must be at least 1"),
        ([LINE, "--full"], "options of spatial-physics"),
        (["spatial-physics", "--quick"], "takes --folder"),
    ],
)
def test_bad_arguments_are_refused(args, message, tmp_path):
    with pytest.raises(hsb.InvalidInput, match=f"(?i){message}"):
        reproduce(*args, "--folder", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_group_runs_its_studies_in_turn(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.GROUPS, "lines", (LINE, LINE))
    code, text = reproduce("lines", "--methods", "erm", "--seeds", 1, "--workers", 1, "--folder", tmp_path)
    assert code == 0
    assert text.count("finished already") == 1  # both have one name here, so the second finds the first's run
    with pytest.raises(hsb.InvalidInput, match="'adam' is not known"):
        reproduce("lines", "--methods", "adam", "--folder", tmp_path)


def test_results_are_published_into_a_readme(whole, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Examples\nby hand\n{publish.BEGIN}\nold\n{publish.END}\nafter\n")
    code, _ = line(whole, "--publish", tmp_path)
    assert code == 0
    text = readme.read_text()
    assert text.startswith("# Examples\nby hand\n")
    assert text.endswith("after\n")
    assert "old" not in text
    erm = results(whole)["methods"]["erm"]["theta_error"]
    assert f"| ERM | {erm['mean']:.3g} ± {erm['std']:.2g} |" in text
    assert "- orthogonality does not apply: the model is no sum of fields" in text
    assert (tmp_path / "results" / "line.png").exists()
    code, _ = reproduce("--publish", tmp_path)
    assert readme.read_text() == text


def test_quick_results_are_not_published(tmp_path):
    options = ["--quick", "--methods", "erm", "--seeds", 1, "--publish", tmp_path / "examples"]
    with pytest.raises(hsb.InvalidInput, match="claim nothing"):
        line(tmp_path / "runs", *options)
    assert not (tmp_path / "examples").exists()
