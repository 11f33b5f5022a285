"""The hare-lynx task: the hybrid model, its start from the pure equations, and how both are fitted."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.fields.hybrid import Additive
from hybridsam_bridge.fields.parameters import Param, ParameterSet
from hybridsam_bridge.models.initial_value import InitialValueModel
from hybridsam_bridge.objectives.data import DataLoss
from hybridsam_bridge.objectives.noise import LogNormal
from hybridsam_bridge.tasks.base import Task
from hybridsam_bridge.tasks.hare_lynx.model import (
    SIGMA,
    GrowthCorrection,
    LotkaVolterra,
    load,
    rates,
    rates_from_slopes,
)
from hybridsam_bridge.tasks.hare_lynx.report import report
from hybridsam_bridge.train.progress import ProgressBar


def build(options: dict[str, Any], solver: dict[str, Any]) -> Task:
    """The task. Its only option is ``width``, of the network's hidden layer (8)."""
    unknown = sorted(set(options) - {"width"})
    if unknown:
        raise InvalidInput(f"task.options.{unknown[0]}: is not an option of hare_lynx. Known: width.")
    width = options.get("width", 8)
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise InvalidInput(f"task.options.width: must be a positive integer, got {width!r}.")
    data = load()
    first = data.y[0, 0].tolist()
    y0 = ParameterSet(
        hare_1900=Param(first[0], transform="log", unit="thousand"),
        lynx_1900=Param(first[1], transform="log", unit="thousand"),
    )
    field = Additive(LotkaVolterra(**rates_from_slopes(data)), GrowthCorrection(width))
    model = InitialValueModel(field, y0, **{"rtol": 1e-5, "atol": 1e-5, **solver})
    return Task(
        "hare_lynx",
        model,
        DataLoss(LogNormal(SIGMA)),
        data,
        prepare=fit_science,
        report=report,
        train={"steps": 300, "threads": 1},  # more threads only cost with tensors this small
        optimizer={"kind": "SAM", "lr": 5e-3, "rho": 0.05},
    )


def fit_science(task: Task, progress: bool) -> dict[str, Any]:
    """Fit the pure equations by L-BFGS, which leaves the hybrid to start from them. Returns what it found."""
    field, start = task.model.field, task.model.y0
    science = InitialValueModel(field.science, start, **task.model.solver)
    batch = task.data.whole()
    optimizer = torch.optim.LBFGS(
        science.parameters(), max_iter=40, line_search_fn="strong_wolfe", tolerance_change=1e-7
    )
    steps = 0

    def closure() -> torch.Tensor:
        nonlocal steps
        steps += 1
        optimizer.zero_grad()
        loss = task.loss_fn(science, batch)
        loss.backward()
        if bar is not None:
            bar.update(steps, {"loss": float(loss.detach()), **rates(science)})
        return loss

    bar = ProgressBar(50, "science only") if progress else None
    with bar if bar is not None else contextlib.nullcontext():
        optimizer.step(closure)
    return {
        "rates": rates(science),
        "initial": [value for value, _ in start.report().values()],
        "loss": float(task.loss_fn(science, batch).detach()),
        "evaluations": steps,
    }
