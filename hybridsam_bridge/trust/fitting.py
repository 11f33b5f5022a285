"""A fit with the solver in the loop, for models that bring none of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from hybridsam_bridge.objectives import Trajectories
from hybridsam_bridge.trust.trials import run_model


@dataclass(frozen=True)
class SolverFit:
    """Least squares through ``hsb.solve`` by L-BFGS: ``fit(model, data)`` trains the model in place.

    Attributes:
        iterations: of L-BFGS at most. solver: options of ``hsb.solve``.
        decay: factor on the mean square of the parameters, added to the misfit (relative to the data's size).
    """

    iterations: int = 40
    solver: dict[str, Any] = field(default_factory=dict)
    decay: float = 0.0

    def __call__(self, model: nn.Module, data: Trajectories) -> None:
        trained = [p for p in model.parameters() if p.requires_grad]
        scale = data.y.square().mean()
        optimizer = torch.optim.LBFGS(
            trained, max_iter=self.iterations, history_size=20, line_search_fn="strong_wolfe", tolerance_change=1e-10
        )

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            ys = run_model(model, data, self.solver)
            good = torch.isfinite(ys)
            error = torch.where(good, ys, torch.zeros_like(ys)) - data.y
            loss = (error.square() * data.mask).mean() / scale
            if self.decay:
                loss = loss + self.decay * sum(p.square().sum() for p in trained)
            if not bool(good.all()):  # a line search that overshot: finite and worse, so that it comes back
                loss = loss + 1e3 * (~good).double().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
