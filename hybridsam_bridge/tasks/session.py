"""From a configuration to a finished run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.fields.parameters import physical_values
from hybridsam_bridge.fields.roles import neural_parameters, scientific_parameters
from hybridsam_bridge.optim import ASAM, SAM, LookSAM
from hybridsam_bridge.tasks.base import Task
from hybridsam_bridge.tasks.load import load_task
from hybridsam_bridge.train.runs import CONFIG, SUMMARY, RunFolder
from hybridsam_bridge.train.settings import OptimizerSettings, Settings, check
from hybridsam_bridge.train.trainer import FitResult, Trainer

PREPARED = "prepared.json"


@dataclass
class Session:
    """A checked configuration with its task built and nothing run yet."""

    settings: Settings
    task: Task
    folder: Path  # that a task's file is relative to


def open_session(data: dict[str, Any], origin: str, folder: Path) -> Session:
    """Check a configuration, fill in the task's defaults, and build the task. Raises ``InvalidInput``."""
    asked = check(data, origin)
    solver = asked.solver.model_dump(exclude_none=True)
    torch.manual_seed(asked.train.seed)
    task = load_task(asked.task.name, asked.task.options, solver, folder)
    filled = {**data, "task": asked.task.model_dump()}
    for name in ("train", "optimizer"):
        given = data.get(name, {})
        defaults = dict(getattr(task, name))
        if {"steps", "epochs"} & set(given):
            defaults.pop("steps", None), defaults.pop("epochs", None)
        filled[name] = {**defaults, **given}
    settings = check(filled, origin)
    if settings.train.steps is None and settings.train.epochs is None:
        raise InvalidInput(
            f"{origin} is not valid:\n  train: give steps or epochs; the task {task.name} has no default."
        )
    return Session(settings, task, folder)


def run(session: Session, progress: bool, resume: Path | None = None) -> tuple[RunFolder, FitResult, dict[str, Any]]:
    """Train as configured; returns the run folder, how it ended and the summary that it holds."""
    settings, task = session.settings, session.task
    if settings.train.threads is not None:
        torch.set_num_threads(settings.train.threads)
    if resume is None:
        folder = RunFolder.create(settings.output.folder, task.name)
        record = {**settings.model_dump(exclude_none=True), "relative_to": str(session.folder.resolve())}
        folder.write_json(CONFIG, record)
        folder.write_versions()
    else:
        folder = RunFolder(resume)
    if folder.last.exists():
        prepared = folder.read_json(PREPARED)
    else:  # also where the run to resume was killed before its first checkpoint
        prepared = task.prepare(task, progress) if task.prepare is not None else {}
        folder.write_json(PREPARED, prepared)
    result = fit(session, folder, progress, resume is not None)
    summary: dict[str, Any] = {
        "task": task.name,
        "ended": result.reason,
        "steps": result.steps,
        "best_loss": result.best,
        "best_step": result.best_step,
        "skipped_steps": result.skipped,
        "dropped_samples": result.dropped,
        "parameters": {name: value for name, (value, _) in physical_values(task.model).items()},
    }
    if task.report is not None and result.reason in ("finished", "early stopping"):
        summary.update(task.report(task, folder, result, prepared))
    folder.write_json(SUMMARY, {key: value for key, value in summary.items() if key != "text"})
    return folder, result, summary


def fit(session: Session, folder: RunFolder, progress: bool, resume: bool) -> FitResult:
    """The training itself."""
    task, train = session.task, session.settings.train
    trainer = Trainer(
        task.model,
        make_optimizer(task, session.settings.optimizer),
        task.loss_fn,
        run_folder=folder,
        on_failure=train.on_failure,
        max_failures=train.max_failures,
        monitor=task.monitor,
        checkpoint_every=train.checkpoint_every,
        log_every=train.log_every,
        progress=progress,
        seed=train.seed,
        label=task.name,
    )
    return trainer.fit(
        task.data,
        task.validation,
        steps=train.steps,
        epochs=train.epochs,
        batch_size=train.batch_size,
        validate_every=train.validate_every,
        patience=train.patience,
        resume=resume,
    )


def make_optimizer(task: Task, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """The optimizer of a configuration; science and network in groups of their own."""
    neural = neural_parameters(task.model)
    science = scientific_parameters(task.model)
    if isinstance(task.loss_fn, torch.nn.Module):
        science = [*science, *task.loss_fn.parameters()]
    science_lr = settings.lr if settings.science_lr is None else settings.science_lr
    groups: list[dict[str, Any]] = [{"params": neural}, {"params": science, "lr": science_lr}]
    base = getattr(torch.optim, settings.base)([g for g in groups if g["params"]], lr=settings.lr)
    clip = settings.clip_grad_norm
    if settings.kind == "base":
        if clip is not None:
            base.register_step_pre_hook(lambda *_: _clip([*neural, *science], clip))
        return base
    perturb = neural if settings.perturb == "neural" else None
    if perturb == []:
        raise InvalidInput('optimizer.perturb: the model has no network; set perturb="all" or kind="base".')
    if settings.kind == "ASAM":
        return ASAM(base, settings.rho, settings.eta, perturb, clip_grad_norm=clip)
    if settings.kind == "LookSAM":
        return LookSAM(base, settings.rho, settings.every, settings.alpha, perturb, clip_grad_norm=clip)
    return SAM(base, settings.rho, perturb=perturb, clip_grad_norm=clip)


def _clip(parameters: list[torch.nn.Parameter], norm: float) -> None:
    torch.nn.utils.clip_grad_norm_(parameters, norm)
