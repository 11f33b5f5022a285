"""The Gym pendulum under an expert controller: real control data, torque missing from the equations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from hybridsam_bridge.fields.base import VectorField
from hybridsam_bridge.fields.evaluate import find_additive
from hybridsam_bridge.fields.hybrid import Additive
from hybridsam_bridge.fields.parameters import Param, ParameterSet, physical_values
from hybridsam_bridge.models.initial_value import InitialValueModel
from hybridsam_bridge.objectives.data import DataLoss, Trajectories
from hybridsam_bridge.objectives.noise import Gaussian
from hybridsam_bridge.reproduce.data import data_file
from hybridsam_bridge.reproduce.methods import WEAKER_TOO
from hybridsam_bridge.reproduce.study import FULL_BACKEND, QUICK_BACKEND, Problem, Study
from hybridsam_bridge.reproduce.windows import mlp, windows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE, ORIGIN = "pendulum/expert_pendulum.npz", "from the Stable-Baselines repository"
GRAVITY, LENGTH, STEP = 10.0, 1.0, 0.05
EPISODES, POINTS = 100, 200
FASTEST = 8.0  # the simulator clips the angular velocity there
WINDOW = 11  # points: ten steps
SCALE = torch.tensor([1.0, 8.0], dtype=torch.float64)  # of angle and angular velocity
ABOUT = """\
Recorded episodes of the Gym pendulum (angle'' = 3g/(2l) sin(angle) + 3/(m l²) torque, l = m = 1, steps of 0.05 s by
semi-implicit Euler) under an expert controller, from the Stable-Baselines repository. The equations know gravity
only, with g unknown in [8, 12] (true 10; it starts at 8.5 on even seeds and at 11.5 on odd ones). The controller's
torque is missing, and not given: a network 3-64-64-2 (tanh) of cos, sin and velocity is added to both derivatives
and has to find what the controller does. Windows of ten steps; episodes are split 40/30/30 into training,
validation and test, another split each seed. Assumed: no windows in which the simulator clips the velocity at 8/s;
mean squared error of (angle, velocity/8); 500 steps of batches of 32, Adam with 3e-3 for the network, 2e-2 for g. θ
error is |g - 10|; prediction error the mean squared error over test windows. Over all recorded states the torque is
uncorrelated with sin(angle) (gravity alone fits best at g = 9.98), but it is a steep function of the state, which a
network can exchange for gravity."""


class Gravity(VectorField):
    """(angle, angular velocity), angle 0 upright, without torque."""

    state_shape = (2,)

    def __init__(self, g: float):
        super().__init__()
        self.p = ParameterSet(g=Param(g, transform="logit", bounds=(8.0, 12.0), unit="m/s²"))

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        return torch.stack([y[1], 1.5 * self.p.g / LENGTH * torch.sin(y[0])])


class Controller(nn.Module):
    """(..., 2) states -> (..., 2) added derivatives; the same for angles a turn apart."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = mlp(3, width, width, 2)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        features = torch.stack([torch.cos(y[..., 0]), torch.sin(y[..., 0]), y[..., 1] / FASTEST], -1)
        return self.layers(features) * SCALE


def load(steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """States (100, steps, 2), angles continuous in time, and torques (100, steps)."""
    with np.load(data_file(FILE, ORIGIN)) as file:
        seen = file["obs"].astype(np.float64).reshape(EPISODES, POINTS, 3)[:, :steps]
        torque = file["actions"].astype(np.float64).reshape(EPISODES, POINTS)[:, :steps]
    angle = np.unwrap(np.arctan2(seen[..., 1], seen[..., 0]), axis=1)
    return torch.from_numpy(np.stack([angle, seen[..., 2]], -1)), torch.from_numpy(torque)


def cut(states: torch.Tensor) -> Trajectories:
    """Windows of ten steps in which the simulator did not clip the velocity."""
    ts = STEP * torch.arange(states.shape[1], dtype=torch.float64)
    found = windows(Trajectories(ts, states), WINDOW, WINDOW - 1)
    free = (found.y[..., 1].abs() < FASTEST).all(1)
    return Trajectories(found.ts, found.y[free], y0=found.y[free, 0])


def study(quick: bool) -> Study:
    """The study; the quick one has a smaller network and fewer steps of the episodes."""
    steps, width = (31, 16) if quick else (POINTS, 64)
    solver: dict[str, Any] = {"method": "Tsit5", "rtol": 1e-3, "atol": 1e-4}
    solver["backend"] = QUICK_BACKEND if quick else FULL_BACKEND

    def build(seed: int) -> Problem:
        states, _ = load(steps)
        order = torch.randperm(EPISODES, generator=torch.Generator().manual_seed(seed))
        train, validation, test = (cut(states[part]) for part in order.split([40, 30, 30]))
        model = InitialValueModel(Additive(Gravity(11.5 if seed % 2 else 8.5), Controller(width)), **solver)

        def score(model: nn.Module) -> dict[str, float]:
            residual = (model(test.ts, y0=test.given["y0"]) - test.y) / SCALE
            g = physical_values(model)["g"][0]
            return {"theta_error": abs(g - GRAVITY), "prediction_error": float(residual.square().mean())}

        return Problem(model, train, validation, DataLoss(Gaussian(SCALE)), score)

    return Study(
        "pendulum-gym",
        ABOUT,
        build,
        train={"steps": 20 if quick else 500, "batch_size": 32, "validate_every": 10 if quick else 20},
        optimizer={"lr": 3e-3, "science_lr": 2e-2},
        quick=quick,
        seeds=2 if quick else 5,
        methods=("erm", "weight-decay", "sam") if quick else None,
        grids={"sam": (0.1,), "weight-decay": (1e-3,)} if quick else WEAKER_TOO,
        theta_label="error of g (m/s²)",
        prediction_label="test mean squared error",
        files={FILE: ORIGIN},
        figure=figure,
    )


def figure(models: Mapping[str, nn.Module], problem: Problem) -> Figure:
    """What each network adds to the angular acceleration, against the torque's true part, on recorded states."""
    from hybridsam_bridge.reproduce.figures import axes_grid

    states, torque = load(60)
    drawing, axes = axes_grid(1, len(models), width=3.0, height=3.0)
    for axis, (name, model) in zip(axes[0], models.items(), strict=True):
        added = find_additive(model).neural(states.reshape(-1, 2)).detach()[:, 1]
        axis.plot(3 * torque.reshape(-1), added, ".", markersize=1)
        axis.plot([-6, 6], [-6, 6], color="black", linewidth=1)
        axis.set_title(f"{name}: g = {physical_values(model)['g'][0]:.2f}")
        axis.set_xlabel("3/(ml²) torque")
    axes[0][0].set_ylabel("network")
    return drawing
