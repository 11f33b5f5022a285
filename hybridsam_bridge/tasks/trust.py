"""``hybridsam-bridge trust RUN``: the report of a module, or the coverage of a finished run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.models.initial_value import InitialValueModel
from hybridsam_bridge.objectives.data import Trajectories
from hybridsam_bridge.tasks.load import load_module
from hybridsam_bridge.tasks.session import open_session
from hybridsam_bridge.train import checkpoint
from hybridsam_bridge.train.runs import CONFIG, RunFolder
from hybridsam_bridge.train.settings import read
from hybridsam_bridge.trust.coverage import Coverage, VisitedInputs, network_inputs
from hybridsam_bridge.trust.report import generalisation_report

FUNCTION = "trust_report"
RESULT = "trust.json"


def trust_command(
    run: str, folder: Path | None, workers: int, seeds: int | None, say: Callable[[str], Any]
) -> dict[str, Any] | None:
    """Run the command on a .py file, a dotted module name or a run folder.

    A module (also that of a run's task) with a function ``trust_report()`` that returns the arguments of
    ``hsb.generalisation_report`` gets the whole report. A run without one gets the coverage of its network's inputs,
    which needs nothing but the run. Returns that coverage, or None.
    """
    path = Path(run)
    if not path.is_dir():
        if path.suffix == ".py":  # other processes import the module by name
            sys.path.insert(0, str(path.resolve().parent))
        module = load_module(run, Path())
        if not callable(getattr(module, FUNCTION, None)):
            raise InvalidInput(
                f"trust: {run} has no function {FUNCTION}() that returns the arguments of hsb.generalisation_report."
            )
        _report(module, folder or Path("runs") / f"trust-{path.stem}", workers, seeds, say)
        return None
    config = RunFolder(path).read_json(CONFIG)
    relative_to = Path(config.pop("relative_to", "."))
    module = load_module(config["task"]["name"], relative_to)
    if callable(getattr(module, FUNCTION, None)):
        _report(module, folder or path / "trust", workers, seeds, say)
        return None
    return _coverage(path, config, relative_to, say)


def _report(module: Any, folder: Path, workers: int, seeds: int | None, say: Callable[[str], Any]) -> None:
    arguments = dict(getattr(module, FUNCTION)())
    if seeds is not None:
        arguments["seeds"] = seeds
    report = generalisation_report(**{**arguments, "workers": workers, "folder": folder, "say": say})
    say(report.summary())
    say(f"Written: {folder}")


def _coverage(path: Path, config: dict[str, Any], relative_to: Path, say: Callable[[str], Any]) -> dict[str, Any]:
    session = open_session(read(None, [], config), str(path / CONFIG), relative_to)
    run, task = RunFolder(path), session.task
    source = run.best if run.best.exists() else run.last
    task.model.load_state_dict(checkpoint.load(source)["model"])
    if not isinstance(task.model, InitialValueModel) or not isinstance(task.data, Trajectories):
        raise InvalidInput(
            f"trust: without {FUNCTION}() in its module, a run needs an hsb.InitialValueModel and hsb.Trajectories; "
            f"{task.name} has {type(task.model).__name__} and {type(task.data).__name__}."
        )
    visited = _inputs(task.model, task.data, 1.0)
    if visited is None:
        raise InvalidInput(f"trust: the model of {task.name} has no network whose inputs could be followed.")
    known = VisitedInputs(visited)
    compared = {"a forecast of twice the time": _inputs(task.model, task.data, 2.0)}
    if isinstance(task.validation, Trajectories):
        compared["the validation data"] = _inputs(task.model, task.validation, 1.0)
    found = {name: known.compare(rows) for name, rows in compared.items() if rows is not None}
    say(f"Coverage of the network's inputs by the training data of {path}:")
    for name, coverage in found.items():
        say(f"  {_words(name, coverage)}")
    say(f"For errors and skill, give the task's module a function {FUNCTION}(); see hsb.generalisation_report.")
    result = {name: coverage.as_dict() for name, coverage in found.items()}
    run.write_json(RESULT, result)
    return result


def _inputs(model: InitialValueModel, data: Trajectories, stretch: float) -> Any:
    """Along the model's own trajectories, from the data's initial states to ``stretch`` times their span."""
    ts = data.ts[0] + stretch * (data.ts - data.ts[0])
    y0, context = data.given["y0"], data.given["context"]
    solution = _solved(model, ts, y0, context)
    size = tuple(model.field.state_shape)
    return network_inputs(model, ts, solution.reshape(-1, len(ts), *size), context)


def _solved(
    model: InitialValueModel, ts: torch.Tensor, y0: torch.Tensor | None, context: torch.Tensor | None
) -> torch.Tensor:
    before = model.solver
    model.solver = {**before, "on_failure": "nan"}
    try:
        with torch.no_grad():
            return model.solve(ts, y0, context).ys
    finally:
        model.solver = before


def _words(name: str, coverage: Coverage) -> str:
    verdict = "covered"
    if coverage.residual > 0.1:
        verdict = f"{coverage.residual:.0%} of the inputs' size points in directions never visited"
    elif coverage.outside > 0.1:
        verdict = f"{coverage.outside:.0%} of the inputs lie outside the visited range"
    return f"{name}: {verdict} (outside {coverage.outside:.1%}, residual {coverage.residual:.1%})."
