"""One training of a study: a method with one hyperparameter on one seed, in a run folder of its own."""

from __future__ import annotations

import math
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hybridsam_bridge.diagnostics.sharpness import sharpness
from hybridsam_bridge.errors import HybridSAMError, InvalidInput
from hybridsam_bridge.fields.parameters import physical_values
from hybridsam_bridge.models.initial_value import InitialValueModel
from hybridsam_bridge.reproduce.methods import loss_function, optimizer_settings
from hybridsam_bridge.reproduce.registry import load_study
from hybridsam_bridge.reproduce.study import Problem, Study
from hybridsam_bridge.tasks.base import Task
from hybridsam_bridge.tasks.session import Session, fit
from hybridsam_bridge.train import checkpoint
from hybridsam_bridge.train.runs import CONFIG, SUMMARY, RunFolder
from hybridsam_bridge.train.settings import Settings, check

REQUIRED = ("theta_error", "prediction_error")
FINISHED = ("finished", "early stopping")


@dataclass(frozen=True)
class Run:
    """What identifies a run; plain data, so that it reaches other processes.

    ``value`` is the hyperparameter (None for methods without one), ``steps`` replaces the study's own number,
    ``root`` is the study's folder.
    """

    study: str
    quick: bool
    method: str
    value: float | None
    seed: int
    root: str
    steps: int | None = None

    @property
    def folder(self) -> Path:
        name = self.method if self.value is None else f"{self.method}-{self.value:g}"
        return Path(self.root) / name / f"seed-{self.seed}"

    @property
    def label(self) -> str:
        return f"{self.method}{'' if self.value is None else f' {self.value:g}'}, seed {self.seed}"

    def record(self) -> dict[str, Any] | None:
        """What the finished run found, or None where it has not finished. Failed runs count as not finished."""
        if not (self.folder / SUMMARY).exists():
            return None
        record: dict[str, Any] = RunFolder(self.folder).read_json(SUMMARY)
        return record if record["ended"] in FINISHED else None


def settings(study: Study, run: Run) -> Settings:
    """The checked configuration of the run's training."""
    train = {**study.train, "seed": run.seed, "threads": 1}
    if run.steps is not None:
        train.pop("epochs", None)
        train["steps"] = run.steps
    optimizer = optimizer_settings(study, run.method, run.value)
    return check({"train": train, "optimizer": optimizer}, f"study {study.name}")


def build(study: Study, seed: int) -> Problem:
    """The seed's problem, the same in every process."""
    torch.manual_seed(seed)
    return study.build(seed)


def check_folder(study: Study, run: Run) -> dict[str, Any]:
    """The run's configuration. Raises ``InvalidInput`` where its folder holds a run with another one."""
    config = settings(study, run)
    record = {**asdict(run), **config.model_dump(include={"train", "optimizer"}, exclude_none=True)}
    record.pop("root")
    if (run.folder / CONFIG).exists():
        before = RunFolder(run.folder).read_json(CONFIG)
        differing = [key for key in record if before.get(key) != record[key]]
        if differing:
            raise InvalidInput(
                f"{run.folder}: holds a run with other settings ({', '.join(differing)}). Delete it, or take another "
                "--folder."
            )
    return record


def execute(run: Run) -> dict[str, Any]:
    """Train, score and record; goes on from the folder's checkpoint if there is one.

    A failure is recorded in the summary and returned under "failed", not raised: the other runs go on.
    """
    began = time.monotonic()
    study = load_study(run.study, run.quick)
    folder = RunFolder(run.folder)
    folder.write_json(CONFIG, check_folder(study, run))
    folder.write_versions()
    record: dict[str, Any] = {"method": run.method, "value": run.value, "seed": run.seed}
    try:
        record.update(_train_and_score(study, run, folder))
    except Exception as error:  # whatever a study's own code raises must not end the other runs
        kind = "" if isinstance(error, HybridSAMError) else f"{type(error).__name__}: "
        record.update(ended="failed", failed=f"{kind}{error}")
        (run.folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
    record["seconds"] = time.monotonic() - began
    if record["ended"] in (*FINISHED, "failed"):
        folder.write_json(SUMMARY, record)
    return record


def _train_and_score(study: Study, run: Run, folder: RunFolder) -> dict[str, Any]:
    problem = build(study, run.seed)
    loss_fn = loss_function(study, run.method, run.value, problem.loss_fn)
    task = Task(study.name, problem.model, loss_fn, problem.data, problem.validation)
    result = fit(Session(settings(study, run), task, Path()), folder, progress=False, resume=True)
    record: dict[str, Any] = {
        "ended": result.reason,
        "steps": result.steps,
        "skipped": result.skipped,
        "validation": result.best,
        "best_step": result.best_step,
        "backend": _backend(problem.model),
    }
    if result.reason not in FINISHED:
        return record
    if not math.isfinite(result.best):
        raise InvalidInput("no validation of this training gave a finite loss; lower the learning rate or rho.")
    load_best(problem.model, folder)
    return {**record, **_scores(study, problem)}


def load_best(model: nn.Module, folder: RunFolder) -> None:
    """Put the weights with the least validation error into the model, in eval mode."""
    model.load_state_dict(checkpoint.load(folder.best)["model"])
    model.eval()


def _scores(study: Study, problem: Problem) -> dict[str, Any]:
    with torch.no_grad():
        scores = {name: float(value) for name, value in problem.score(problem.model).items()}
    for name in REQUIRED:
        if not math.isfinite(scores.get(name, math.nan)):
            raise InvalidInput(f"score of {study.name}: must give a finite {name}, gave {scores.get(name)!r}.")
    found = sharpness(
        problem.model,
        problem.loss_fn,
        problem.batch_for_sharpness(),
        rho=study.sharpness_rho,
        parts=("neural",),
        curvature=False,
    )
    part = found.parts["neural"]
    values = {name: value for name, (value, _) in physical_values(problem.model).items() if isinstance(value, float)}
    return {**values, **scores, "sharpness": part.gap, "slope": part.slope, "training_loss": found.loss}


def _backend(model: nn.Module) -> str:
    """Backend and method of the model's last solve; empty where it solves outside an ``hsb.InitialValueModel``."""
    for module in model.modules():
        if isinstance(module, InitialValueModel) and module.last is not None:
            return f"{module.last.stats.backend} {module.last.stats.method}"
    return ""
