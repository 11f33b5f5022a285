"""A field, its initial state and what is observed of it, as one torch module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.fields.base import Field, check_field
from hybridsam_bridge.fields.parameters import ParameterSet
from hybridsam_bridge.problem import Solution
from hybridsam_bridge.solve import solve


class InitialValueModel(nn.Module):
    """Predicts observations by solving ``field`` from an initial state.

    Args:
        field: the right-hand side.
        y0: the initial state where a batch brings none: a tensor or ``nn.Parameter`` of ``state_shape``, or a
            ``ParameterSet`` whose values, in order, make up the state.
        observe: what is measured, called on the states ``(*batch, T, *state_shape)``; None for the states.
        solver: options of ``hsb.solve`` (method, rtol, atol, adjoint, backend, max_steps, on_failure, ...).

    Attributes:
        last: the ``Solution`` of the last call, without its graph, for statistics. last_context: its context.
    """

    last: Solution | None = None
    last_context: torch.Tensor | None = None

    def __init__(
        self,
        field: Field,
        y0: torch.Tensor | ParameterSet | None = None,
        observe: Callable[[torch.Tensor], torch.Tensor] | None = None,
        **solver: Any,
    ):
        super().__init__()
        self.field = check_field(field)
        if isinstance(y0, (nn.Parameter, nn.Module)) or y0 is None:
            self.y0 = y0
        elif isinstance(y0, torch.Tensor):
            self.register_buffer("y0", y0)
        else:
            raise InvalidInput(f"y0: must be a tensor, an nn.Parameter or a ParameterSet, got {type(y0).__name__}.")
        self.observe = observe
        self.solver = solver

    def initial_state(self, batch: tuple[int, ...] = ()) -> torch.Tensor:
        """The model's own initial state, expanded to ``(*batch, *state_shape)``."""
        if self.y0 is None:
            raise InvalidInput("y0: neither the model nor the batch has an initial state; pass y0 to one of them.")
        value: torch.Tensor = (
            torch.cat([v.reshape(-1) for v in self.y0.values().values()])
            if isinstance(self.y0, ParameterSet)
            else self.y0
        )
        shape = tuple(self.field.state_shape)
        if value.numel() != torch.Size(shape).numel():
            raise InvalidInput(f"y0: holds {value.numel()} numbers, the field's state_shape is {shape}.")
        return value.reshape(shape).expand(*batch, *shape)

    def solve(self, ts: torch.Tensor, y0: torch.Tensor | None = None, context: torch.Tensor | None = None) -> Solution:
        """The whole solution at ``ts`` (T,), in states."""
        if y0 is None:
            batch = () if context is None else tuple(context.shape[:1])
            y0 = self.initial_state(batch)
        solution = solve(self.field, y0, ts, context=context, **self.solver)
        self.__dict__["last_context"] = None if context is None else context.detach()
        self.__dict__["last"] = Solution(solution.ys.detach(), solution.ts, solution.status, solution.stats)
        return solution

    def forward(
        self, ts: torch.Tensor, y0: torch.Tensor | None = None, context: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Predicted observations ``(*batch, T, *observed)`` at ``ts`` (T,)."""
        ys = self.solve(ts, y0, context).ys
        return ys if self.observe is None else self.observe(ys)
