"""A pendulum whose friction is missing from the equations (the pendulum of APHYNITY and of the SAM paper)."""

from __future__ import annotations

import math
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
from hybridsam_bridge.reproduce.study import FULL_BACKEND, QUICK_BACKEND, Problem, Study
from hybridsam_bridge.reproduce.windows import mlp, windows
from hybridsam_bridge.solve import solve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OMEGA2 = (2 * math.pi / 6) ** 2
FRICTION = 0.2
START = 0.2  # of omega2
GRIDS = {
    "weight-decay": (1e-3, 1e-2, 1e-1),
    "sam": (0.02, 0.05, 0.1),
    "sam-all": (0.02, 0.05, 0.1),
    "asam": (0.2, 0.5, 1.0),
}
ABOUT = """\
q' = p, p' = -ω0² sin q - α p with ω0² = (2π/6)² and α = 0.2. The equations know the first term only, ω0² starts at
0.2, and a network 2-200-200-2 (tanh) is added to both derivatives. Sequences run over t in [0, 20) in steps of 0.5
from initial states of random direction and radius U(1.3, 2.3), without noise: 25 to train on and 25 to test on, as
in APHYNITY (Yin et al., arXiv:2010.04456), whose settings these are; 25 more to validate on. Assumed: training on
windows of ten points, each from its measured first state, in batches of 25, Adam with 1e-3 for the network (with
3e-3 every method's validation error is larger) and 2e-2 for ω0². Shortened: 700 steps of training. Tried as well: a
network 2-64-64-2 at 3e-3, which came to 0.457 with ERM, 0.063 with weight decay and 0.148 with SAM. θ error is
|ω0² - true|; prediction error the mean squared error of whole test sequences from their initial states."""


class Pendulum(VectorField):
    """(q, p): the undamped pendulum, with the friction that the truth has and the science has not."""

    state_shape = (2,)

    def __init__(self, omega2: float, friction: float = 0.0):
        super().__init__()
        self.p = ParameterSet(omega2=Param(omega2, unit="1/s²"))
        self.friction = friction

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        return torch.stack([y[1], -self.p.omega2 * torch.sin(y[0]) - self.friction * y[1]])


def sequences(count: int, points: int, seed: int) -> Trajectories:
    """``count`` sequences of (q, p) at 0, 0.5, ... from random initial states."""
    generator = torch.Generator().manual_seed(seed)
    direction = 2 * torch.rand(count, 2, dtype=torch.float64, generator=generator) - 1
    radius = 1.3 + torch.rand(count, 1, dtype=torch.float64, generator=generator)
    y0 = radius * direction / direction.norm(dim=1, keepdim=True)
    ts = 0.5 * torch.arange(points, dtype=torch.float64)
    with torch.no_grad():
        y = solve(Pendulum(OMEGA2, FRICTION), y0, ts, method="Tsit5", rtol=1e-9, atol=1e-9, backend="torch").ys
    return Trajectories(ts, y, y0=y0)


def study(quick: bool) -> Study:
    """The study; the quick one has a smaller network, fewer sequences and steps."""
    count, points, width = (8, 20, 16) if quick else (25, 40, 200)
    solver: dict[str, Any] = {
        "method": "Tsit5",
        "rtol": 1e-3,
        "atol": 1e-4,
        "backend": QUICK_BACKEND if quick else FULL_BACKEND,
    }

    def build(seed: int) -> Problem:
        train, validation, test = (sequences(count, points, 3 * seed + k) for k in range(3))
        model = InitialValueModel(Additive(Pendulum(START), mlp(2, width, width, 2)), **solver)

        def score(model: nn.Module) -> dict[str, float]:
            predicted = model(test.ts, y0=test.given["y0"])
            omega2 = physical_values(model)["omega2"][0]
            return {
                "theta_error": abs(omega2 - OMEGA2),
                "prediction_error": float((predicted - test.y).square().mean()),
            }

        return Problem(model, windows(train, 10), windows(validation, 10), DataLoss(), score)

    return Study(
        "pendulum",
        ABOUT,
        build,
        train={"steps": 20 if quick else 700, "batch_size": 16 if quick else 25, "validate_every": 10},
        optimizer={"lr": 1e-3, "science_lr": 2e-2},
        quick=quick,
        seeds=2 if quick else 5,
        methods=("erm", "weight-decay", "sam") if quick else None,
        grids={"sam": (0.1,), "weight-decay": (1e-3,)} if quick else GRIDS,
        theta_label="error of ω0² (1/s²)",
        prediction_label="test mean squared error",
        figure=figure,
    )


def figure(models: Mapping[str, nn.Module], problem: Problem) -> Figure:
    """What each network adds to p', over p at q = 0 where friction is missing, over q at p = 0 where nothing is."""
    from hybridsam_bridge.reproduce.figures import axes_grid

    drawing, ((left, right),) = axes_grid(1, 2, width=5.0)
    x = torch.linspace(-2, 2, 81, dtype=torch.float64)
    zero = torch.zeros_like(x)
    left.plot(x, -FRICTION * x, color="black", linewidth=2, label="missing")
    right.plot(x, zero, color="black", linewidth=2, label="missing")
    for name, model in models.items():
        network = find_additive(model).neural
        left.plot(x, network(torch.stack([zero, x], 1)).detach()[:, 1], label=name)
        right.plot(x, network(torch.stack([x, zero], 1)).detach()[:, 1], label=name)
    left.set_xlabel("p at q = 0")
    right.set_xlabel("q at p = 0")
    left.set_ylabel("added to p'")
    left.legend(frameon=False, fontsize=8)
    return drawing
