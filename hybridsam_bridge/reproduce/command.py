"""``hybridsam-bridge reproduce TASK``: run, gather, print, draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from hybridsam_bridge.reproduce.figures import comparison
from hybridsam_bridge.reproduce.run import Run, build, load_best
from hybridsam_bridge.reproduce.runner import Outcome, run_study
from hybridsam_bridge.reproduce.summary import as_text, summarise
from hybridsam_bridge.train.runs import RunFolder

RESULTS = "results.json"
FIGURE, OWN_FIGURE = "comparison.png", "figure.png"


def default_folder(name: str, quick: bool) -> Path:
    """Where a study's results go if nothing else is said."""
    return Path("runs") / "reproduce" / f"{Path(name).stem}{'-quick' if quick else ''}"


def reproduce(
    name: str,
    *,
    quick: bool = False,
    methods: Sequence[str] | None = None,
    seeds: int | None = None,
    folder: Path | None = None,
    workers: int | None = None,
    steps: int | None = None,
    say: Callable[[str], Any] = print,
) -> dict[str, Any]:
    """Run a study; returns what ``results.json`` holds.

    Everything goes to ``folder`` (runs/reproduce/NAME, or NAME-quick): results.json, comparison.png, the study's own
    figure.png, and a run folder for each training with its configuration, versions, metrics and checkpoints. Runs that
    are there are not repeated.

    Raises:
        InvalidInput: unknown names or numbers, or ``folder`` holds runs of other settings.
        Interrupted: a signal came; the same call goes on.
    """
    root = folder or default_folder(name, quick)
    outcome = run_study(
        name, quick=quick, methods=methods, seeds=seeds, root=root, workers=workers, steps=steps, say=say
    )
    summary = summarise(outcome)
    if steps is not None:
        summary["train"]["steps"] = steps
    RunFolder(root).write_json(RESULTS, summary)
    _draw(outcome, summary, name, steps)
    say(f"\n{outcome.study.name}{' (quick: the numbers claim nothing)' if quick else ''}\n{outcome.study.about}\n")
    say(as_text(summary))
    say(f"Written: {root}")
    return summary


def _draw(outcome: Outcome, summary: dict[str, Any], name: str, steps: int | None) -> None:
    study, finished = outcome.study, [method for method in outcome.methods if outcome.final(method)]
    if not finished:
        return
    comparison(summary).savefig(outcome.root / FIGURE, dpi=100)
    if study.figure is None:
        return
    models: dict[str, nn.Module] = {}
    for method in finished:
        if outcome.final(method)[0]["seed"] != 0:
            continue
        run = Run(name, study.quick, method, outcome.chosen[method], 0, str(outcome.root), steps)
        problem = build(study, 0)
        load_best(problem.model, RunFolder(run.folder))
        models[method] = problem.model
    if models:
        study.figure(models, problem).savefig(outcome.root / OWN_FIGURE, dpi=100)
