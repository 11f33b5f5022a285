"""The methods that are compared, each with its hyperparameter and the values tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.objectives.penalties import Penalty
from hybridsam_bridge.reproduce.study import PENALTIES, Study


@dataclass(frozen=True)
class Method:
    """``label``: for tables. ``optimizer``: what the method sets in the [optimizer] section. ``symbol``: its
    hyperparameter, rho of the optimizer or weight lambda of a penalty; "" for none. ``grid``: the values tried.
    """

    label: str
    optimizer: dict[str, Any]
    symbol: str = ""
    grid: tuple[float, ...] = ()

    @property
    def sharpness_aware(self) -> bool:
        return self.optimizer["kind"] != "base"


_BASE = {"kind": "base"}

METHODS = {
    "erm": Method("ERM", _BASE),
    "weight-decay": Method("weight decay", _BASE, "λ", (1e-4, 1e-3)),
    "functional-norm": Method("functional norm", _BASE, "λ", (1e-3, 1e-2)),
    "orthogonality": Method("orthogonality", _BASE, "λ", (1e-3, 1e-2)),
    "sam": Method("SAM, network", {"kind": "SAM", "perturb": "neural"}, "ρ", (0.05, 0.1, 0.2)),
    "sam-all": Method("SAM, all parameters", {"kind": "SAM", "perturb": "all"}, "ρ", (0.05, 0.1, 0.2)),
    "asam": Method("ASAM, network", {"kind": "ASAM", "perturb": "neural"}, "ρ", (0.5, 1.0, 2.0)),
}

# Grids for studies whose validation prefers less of every method than the values above.
WEAKER_TOO = {
    "weight-decay": (1e-5, 1e-4, 1e-3),
    "functional-norm": (1e-4, 1e-3, 1e-2),
    "orthogonality": (1e-4, 1e-3, 1e-2),
    "sam": (0.02, 0.05, 0.1, 0.2),
    "sam-all": (0.02, 0.05, 0.1, 0.2),
    "asam": (0.2, 0.5, 1.0, 2.0),
}


def chosen_methods(study: Study, asked: Sequence[str] | None) -> list[str]:
    """The methods to run, in the order of the table. Raises ``InvalidInput`` for one unknown or not applicable."""
    for name in asked or ():
        if name not in METHODS:
            raise InvalidInput(f"methods: {name!r} is not known. Known: {', '.join(METHODS)}.")
        if name in study.not_applicable:
            raise InvalidInput(f"methods: {name} does not apply to {study.name}: {study.not_applicable[name]}")
    wanted = set(asked or study.methods or METHODS)
    return [name for name in METHODS if name in wanted and name not in study.not_applicable]


def grid(study: Study, name: str) -> list[float | None]:
    """Hyperparameters to try for a method; [None] for one that has none."""
    method = METHODS[name]
    return [float(v) for v in study.grids.get(name, method.grid)] if method.symbol else [None]


def optimizer_settings(study: Study, name: str, value: float | None) -> dict[str, Any]:
    """The [optimizer] section of a run."""
    method = METHODS[name]
    rho = {"rho": value} if method.sharpness_aware else {}
    return {**study.optimizer, **method.optimizer, **rho}


def loss_function(study: Study, name: str, value: float | None, loss_fn: Any) -> Any:
    """The loss that a run trains on: the problem's own, or that with the method's penalty."""
    if name not in PENALTIES or value is None:
        return loss_fn
    return Penalised(loss_fn, study.penalty(name, value))


class Penalised(nn.Module):
    """``loss_fn(model, batch)``, plus the penalty while the model is in training mode.

    Validation (eval mode) sees the data's misfit alone, so that weights and hyperparameters of all methods are
    chosen by the same number.
    """

    def __init__(self, loss_fn: Any, penalty: Penalty):
        super().__init__()
        self.loss_fn, self.penalty = loss_fn, penalty

    @property
    def dropped(self) -> int:
        """Samples that the inner loss left out."""
        return int(getattr(self.loss_fn, "dropped", 0))

    def forward(self, model: nn.Module, batch: Any) -> torch.Tensor:
        loss: torch.Tensor = self.loss_fn(model, batch)
        return loss + self.penalty(model, batch) if model.training else loss
