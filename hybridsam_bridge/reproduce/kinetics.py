"""What the stiff kinetic studies share: noisy trajectories of some species, and the study built on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hybridsam_bridge.fields.base import VectorField
from hybridsam_bridge.fields.hybrid import Additive
from hybridsam_bridge.fields.parameters import physical_values
from hybridsam_bridge.models.initial_value import InitialValueModel
from hybridsam_bridge.objectives.data import DataLoss, Trajectories
from hybridsam_bridge.objectives.noise import Gaussian
from hybridsam_bridge.objectives.penalties import FunctionalNorm, Orthogonality
from hybridsam_bridge.reproduce.study import FULL_BACKEND, QUICK_BACKEND, Problem, Study
from hybridsam_bridge.solve import solve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARED = """\
Made up here, since nothing is published: initial states are drawn uniformly, {count} trajectories to train on and as
many to validate and to test on, {points} points each, with normal noise of {noise:g} of each species' size (not in the
test data). The network, {layers} with tanh, sees the slow species in units of their size; its output is scaled to the
size of the slow rates, so that it can replace what the unknown parameter does. The unknown parameter is trained as its
logarithm, from a start wrong by a factor of two. θ error is |ln(found / true)|; prediction error the root mean square
over the measured species of whole test trajectories, in units of the species' size. What is measured, the network's
scale, the number of steps and the radii tried were settled in trials that looked at θ, so that plain training leaves
the parameter in doubt; the choice among hyperparameters did not look at it."""

QUICK_GRIDS = {"sam": (0.1,), "weight-decay": (1e-4,)}
GRIDS = {"weight-decay": (1e-5, 1e-4, 1e-3), "orthogonality": (1e-2, 1e-1, 1.0), "asam": (0.5, 1.0, 2.0)}


@dataclass(frozen=True)
class Kinetics:
    """A reaction with one unknown parameter and something missing.

    Attributes:
        truth: the field that made the data. science, network: fresh parts of the model for each run.
        theta: name of the unknown parameter, declared in ``truth`` and ``science``.
        low, high: of the initial states, drawn uniformly between them.
        ts: (T,) times of the measurements, the first that of the initial state.
        size: typical size of each state. measured: indices of the states that are measured.
        gain: size of the network's part of the right-hand side; penalties are in its units.
        optimizer, grids: as in ``Study``; steps: of the full study.
    """

    name: str
    about: str
    truth: VectorField
    science: Callable[[], VectorField]
    network: Callable[[int], nn.Module]
    theta: str
    theta_label: str
    low: Sequence[float]
    high: Sequence[float]
    ts: torch.Tensor
    size: Sequence[float]
    measured: Sequence[int]
    gain: float
    steps: int
    figure: Callable[[Mapping[str, nn.Module], Problem], Figure]
    optimizer: Mapping[str, Any] = field(default_factory=lambda: {"lr": 1e-2})
    grids: Mapping[str, Sequence[float]] = field(default_factory=dict)
    noise: float = 0.005
    count: int = 32
    width: int = 32


def trajectories(k: Kinetics, seed: int, count: int, noise: float, backend: str) -> Trajectories:
    """``count`` trajectories of the measured species, (count, T, measured), from random initial states."""
    generator = torch.Generator().manual_seed(seed)
    low, high = (torch.tensor(x, dtype=torch.float64) for x in (k.low, k.high))
    size = torch.tensor(k.size, dtype=torch.float64)
    y0 = low + (high - low) * torch.rand(count, len(low), dtype=torch.float64, generator=generator)
    with torch.no_grad():
        y = solve(k.truth, y0, k.ts, rtol=1e-7, atol=1e-9 * size, backend=backend).ys
    y = y + noise * size * torch.randn(y.shape, dtype=y.dtype, generator=generator)
    return Trajectories(k.ts, y[..., list(k.measured)], y0=y0)


def kinetic_study(k: Kinetics, quick: bool) -> Study:
    """The study of a reaction; the quick one has a smaller network, fewer trajectories and steps."""
    count, width = (8, 8) if quick else (k.count, k.width)
    size = torch.tensor(k.size, dtype=torch.float64)
    seen = size[list(k.measured)]
    backend = QUICK_BACKEND if quick else FULL_BACKEND
    true = physical_values(k.truth)[k.theta][0]

    def build(seed: int) -> Problem:
        train, validation = (trajectories(k, 3 * seed + j, count, k.noise, backend) for j in range(2))
        test = trajectories(k, 3 * seed + 2, count, 0.0, backend)
        model = InitialValueModel(
            Additive(k.science(), k.network(width)),
            observe=lambda ys: ys[..., list(k.measured)],
            rtol=1e-3,  # the discrete adjoint is exact for the computed solution at any tolerance
            atol=1e-5 * size,
            backend=backend,
        )

        def score(model: nn.Module) -> dict[str, float]:
            misfit = (model(test.ts, y0=test.given["y0"]) - test.y)[:, 1:] / seen
            found = physical_values(model)[k.theta][0]
            return {
                "theta_error": abs(math.log(found / true)),
                "prediction_error": float(misfit.square().mean().sqrt()),
                k.theta: found,
            }

        # A tenth of the size as sigma: the misfit is of order one where training starts.
        return Problem(model, train, validation, DataLoss(Gaussian(0.1 * seen)), score)

    layers = f"{network_layers(k.network(width))}"
    shared = SHARED.format(count=count, points=len(k.ts), noise=k.noise, layers=layers)
    return Study(
        k.name,
        f"{k.about}\n{shared}",
        build,
        train={"steps": 20 if quick else k.steps, "batch_size": 8, "validate_every": 10 if quick else 25},
        optimizer=k.optimizer,
        quick=quick,
        seeds=2 if quick else 5,
        methods=("erm", "weight-decay", "sam") if quick else None,
        grids=QUICK_GRIDS if quick else {**GRIDS, **k.grids},
        penalties={
            "functional-norm": lambda weight: FunctionalNorm(weight / k.gain**2),
            "orthogonality": lambda weight: Orthogonality(weight / k.gain**2),
        },
        theta_label=k.theta_label,
        prediction_label="test error (sizes)",
        figure=k.figure,
    )


def network_layers(network: nn.Module) -> str:
    """Such as "2-32-32-1"."""
    dense = [m for m in network.modules() if isinstance(m, nn.Linear)]
    return "-".join(str(n) for n in (dense[0].in_features, *(m.out_features for m in dense)))
