"""HIRES, the response of plants to light, with one of its pathways missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from hybridsam_bridge.fields.base import VectorField
from hybridsam_bridge.fields.evaluate import find_additive
from hybridsam_bridge.fields.parameters import Param, ParameterSet
from hybridsam_bridge.reproduce.kinetics import Kinetics, kinetic_study
from hybridsam_bridge.reproduce.study import Problem, Study
from hybridsam_bridge.reproduce.windows import mlp

if TYPE_CHECKING:
    from matplotlib.figure import Figure

K4, BACK = 0.69, 0.035
SIZE = (1.0, 0.1, 0.02, 0.4, 0.2, 0.6, 0.006, 0.006)
GAIN = 0.02
RADII = (0.1, 0.2, 0.4)
ABOUT = """\
HIRES: phytochrome, eight species, rates as in the test set for initial value problems (Mazzia and Magherini), with 0.43
for k2. The pathway from the fifth species back to the third, 0.035 y5, is missing from the equations; the rate k4 =
0.69 of the fourth's conversion to the sixth is unknown and starts at half its value, all others are known. A network of
y3 to y6 gives the rates of both conversions, 4 to 6 and 5 to 3. The first six species are measured from 0.2 to 100; y7
and y8, the ligand bound and free, are not. The ligand binds at 280 (y6 + y8), up to about 200, while the total of all
others falls at less than 1e-2: explicit solvers take two hundred times the steps of implicit ones."""


class Hires(VectorField):
    """The eight species; ``back`` is the rate of the pathway 5 -> 3, which the science lacks."""

    state_shape = (8,)

    def __init__(self, k4: float, back: float = 0.0):
        super().__init__()
        self.p = ParameterSet(k4=Param(k4, transform="log", scale=K4))
        self.back = back

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        y1, y2, y3, y4, y5, y6, y7, y8 = (y[i] for i in range(8))
        k4 = self.p.k4
        bound = 280.0 * y6 * y8 - 1.81 * y7
        back = self.back * y5
        return torch.stack(
            [
                -1.71 * y1 + 0.43 * y2 + 8.32 * y3 + 0.0007,
                1.71 * y1 - 8.75 * y2,
                -10.03 * y3 + 0.43 * y4 + back,
                8.32 * y2 + 1.71 * y3 - (0.43 + k4) * y4,
                -1.71 * y5 + 0.43 * y6 + 0.43 * y7 - back,
                -280.0 * y6 * y8 + k4 * y4 + 1.71 * y5 - 0.43 * y6 + 0.69 * y7,
                bound,
                -bound,
            ]
        )


class Conversions(nn.Module):
    """Rates 4 -> 6 and 5 -> 3 from a network of y3 to y6: what one gains the other loses."""

    size: torch.Tensor

    def __init__(self, width: int):
        super().__init__()
        self.net = mlp(4, width, width, 2)
        self.register_buffer("size", torch.tensor(SIZE[2:6], dtype=torch.float64))

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        rates = GAIN * self.net(y[2:6] / self.size)
        onward, back = rates[0], rates[1]
        none = torch.zeros_like(onward)
        return torch.stack([none, none, back, -onward, -back, onward, none, none])


def study(quick: bool) -> Study:
    """The study; the quick one has a smaller network, fewer trajectories and steps."""
    reaction = Kinetics(
        name="stiff-hires",
        about=ABOUT,
        truth=Hires(K4, BACK),
        science=lambda: Hires(0.5 * K4),
        network=Conversions,
        theta="k4",
        theta_label="|ln(k4 / true)|",
        low=(0.2, 0.0, 0.0, 0.1, 0.05, 0.1, 0.002, 0.0037),
        high=(1.0, 0.1, 0.02, 0.5, 0.3, 0.5, 0.002, 0.0037),
        ts=torch.cat([torch.zeros(1), torch.logspace(-0.7, 2, 12)]).double(),
        size=SIZE,
        measured=range(6),
        gain=GAIN,
        steps=400,
        grids={"sam": RADII, "sam-all": RADII},
        figure=figure,
    )
    return kinetic_study(reaction, quick)


def figure(models: Mapping[str, nn.Module], problem: Problem) -> Figure:
    """The rate 5 -> 3 that each network gives, over y5 at typical other values, beside the missing pathway's."""
    from hybridsam_bridge.reproduce.figures import axes_grid

    drawing, ((axis,),) = axes_grid(1, 1)
    y5 = torch.linspace(0.05, 0.3, 41, dtype=torch.float64)
    states = (0.5 * torch.tensor(SIZE, dtype=torch.float64)).repeat(len(y5), 1)
    states[:, 4] = y5
    axis.plot(y5, BACK * y5, color="black", linewidth=2, label="missing pathway")
    for name, model in models.items():
        network = find_additive(model).neural
        axis.plot(y5, torch.stack([network(state) for state in states])[:, 2].detach(), label=name)
    axis.set_xlabel("y5, the others at half their size")
    axis.set_ylabel("rate of 5 -> 3")
    axis.legend(frameon=False, fontsize=8)
    return drawing
