"""The regularisers that the literature on hybrid models compares, each usable with any optimizer.

All look at the network of the outermost ``hsb.Additive`` in the model, at the measured or given states of a
batch: ``batch["states"]`` ``(B, T, *state_shape)`` if it has them, else the states that the model solved for
last (the data loss just did), taken as constants.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import nn

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.fields.evaluate import evaluate_parts, find_additive
from hybridsam_bridge.fields.roles import neural_parameters
from hybridsam_bridge.models.initial_value import InitialValueModel
from hybridsam_bridge.objectives.data import Batch


class Penalty:
    """``weight`` times a number that depends on the model; called as ``penalty(model, batch)``."""

    def __init__(self, weight: float):
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight) or weight < 0:
            raise InvalidInput(f"weight: must be finite and not negative, got {weight!r}.")
        self.weight = float(weight)

    def __call__(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return self.weight * self.value(model, batch)

    @abstractmethod
    def value(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The penalty at weight one."""


class WeightDecay(Penalty):
    """weight * sum of squares of the network's parameters."""

    def value(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        parameters = neural_parameters(model)
        if not parameters:
            raise InvalidInput("WeightDecay: the model has no network parameters (see hsb.neural_parameters).")
        return torch.stack([(p**2).sum().double() for p in parameters]).sum()


class FunctionalNorm(Penalty):
    """weight * E ||network||² over the states: keeps the network small as a function.

    Source: Yin et al., "Augmenting physical models with deep networks for complex dynamics forecasting"
    (APHYNITY), ICLR 2021 (arXiv:2010.04456).
    """

    def value(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        _, neural = _parts(model, batch)
        return neural.flatten(2).square().sum(-1).mean()


class Orthogonality(Penalty):
    """weight * |E <science, network>| over the states: what the equations can say is left to them."""

    def value(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        science, neural = _parts(model, batch)
        return (science * neural).flatten(2).sum(-1).mean().abs()


def _parts(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    field = find_additive(model)
    if "states" in batch:
        return evaluate_parts(field, batch["ts"], batch["states"], batch.get("context"))
    solved = next((m for m in model.modules() if isinstance(m, InitialValueModel) and m.last is not None), None)
    if solved is None or solved.last is None:
        raise InvalidInput('batch: has no "states", and the model has no hsb.InitialValueModel that was solved before.')
    states = torch.nan_to_num(solved.last.ys)
    batched = states.ndim > 1 + len(field.state_shape)
    return evaluate_parts(field, solved.last.ts, states if batched else states[None], solved.last_context)
