"""``hybridsam-bridge train``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.fields.roles import neural_parameters, scientific_parameters
from hybridsam_bridge.tasks.session import Session, open_session, run
from hybridsam_bridge.train.runs import CONFIG, RunFolder
from hybridsam_bridge.train.settings import read

# Exit codes as a shell gives them to a process ended by the signal.
SIGNALS = {"SIGINT": 130, "SIGTERM": 143}


def train_command(
    config: Path | None,
    changes: list[str],
    resume: Path | None,
    dry_run: bool,
    progress: bool,
    say: Callable[[str], Any],
) -> int:
    """Run the command; returns the exit code."""
    session = _resumed(config, changes, resume) if resume is not None else _fresh(config, changes)
    if dry_run:
        say(_describe(session))
        return 0
    folder, result, summary = run(session, progress, resume)
    if result.reason in SIGNALS:
        say(
            f"{result.reason}: saved after step {result.steps}. "
            f"Go on with: hybridsam-bridge train --resume {folder.path}"
        )
        return SIGNALS[result.reason]
    if "text" in summary:
        say(summary["text"])
    failed = f", {result.skipped} steps skipped" if result.skipped else ""
    say(f"{result.reason} after {result.steps} steps{failed}; run folder: {folder.path}")
    return 0


def _fresh(config: Path | None, changes: list[str]) -> Session:
    origin = "config" if config is None else str(config)
    return open_session(read(config, changes), origin, Path() if config is None else config.parent)


def _resumed(config: Path | None, changes: list[str], folder: Path) -> Session:
    if config is not None:
        raise InvalidInput("--resume: takes the configuration of the run; leave CONFIG out (--set may change it).")
    if not folder.is_dir():
        raise InvalidInput(f"--resume: {folder} is not a folder.")
    data = RunFolder(folder).read_json(CONFIG)
    relative_to = Path(data.pop("relative_to", "."))
    return open_session(read(None, changes, data), str(folder / CONFIG), relative_to)


def _describe(session: Session) -> str:
    task, settings = session.task, session.settings
    neural = sum(p.numel() for p in neural_parameters(task.model))
    science = sum(p.numel() for p in scientific_parameters(task.model))
    length = f"{settings.train.steps} steps" if settings.train.epochs is None else f"{settings.train.epochs} epochs"
    return (
        f"task {task.name}: {science} scientific and {neural} network parameters; {settings.optimizer.kind} over "
        f"{settings.optimizer.base}, {length}. The configuration is valid; nothing was run."
    )
