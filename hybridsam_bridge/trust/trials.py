"""Trajectories of the truth and of models for draws of one varied quantity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from hybridsam_bridge.errors import InvalidInput, SolveFailed
from hybridsam_bridge.fields.base import Field
from hybridsam_bridge.models.initial_value import InitialValueModel
from hybridsam_bridge.objectives import Trajectories
from hybridsam_bridge.solve import solve
from hybridsam_bridge.trust.spaces import Array

VARIED = ("initial_condition", "forcing", "parameter")
Place = Callable[[torch.Tensor], torch.Tensor]


class Space(Protocol):
    """What draws can come from: ``FunctionSpace``, ``Box``, or anything with these two."""

    @property
    def name(self) -> str: ...

    def sample(self, n: int, x: Array, rng: np.random.Generator, match: str | None = None) -> Array: ...


@dataclass(frozen=True)
class Setting:
    """What is common to all trajectories of a report.

    Attributes:
        truth: the right-hand side that is taken for true.
        vary: "initial_condition" (draws are initial states), "forcing" or "parameter" (draws are contexts).
        ts: ``(T,)``. grid: ``(m,)`` points at which function spaces are evaluated.
        y0: ``state_shape``, the initial state, or what draws of it are added to. context: fixed context or None.
        place: draws ``(n, m)`` -> initial states ``(n, *state_shape)`` or contexts ``(n, *any)``; None reshapes.
        match: see ``FunctionSpace.sample``. noise: of training data, as a fraction of their root mean square.
        solver: options of ``hsb.solve`` for models. truth_solver: for the truth.
    """

    truth: Field
    vary: str
    ts: torch.Tensor
    grid: Array
    y0: torch.Tensor
    context: torch.Tensor | None = None
    place: Place | None = None
    match: str | None = "rms"
    noise: float = 0.0
    solver: dict[str, Any] = field(default_factory=dict)
    truth_solver: dict[str, Any] = field(default_factory=dict)

    def conditions(self, draws: Array) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Initial states ``(n, *state_shape)`` and contexts ``(n, *any)`` for draws ``(n, m)``."""
        values, n = torch.as_tensor(draws, dtype=torch.float64), len(draws)
        shape = tuple(self.truth.state_shape)
        base = self.y0.expand(n, *shape)
        if self.vary == "initial_condition":
            placed = self.place(values) if self.place is not None else _reshape(values, shape)
            context = None if self.context is None else self.context.expand(n, *self.context.shape)
            return base + placed, context
        placed = self.place(values) if self.place is not None else values
        return base.contiguous(), placed

    def data(self, space: Space, n: int, seed: Sequence[int], noise: float = 0.0) -> Trajectories:
        """n true trajectories of draws from ``space``; the same seed gives the same draws and noise."""
        rng = np.random.default_rng(list(seed))
        y0, context = self.conditions(space.sample(n, self.grid, rng, self.match))
        try:
            ys = solve(self.truth, y0, self.ts, context, **self.truth_solver).ys.detach()
        except SolveFailed as error:
            raise InvalidInput(
                f"spaces: the truth itself cannot be solved for a draw of {space.name!r}: {error}"
            ) from error
        if noise:
            scale = noise * float(ys[:, 1:].square().mean().sqrt())
            ys = ys.clone()
            ys[:, 1:] += scale * torch.as_tensor(rng.standard_normal(tuple(ys[:, 1:].shape)))
        return Trajectories(self.ts, ys, y0=y0, context=context)


def check_model(model: object) -> nn.Module:
    """Refuse what ``run_model`` cannot run."""
    inside = model.modules() if isinstance(model, nn.Module) else ()
    if not isinstance(model, nn.Module) or not any(isinstance(m, (Field, InitialValueModel)) for m in inside):
        raise InvalidInput(
            "model_factory: must return an hsb.VectorField, a composition, an hsb.InitialValueModel or a module around "
            f"one, it returned {type(model).__name__}."
        )
    return model


def run_model(model: nn.Module, data: Trajectories, options: dict[str, Any]) -> torch.Tensor:
    """States ``(B, T, *state_shape)`` from the data's initial states; NaN from where a solve failed.

    ``options`` of ``hsb.solve`` override the model's own. Modules around an ``hsb.InitialValueModel`` (such as
    ``hsb.OutputCorrected``) are called with ts, y0 and context.
    """
    options = {**options, "on_failure": "nan"}
    y0, context = data.given["y0"], data.given["context"]
    assert y0 is not None, "Setting.data gives every trajectory its initial state"
    if isinstance(model, Field):
        return solve(model, y0, data.ts, context, **options).ys
    with _solver_options(model, options):
        if isinstance(model, InitialValueModel):
            return model.solve(data.ts, y0, context).ys  # states, whatever is observed of them
        return model(data.ts, y0=y0, context=context)


def predict(model: nn.Module, data: Trajectories, options: dict[str, Any]) -> torch.Tensor:
    """``run_model`` without a graph."""
    with torch.no_grad():
        return run_model(model, data, options)


@contextmanager
def _solver_options(model: nn.Module, options: dict[str, Any]) -> Iterator[None]:
    inner = [module for module in model.modules() if isinstance(module, InitialValueModel)]
    before = [module.solver for module in inner]
    try:
        for module, own in zip(inner, before, strict=True):
            module.solver = {**own, **options}
        yield
    finally:
        for module, own in zip(inner, before, strict=True):
            module.solver = own


def _reshape(values: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    if values[0].numel() != torch.Size(shape).numel():
        raise InvalidInput(
            f"place: a draw has {values[0].numel()} numbers and the state {torch.Size(shape).numel()} (shape {shape}); "
            "pass place, a function that turns draws (n, m) into initial states."
        )
    return values.reshape(len(values), *shape)
