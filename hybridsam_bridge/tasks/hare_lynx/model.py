"""Hares and lynxes of the Hudson Bay: Lotka-Volterra plus a network, fitted to 21 years of pelts.

The data are the numbers of pelts in thousands, 1900-1920 (Elton & Nicholson 1942, as tabled by Howard 2009).
"""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import nn

from hybridsam_bridge.fields.base import VectorField
from hybridsam_bridge.fields.parameters import Param, ParameterSet, physical_values
from hybridsam_bridge.objectives.data import Trajectories

DATA = Path(__file__).resolve().parents[2] / "data" / "hare_lynx.csv"
RATES = ("alpha", "beta", "gamma", "delta")
# Posterior means of B. Carpenter, "Predator-prey population dynamics: the Lotka-Volterra model in Stan" (2018).
PUBLISHED = {"alpha": 0.545, "beta": 0.028, "gamma": 0.80, "delta": 0.024}
SIGMA = 0.25  # of the log counts, from the same fit


class LotkaVolterra(VectorField):
    """d(hare) = hare (alpha - beta lynx), d(lynx) = lynx (delta hare - gamma); years and thousands of pelts."""

    state_shape = (2,)

    def __init__(self, alpha: float, beta: float, gamma: float, delta: float):
        super().__init__()
        self.rates = ParameterSet(
            alpha=Param(alpha, transform="log", unit="1/year"),
            beta=Param(beta, transform="log", unit="1/(year thousand)"),
            gamma=Param(gamma, transform="log", unit="1/year"),
            delta=Param(delta, transform="log", unit="1/(year thousand)"),
        )

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        hare, lynx = y[0], y[1]
        r = self.rates
        return torch.stack([hare * (r.alpha - r.beta * lynx), lynx * (r.delta * hare - r.gamma)])


class GrowthCorrection(nn.Module):
    """A correction of both growth rates that depends on both numbers: y * network(log(y / 30)).

    Multiplied by y it keeps the numbers positive. It starts at zero.
    """

    def __init__(self, width: int):
        super().__init__()
        last = nn.Linear(width, 2)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(nn.Linear(2, width), nn.Tanh(), last).double()

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return y * self.network(torch.log(y / 30.0))


def load() -> Trajectories:
    """The pelts as one trajectory of 21 years; time in years since 1900."""
    with open(DATA, newline="", encoding="utf-8") as file:
        rows = [(float(r["year"]), float(r["hare"]), float(r["lynx"])) for r in csv.DictReader(file)]
    table = torch.tensor(rows, dtype=torch.float64)
    return Trajectories(table[:, 0] - table[0, 0], table[None, :, 1:])


def rates_from_slopes(data: Trajectories) -> dict[str, float]:
    """A start for the rates: d log(hare)/dt = alpha - beta lynx is linear in them, as is the other equation.

    Slopes are central differences of the log counts; a negative coefficient is cut to a tenth of the usual size.
    """
    counts = data.y[0]
    log = counts.log()
    slope = (log[2:] - log[:-2]) / (data.ts[2:] - data.ts[:-2])[:, None]
    ones = torch.ones(len(slope), dtype=counts.dtype)
    hare = torch.linalg.lstsq(torch.stack([ones, -counts[1:-1, 1]], 1), slope[:, 0]).solution
    lynx = torch.linalg.lstsq(torch.stack([-ones, counts[1:-1, 0]], 1), slope[:, 1]).solution
    start = dict(zip(("alpha", "beta", "gamma", "delta"), [*hare.tolist(), *lynx.tolist()], strict=True))
    floor = {"alpha": 0.05, "beta": 0.003, "gamma": 0.05, "delta": 0.003}
    return {name: max(value, floor[name]) for name, value in start.items()}


def rates(model: nn.Module) -> dict[str, float]:
    """The four rates of a model in physical units."""
    values = physical_values(model)
    return {name: values[name][0] for name in RATES}
