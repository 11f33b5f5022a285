"""The command line: configuration errors point at the key; train, resume and dry runs work."""

from __future__ import annotations

import json
import logging

import pytest
import torch

from hybridsam_bridge import cli
from hybridsam_bridge.train import checkpoint
from hybridsam_bridge.train.runs import read_metrics

TASK = """
import torch, hybridsam_bridge as hsb

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.k = hsb.ParameterSet(k=hsb.Param(2.0, transform="log", unit="1/s"))
        self.net = torch.nn.Linear(1, 1).double()

    def forward(self, x):
        return self.k.k * x + self.net(x)

def loss(model, batch):
    return ((model(batch) - 3.0 * batch) ** 2).mean()

def build(options, solver):
    data = torch.linspace(0, 1, options.get("points", 5), dtype=torch.float64)[:, None]
    return hsb.Task("line", Model(), loss, data, train={"steps": 4}, optimizer={"rho": 0.01, "lr": 0.1})
"""


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs the command in ``tmp_path``; returns exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "line.py").write_text(TASK)
    (tmp_path / "config.toml").write_text('[task]\nname = "line.py"\n')

    def call(*args):
        monkeypatch.setattr("sys.argv", ["hybridsam-bridge", *args])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    yield call
    logging.getLogger("hybridsam_bridge").setLevel(logging.NOTSET)


def only_run(tmp_path):
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


def test_train_writes_a_run_folder(run, tmp_path):
    code, out, _ = run("train", "config.toml", "--quiet")
    assert code == 0
    folder = only_run(tmp_path)
    assert str(folder.name) in out
    assert folder.name.startswith("line-")
    assert {p.name for p in folder.iterdir()} >= {
        "config.json",
        "versions.json",
        "metrics.csv",
        "last.safetensors",
        "best.safetensors",
        "summary.json",
    }
    config = json.loads((folder / "config.json").read_text())
    assert config["optimizer"]["rho"] == 0.01, "the task's default"
    assert config["train"]["steps"] == 4
    assert len(read_metrics(folder / "metrics.csv")) == 4
    assert json.loads((folder / "versions.json").read_text())["torch"] == torch.__version__
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["ended"] == "finished"
    assert summary["parameters"]["k"] != 2.0


def test_set_overrides_the_file_and_the_task(run, tmp_path):
    code, _, _ = run("train", "config.toml", "--quiet", "--set", "train.steps=2", "--set", "optimizer.kind=base")
    assert code == 0
    config = json.loads((only_run(tmp_path) / "config.json").read_text())
    assert config["train"]["steps"] == 2
    assert config["optimizer"]["kind"] == "base"


def test_resume_goes_on_to_the_same_weights(run, tmp_path):
    run("train", "config.toml", "--quiet", "--set", "train.steps=6", "--set", "output.folder=whole")
    run("train", "config.toml", "--quiet", "--set", "train.steps=3")
    folder = only_run(tmp_path)
    code, _, _ = run("train", "--resume", str(folder), "--set", "train.steps=6", "--quiet")
    assert code == 0
    (whole,) = (tmp_path / "whole").iterdir()
    one, two = (checkpoint.load(f / "last.safetensors")["model"] for f in (whole, folder))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_ctrl_c_saves_says_how_to_go_on_and_exits_with_130(run, tmp_path):
    interrupting = TASK.replace(
        "def loss(model, batch):",
        "import os, signal\ncalls = 0\n\ndef loss(model, batch):\n"
        "    global calls\n    calls += 1\n    if calls == 3:\n        os.kill(os.getpid(), signal.SIGINT)",
    )
    (tmp_path / "line.py").write_text(interrupting)
    code, out, _ = run("train", "config.toml", "--quiet", "--set", "train.steps=9")
    folder = only_run(tmp_path)
    assert code == 130
    assert f"SIGINT: saved after step 2. Go on with: hybridsam-bridge train --resume runs/{folder.name}" in out
    (tmp_path / "line.py").write_text(TASK)
    code, out, _ = run("train", "--resume", str(folder), "--quiet")
    assert code == 0
    assert "finished after 9 steps" in out


def test_a_run_killed_before_its_first_checkpoint_is_prepared_again(run, tmp_path):
    prepared = TASK.replace(
        'return hsb.Task("line", Model(), loss, data,', 'return hsb.Task("line", Model(), loss, data, prepare=prepare,'
    )
    prepared += """
def prepare(task, progress):
    task.model.k.assign(k=2.5)
    return {"k": 2.5}
"""
    (tmp_path / "line.py").write_text(prepared)
    run("train", "config.toml", "--quiet")
    whole = only_run(tmp_path)
    killed = tmp_path / "runs" / "killed"
    killed.mkdir()
    (killed / "config.json").write_text((whole / "config.json").read_text())
    code, _, _ = run("train", "--resume", str(killed), "--quiet")
    assert code == 0
    one, two = (checkpoint.load(f / "last.safetensors")["model"] for f in (whole, killed))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert json.loads((killed / "prepared.json").read_text()) == {"k": 2.5}


def test_dry_run_checks_and_runs_nothing(run, tmp_path):
    code, out, _ = run("train", "config.toml", "--dry-run")
    assert code == 0
    assert "1 scientific and 2 network parameters; SAM over Adam, 4 steps" in out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        (["optimizer.rho=-1"], ["optimizer.rho: Input should be greater than or equal to 0, got -1"]),
        (["optimizer.roh=1"], ["optimizer.roh: is not a known key", "rho"]),
        (["optimiser.rho=1"], ["optimiser: is not a known key", "optimizer"]),
        (["train.steps=many"], ["train.steps", "'many'"]),
        (["train.steps=3", "train.epochs=3"], ["train: ", "one of steps and epochs"]),
        (["solver.method=Rodas5Q"], ["Rodas5Q", "Rodas5P"]),
        (["solver.backend=fortran"], ["solver.backend", "scipy"]),
        (["optimizer.kind=sam"], ["optimizer.kind", "SAM"]),
        (["optimizer.lr=nan"], ["optimizer.lr"]),
        (["task.name=nothing"], ["task.name: 'nothing'", "hare_lynx"]),
        (["task.name=other.py"], ["task.name: the file", "other.py"]),
        (["task=3"], ["task: "]),
        (["lr"], ["--set 'lr': write key=value"]),
        (["optimizer.lr.x=1", "optimizer.lr=2"], []),
    ],
)
def test_errors_point_at_the_key(run, tmp_path, changes, messages):
    code, _, err = run("train", "config.toml", "--dry-run", *[part for c in changes for part in ("--set", c)])
    if not messages:
        assert code == 0, "the later --set replaces the earlier one"
        return
    assert code == 1
    for message in messages:
        assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [("[task", "not valid TOML"), ("[optimizer]\nlr = 'fast'\n", "optimizer.lr")],
)
def test_a_bad_file_is_named(run, tmp_path, text, message):
    (tmp_path / "bad.toml").write_text(text)
    code, _, err = run("train", "bad.toml")
    assert code == 1
    assert "bad.toml" in err
    assert message in err


def test_other_bad_calls(run, tmp_path):
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "wrong.py").write_text("def build(options, solver):\n    return 3\n")
    for args, message in [
        (("train", "missing.toml"), "missing.toml is not there"),
        (("train", "--resume", "nowhere"), "nowhere is not a folder"),
        (("train", "--resume", str(tmp_path)), "no config.json"),
        (("train", "config.toml", "--resume", str(tmp_path)), "leave CONFIG out"),
        (("train", "--set", "task.name=empty.py"), "no function build"),
        (("train", "--set", "task.name=wrong.py"), "must return an hsb.Task"),
        (("train", "--set", "task.options.depth=3"), "task.options.depth"),
        (("setup-julia", "--julia", "x"), "--julia and --project go together"),
    ]:
        code, _, err = run(*args)
        assert code == 1, args
        assert message in err, args


def test_compare_tables_what_differs(run, tmp_path):
    for steps, rho in ((2, 0.1), (3, 0.0)):
        run("train", "config.toml", "--quiet", "--set", f"train.steps={steps}", "--set", f"optimizer.rho={rho}")
    folders = sorted((tmp_path / "runs").iterdir())
    code, out, _ = run("compare", *map(str, folders))
    assert code == 0
    header, *rows = out.splitlines()
    assert header.split()[:6] == ["run", "optimizer.rho", "train.steps", "ended", "steps", "best"]
    assert "optimizer.lr" not in header, "the same in both"
    assert [row.split()[:5] for row in rows] == [
        [folders[0].name, "0.1", "2", "finished", "2"],
        [folders[1].name, "0", "3", "finished", "3"],
    ]
    assert header.split()[6:] == ["k", "loss"]
    code, _, err = run("compare", str(tmp_path))
    assert code == 1
    assert "no config.json; is it a run folder?" in err


def test_doctor_reports_every_backend_and_the_choice(run):
    code, out, _ = run("doctor")
    assert code == 0
    for part in ("Python 3", f"torch {torch.__version__}", "julia: ", "torch: ", "scipy: ready", '"auto" takes'):
        assert part in out
    if "julia: not ready" in out:
        assert "setup-julia" in out
