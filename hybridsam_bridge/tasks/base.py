"""What a task hands to the training command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from hybridsam_bridge.train.runs import RunFolder
from hybridsam_bridge.train.trainer import FitResult


@dataclass
class Task:
    """A model, its data, and what to do around the training.

    Attributes:
        name: for the run folder.
        model: the ``nn.Module`` to train. loss_fn: ``loss_fn(model, batch)`` -> scalar.
        data, validation: as ``Trainer.fit`` takes them.
        prepare: called as ``prepare(task, progress)`` before a fresh training, for example to start the science
            from its own fit; returns what ``report`` and the run's summary are to know of it.
        report: called as ``report(task, folder, result, prepared)`` after the training; writes figures, returns
            a summary of plain data, and lines of text to print under the key "text".
        monitor: more columns for the log, called with the model.
        train, optimizer: defaults of the configuration's sections of the same name.
    """

    name: str
    model: Any
    loss_fn: Callable[[nn.Module, Any], torch.Tensor]
    data: Any
    validation: Any = None
    prepare: Callable[[Task, bool], dict[str, Any]] | None = None
    report: Callable[[Task, RunFolder, FitResult, dict[str, Any]], dict[str, Any]] | None = None
    monitor: Callable[[nn.Module], dict[str, float]] | None = None
    train: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
