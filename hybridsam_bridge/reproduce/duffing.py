"""A forced Duffing oscillator whose cubic spring is missing from the equations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hybridsam_bridge.fields.base import VectorField
from hybridsam_bridge.fields.evaluate import find_additive
from hybridsam_bridge.fields.hybrid import Additive
from hybridsam_bridge.fields.parameters import Param, ParameterSet, physical_values
from hybridsam_bridge.models.initial_value import InitialValueModel
from hybridsam_bridge.objectives.data import DataLoss, Trajectories
from hybridsam_bridge.reproduce.methods import WEAKER_TOO
from hybridsam_bridge.reproduce.study import FULL_BACKEND, QUICK_BACKEND, Problem, Study
from hybridsam_bridge.reproduce.windows import mlp, windows
from hybridsam_bridge.solve import solve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALPHA, BETA, DELTA, GAMMA, OMEGA = 1.0, 1.0, 0.3, 0.3, 1.2
START = {"alpha": 0.2, "delta": 0.05}
ABOUT = """\
x'' + δ x' + α x + β x³ = γ cos ωt with α = 1, β = 1, δ = 0.3, γ = 0.3, ω = 1.2. The equations know the damping, the
linear spring and the forcing; α starts at 0.2 and δ at 0.05. The cubic spring is missing: a network 2-32-32-2
(tanh) of (x, x') is added to both derivatives. No published settings are known; the numbers are ours, a hardening
spring in its regular (not chaotic) regime, and the sizes are the pendulum's: 25 sequences each to train, validate
and test on, t in [0, 20) in steps of 0.5, initial states of random direction and radius U(0.5, 1.5), no noise.
Training on windows of ten points, the forcing's phase given with each; 600 steps of batches of 25, Adam with 3e-3
for the network, 2e-2 for α and δ. A network can take any part of the linear spring along with the cubic one, so α
is harder to find here than a parameter of a nonlinear term. θ error is the mean of |α - true| and |δ - true|;
prediction error the mean squared error of whole test sequences."""


class Duffing(VectorField):
    """(x, x'); ``context`` (1,) is the time at which a window starts. ``beta`` is what the science lacks."""

    state_shape = (2,)

    def __init__(self, alpha: float, delta: float, beta: float = 0.0):
        super().__init__()
        self.p = ParameterSet(alpha=Param(alpha, unit="1/s²"), delta=Param(delta, unit="1/s"))
        self.beta = beta

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        assert context is not None, "the data bring the start of each window"
        force = GAMMA * torch.cos(OMEGA * (t + context[0]))
        spring = self.p.alpha * y[0] + self.beta * y[0] ** 3
        return torch.stack([y[1], force - self.p.delta * y[1] - spring])


def sequences(count: int, points: int, seed: int) -> Trajectories:
    """``count`` sequences of (x, x') at 0, 0.5, ... from random initial states."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(count, 2, dtype=torch.float64, generator=generator)
    radius = 0.5 + torch.rand(count, 1, dtype=torch.float64, generator=generator)
    y0 = radius * direction / direction.norm(dim=1, keepdim=True)
    ts, start = 0.5 * torch.arange(points, dtype=torch.float64), torch.zeros(count, 1, dtype=torch.float64)
    truth = Duffing(ALPHA, DELTA, BETA)
    with torch.no_grad():
        y = solve(truth, y0, ts, start, method="Tsit5", rtol=1e-9, atol=1e-9, backend="torch").ys
    return Trajectories(ts, y, y0=y0, context=start)


def study(quick: bool) -> Study:
    """The study; the quick one has a smaller network, fewer sequences and steps."""
    count, points, width = (8, 20, 16) if quick else (25, 40, 32)
    solver: dict[str, Any] = {"method": "Tsit5", "rtol": 1e-3, "atol": 1e-4}
    solver["backend"] = QUICK_BACKEND if quick else FULL_BACKEND

    def build(seed: int) -> Problem:
        train, validation, test = (sequences(count, points, 3 * seed + k) for k in range(3))
        model = InitialValueModel(Additive(Duffing(**START), mlp(2, width, width, 2)), **solver)

        def score(model: nn.Module) -> dict[str, float]:
            predicted = model(test.ts, y0=test.given["y0"], context=test.given["context"])
            values = physical_values(model)
            errors = [abs(values["alpha"][0] - ALPHA), abs(values["delta"][0] - DELTA)]
            return {
                "theta_error": sum(errors) / 2,
                "prediction_error": float((predicted - test.y).square().mean()),
                "alpha_error": errors[0],
                "delta_error": errors[1],
            }

        cut, held_out = (windows(part, 10, with_start=True) for part in (train, validation))
        return Problem(model, cut, held_out, DataLoss(), score)

    return Study(
        "duffing",
        ABOUT,
        build,
        train={"steps": 20 if quick else 600, "batch_size": 25, "validate_every": 10},
        optimizer={"lr": 3e-3, "science_lr": 2e-2},
        quick=quick,
        seeds=2 if quick else 5,
        methods=("erm", "weight-decay", "sam") if quick else None,
        grids={"sam": (0.1,), "weight-decay": (1e-3,)} if quick else WEAKER_TOO,
        theta_label="error of α and δ",
        prediction_label="test mean squared error",
        figure=figure,
    )


def figure(models: Mapping[str, nn.Module], problem: Problem) -> Figure:
    """What each network adds to x'' over x at x' = 0, beside the cubic spring that is missing."""
    from hybridsam_bridge.reproduce.figures import axes_grid

    drawing, ((axis,),) = axes_grid(1, 1)
    x = torch.linspace(-1.5, 1.5, 81, dtype=torch.float64)
    states = torch.stack([x, torch.zeros_like(x)], 1)
    axis.plot(x, -BETA * x**3, color="black", linewidth=2, label="missing cubic spring")
    for name, model in models.items():
        axis.plot(x, find_additive(model).neural(states).detach()[:, 1], label=name)
    axis.set_xlabel("x at x' = 0")
    axis.set_ylabel("added to x''")
    axis.legend(frameon=False)
    return drawing
