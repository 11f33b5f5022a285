"""The light tunnel of the causal chambers: Malus's law on measured light, its colour response unknown."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from hybridsam_bridge.fields.parameters import Param, ParameterSet
from hybridsam_bridge.fields.roles import NEURAL, SCIENCE
from hybridsam_bridge.models.forms import Composed
from hybridsam_bridge.objectives.data import Batch
from hybridsam_bridge.objectives.penalties import Penalty
from hybridsam_bridge.reproduce.data import data_file
from hybridsam_bridge.reproduce.study import Problem, Study
from hybridsam_bridge.reproduce.windows import mlp

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILES = ("light_tunnel/uniform_reference.csv", "light_tunnel/uniform_pol_1_strong.csv")
ORIGIN = "measurements of the causal chambers, Gamella et al. 2025, CC BY 4.0"
COLUMNS = ("red", "green", "blue", "pol_1", "pol_2", "ir_1", "ir_3")
BRIGHTEST = 85.0  # brightness steps, the largest in these files
# Transmission of aligned and of crossed polarisers: means over the colours of the calibrated simulator that the
# chambers' authors publish (package causalchamber).
ALIGNED, CROSSED = 0.2975, 0.0131
GRIDS = {
    "weight-decay": (1e-4, 1e-3, 1e-2),
    "functional-norm": (1e-3, 1e-2, 1e-1),
    "orthogonality": (1e-3, 1e-2, 1e-1),
    "sam": (0.02, 0.05, 0.1, 0.2),
    "sam-all": (0.02, 0.05, 0.1, 0.2),
    "asam": (0.2, 0.5, 1.0, 2.0),
}
START = 6.0  # the response to each colour before training: a sensor that sees no colours
ABOUT = """\
Real measurements: 11,000 rows of the causal chambers' light tunnel (Gamella et al., 2025), the reference file and
the one in which polariser 1 moves widely. A light of brightness (R, G, B) shines through two polarisers at angles
θ1, θ2 on the far infrared sensor. Science: Malus's law I0 [(Tp - Tc) cos²(θ1 - θ2) + Tc], I0 the product of (R, G,
B) and a colour response vector, which is unknown and starts equal for all colours; Tp and Tc as published with the
chambers. A network 5-64-64-1 (tanh) of brightness and angles is added to the intensity (background light, the LEDs'
nonlinear brightness). The reference for the response vector is that of the near sensor, in front of the polarisers,
by least squares on all rows: same make of sensor, so the same direction. Assumed: 400 training, 1,000 validation
and 3,000 test rows at random, others each seed; the misfit in units of the training readings' standard deviation;
Adam on all training rows at once. The penalties act on the network's output and on its mean product with the
science. θ error is 1 - cosine similarity to the reference; prediction error 1 - R² on test rows, beside which
results.json has that of least squares with Malus's law and leakage (ls_prediction_error), fitted to the training
rows. Of the values of ρ tried, the larger bring θ closer but predict worse, so that validation does not choose
them."""


@dataclass
class Rows:
    """Measurements: brightness (n, 3) in steps, angles (n, 2) in radians, readings (n,) of both infrared sensors."""

    brightness: torch.Tensor
    angles: torch.Tensor
    near: torch.Tensor
    far: torch.Tensor

    def batch(self, index: torch.Tensor) -> Batch:
        """Inputs and far readings of some rows."""
        return {"brightness": self.brightness[index], "angles": self.angles[index], "y": self.far[index]}


def load() -> Rows:
    """All rows of both files. Raises ``InvalidInput``, saying what to get, where one is missing."""
    values = torch.from_numpy(np.concatenate([_columns(data_file(name, ORIGIN)) for name in FILES]))
    return Rows(values[:, :3], torch.deg2rad(values[:, 3:5]), values[:, 5], values[:, 6])


def _columns(path: object) -> np.ndarray:
    with open(str(path), newline="", encoding="utf-8") as file:
        header = next(csv.reader(file))
        return np.loadtxt(file, delimiter=",", usecols=[header.index(name) for name in COLUMNS])


def least_squares(features: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Coefficients (k + 1,) of features (n, k) and of a constant."""
    return torch.linalg.lstsq(_with_constant(features), y[:, None]).solution[:, 0]


def r_squared(predicted: torch.Tensor, y: torch.Tensor) -> float:
    """1 - residual over total sum of squares."""
    return float(1 - (predicted - y).square().sum() / (y - y.mean()).square().sum())


def _with_constant(features: torch.Tensor) -> torch.Tensor:
    return torch.cat([features, torch.ones_like(features[:, :1])], 1)


def leakage_features(brightness: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """(n, 6): brightness behind ideal polarisers, and brightness that leaks through."""
    return torch.cat([brightness * ideal(angles)[:, None], brightness], 1)


def near_response(rows: Rows) -> torch.Tensor:
    """The near sensor's response (3,) to red, green and blue, readings per brightness step."""
    return least_squares(rows.brightness, rows.near)[:3]


def ideal(angles: torch.Tensor) -> torch.Tensor:
    """Malus's law for ideal polarisers: cos² of the angle between them."""
    return torch.cos(angles[:, 0] - angles[:, 1]).square()


class Malus(nn.Module):
    """Brightness (n, 3) and angles (n, 2) -> intensity at the far sensor (n,), with both inputs for the next stage."""

    def __init__(self) -> None:
        super().__init__()
        self.p = ParameterSet(response=Param([START] * 3, scale=10.0, unit="readings per brightness step"))

    def intensity(self, brightness: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        passed = (ALIGNED - CROSSED) * ideal(angles) + CROSSED
        return brightness @ self.p.response * passed

    def forward(
        self, brightness: torch.Tensor, angles: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.intensity(brightness, angles), brightness, angles


class Sensor(nn.Module):
    """Intensity -> reading: a network of brightness and angles is added, in units of ``scale`` readings."""

    def __init__(self, width: int, scale: float):
        super().__init__()
        self.layers = mlp(5, width, width, 1)
        self.scale = scale

    def added(self, brightness: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        return self.scale * self.layers(torch.cat([2 * brightness / BRIGHTEST - 1, angles], 1))[:, 0]

    def forward(self, intensity: torch.Tensor, brightness: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        return intensity + self.added(brightness, angles)


class NetworkSquare(Penalty):
    """weight * mean square of what the network adds, in units of its scale: the functional norm."""

    def value(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        sensor: Sensor = model.stages[1]  # type: ignore[index, assignment]
        return (sensor.added(batch["brightness"], batch["angles"]) / sensor.scale).square().mean()


class MeanProduct(Penalty):
    """weight * |mean of science times network|, in units of the network's scale squared."""

    def value(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        malus, sensor = model.stages  # type: ignore[misc]
        inputs = batch["brightness"], batch["angles"]
        return (malus.intensity(*inputs) * sensor.added(*inputs)).mean().abs() / sensor.scale**2


def study(quick: bool) -> Study:
    """The study; the quick one has a smaller network, fewer rows and steps."""
    sizes, width = ([200, 500, 1000], 16) if quick else ([400, 1000, 3000], 64)

    def build(seed: int) -> Problem:
        rows = load()
        order = torch.randperm(len(rows.far), generator=torch.Generator().manual_seed(seed))
        train, validation, test = (rows.batch(part) for part in order[: sum(sizes)].split(sizes))
        scale = float(train["y"].std())
        model = Composed(Malus(), Sensor(width, scale), roles=[SCIENCE, NEURAL])

        def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
            return ((predict(model, batch) - batch["y"]) / scale).square().mean()

        def score(model: nn.Module) -> dict[str, float]:
            response = model.stages[0].p.response  # type: ignore[index, union-attr]
            cosine = float(torch.cosine_similarity(response, near_response(rows), 0))
            plain = least_squares(leakage_features(train["brightness"], train["angles"]), train["y"])
            by_plain = _with_constant(leakage_features(test["brightness"], test["angles"])) @ plain
            return {
                "theta_error": 1 - cosine,
                "prediction_error": 1 - r_squared(predict(model, test), test["y"]),
                "cosine_similarity": cosine,
                "ls_prediction_error": 1 - r_squared(by_plain, test["y"]),
            }

        return Problem(model, train, validation, loss, score)

    return Study(
        "light-tunnel",
        ABOUT,
        build,
        train={"steps": 150 if quick else 1500, "validate_every": 25},
        optimizer={"lr": 1e-2 if quick else 1e-3, "science_lr": 1e-2},
        quick=quick,
        seeds=2 if quick else 5,
        methods=("erm", "weight-decay", "sam") if quick else None,
        grids={"sam": (0.1,), "weight-decay": (1e-3,)} if quick else GRIDS,
        files=dict.fromkeys(FILES, ORIGIN),
        penalties={"functional-norm": NetworkSquare, "orthogonality": MeanProduct},
        theta_label="1 - cosine similarity",
        prediction_label="1 - R² on test rows",
        figure=figure,
    )


def predict(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Readings (n,) of the far sensor."""
    return model(batch["brightness"], batch["angles"])


def figure(models: Mapping[str, nn.Module], problem: Problem) -> Figure:
    """The response of each method as shares of red, green and blue, beside the near sensor's."""
    from hybridsam_bridge.reproduce.figures import axes_grid

    responses = {"near sensor": near_response(load())}
    responses.update({name: model.stages[0].p.response.detach() for name, model in models.items()})  # type: ignore
    drawing, ((axis,),) = axes_grid(1, 1, width=8.0)
    for k, colour in enumerate(("red", "green", "blue")):
        heights = [float(r[k] / r.norm()) for r in responses.values()]
        axis.bar([i + 0.25 * (k - 1) for i in range(len(responses))], heights, 0.25, color=f"tab:{colour}")
        axis.axhline(heights[0], color=f"tab:{colour}", linewidth=0.8, linestyle="--")
    axis.set_xticks(range(len(responses)), list(responses), rotation=20)
    axis.set_ylabel("response, as a unit vector")
    return drawing
