"""What a run shows and writes: the progress bar, the lines without a terminal, TensorBoard, run folders."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console
from train_models import points, trainer

import hybridsam_bridge as hsb
from hybridsam_bridge.train.progress import ProgressBar, summary_line
from hybridsam_bridge.train.runs import MetricsLog, read_metrics

ROW = {
    "step": 3,
    "epoch": 0,
    "loss": 0.12345,
    "validation": "",
    "gap": 0.5,
    "lr": 0.1,
    "solver_steps": 70,
    "skipped": 2,
    "dropped": 0,
    "alpha": 0.55,
    "seconds": 1.0,
}


def test_a_line_says_what_matters():
    line = summary_line(ROW)
    assert line == "loss 0.1235  sharp 0.5  steps 70  skipped 2  alpha 0.55"
    assert "sharp" not in summary_line({**ROW, "gap": math.nan})


def test_the_bar_shows_progress_and_numbers_on_a_terminal():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160)
    with ProgressBar(10, "pelts", console=console) as bar:
        bar.update(3, ROW)
        bar._bar.refresh()
        text = out.getvalue()
    assert "pelts" in text
    assert "3/10" in text
    assert "alpha 0.55" in text


def test_without_a_terminal_there_are_few_lines():
    out = io.StringIO()
    console = Console(file=out, force_terminal=False, width=40)
    with ProgressBar(100, "pelts", console=console) as bar:
        for step in range(1, 101):
            bar.update(step, ROW)
    assert out.getvalue() == f"pelts 100/100  {summary_line(ROW)}\n", "one line at the end, not broken"


def test_tensorboard_gets_the_scalars(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (pip install tensorboard)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    t = trainer(tmp_path)
    result = t.fit(points(), steps=3)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("loss")] == [1, 2, 3]
    # TensorBoard keeps float32
    assert [e.value for e in events.Scalars("loss")] == pytest.approx([r["loss"] for r in result.rows], rel=1e-6)


def test_run_folders_do_not_collide(tmp_path):
    folders = [hsb.RunFolder.create(tmp_path, "task").path for _ in range(3)]
    assert len(set(folders)) == 3
    assert all(f.name.startswith("task-") for f in folders)


def test_a_torn_last_line_of_the_metrics_is_dropped(tmp_path):
    folder = hsb.RunFolder(tmp_path)
    log = MetricsLog(folder, ["step", "loss"], None)
    for step in (1, 2, 3):
        log.append({"step": step, "loss": step / 2})
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("4,1")
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv")] == ["1", "2", "3"]
    MetricsLog(folder, ["step", "loss"], 2).append({"step": 3, "loss": 9.0})
    assert [row["loss"] for row in read_metrics(tmp_path / "metrics.csv")] == ["0.5", "1.0", "9.0"]
