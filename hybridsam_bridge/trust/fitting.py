"""A fit with the solver in the loop, for models that bring none of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from hybridsam_bridge.objectives import Trajectories
from hybridsam_bridge.solve import solve
from hybridsam_bridge.trust.trials import field_of


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
        right_hand_side, batch = field_of(model), data.whole()
        scale = batch["y"].square().mean()
        optimizer = torch.optim.LBFGS(
            trained, max_iter=self.iterations, history_size=20, line_search_fn="strong_wolfe", tolerance_change=1e-12
        )

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            options = {**self.solver, "on_failure": "nan"}
            ys = solve(right_hand_side, batch["y0"], batch["ts"], batch.get("context"), **options).ys
            good = torch.isfinite(ys)
            error = torch.where(good, ys, torch.zeros_like(ys)) - batch["y"]
            loss = (error.square() * batch["mask"]).mean() / scale
            if self.decay:
                loss = loss + self.decay * sum(p.square().sum() for p in trained)
            if not bool(good.all()):  # a line search that overshot: finite and worse, so that it comes back
                loss = loss + 1e3 * (~good).double().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
