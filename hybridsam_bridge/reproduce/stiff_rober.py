"""Robertson's autocatalysis with a slow reaction missing."""

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

K1, K2, K3 = 0.04, 3e7, 1e4  # 1/s, for concentrations without a unit
BACK = 0.003  # 1/s, of C -> A
GAIN = 0.01  # 1/s
RADII = (0.05, 0.1, 0.2)
ABOUT = """\
Robertson's reaction: A -> B at k1 = 0.04, 2 B -> B + C at 3e7, B + C -> A + C at 1e4 (the test set for initial value
problems of Mazzia and Magherini). The truth has a slow C -> A at 0.003, which the equations lack; k1 is unknown and
starts at half its value, the other two rates are known. A network of (A, C) gives the rate of an exchange between A and
C. The intermediate B, about 1e-5, is not measured: with it k1 would be seen directly. Rates differ by up to
1e6, so that explicit solvers are bound by stability to steps of about 1e-3 s over 40 s."""


class Robertson(VectorField):
    """Concentrations of A, B and C; ``back`` is the rate of C -> A, which the science lacks."""

    state_shape = (3,)

    def __init__(self, k1: float, back: float = 0.0):
        super().__init__()
        self.p = ParameterSet(k1=Param(k1, transform="log", scale=K1, unit="1/s"))
        self.back = back

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        a, b, c = y[0], y[1], y[2]
        first, second, third = self.p.k1 * a, K2 * b * b, K3 * b * c
        slow = self.back * c
        return torch.stack([third - first + slow, first - second - third, second - slow])


class Exchange(nn.Module):
    """A rate C -> A from a network of (A, C): what one gains the other loses."""

    def __init__(self, width: int):
        super().__init__()
        self.net = mlp(2, width, width, 1)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        rate = GAIN * self.net(torch.stack([y[0], y[2]]))[0]
        return torch.stack([rate, torch.zeros_like(rate), -rate])


def study(quick: bool) -> Study:
    """The study; the quick one has a smaller network, fewer trajectories and steps."""
    reaction = Kinetics(
        name="stiff-rober",
        about=ABOUT,
        truth=Robertson(K1, BACK),
        science=lambda: Robertson(0.5 * K1),
        network=Exchange,
        theta="k1",
        theta_label="|ln(k1 / true)|",
        low=(0.5, 0.0, 0.1),
        high=(1.0, 0.0, 0.5),
        ts=torch.cat([torch.zeros(1), torch.logspace(-1, 1.6, 12)]).double(),
        size=(1.0, 1e-4, 1.0),
        measured=(0, 2),
        gain=GAIN,
        steps=600,
        grids={"sam": RADII, "sam-all": RADII},
        figure=figure,
    )
    return kinetic_study(reaction, quick)


def figure(models: Mapping[str, nn.Module], problem: Problem) -> Figure:
    """The rate that each network adds to A, over C at A = 1 - C, beside the missing reaction's."""
    from hybridsam_bridge.reproduce.figures import axes_grid

    drawing, ((axis,),) = axes_grid(1, 1)
    c = torch.linspace(0.1, 0.5, 41, dtype=torch.float64)
    axis.plot(c, BACK * c, color="black", linewidth=2, label="missing reaction")
    for name, model in models.items():
        network = find_additive(model).neural
        rates = torch.stack([network(torch.stack([1 - x, torch.zeros_like(x), x])) for x in c])
        axis.plot(c, rates[:, 0].detach(), label=name)
    axis.set_xlabel("C at A = 1 - C")
    axis.set_ylabel("rate of C -> A (1/s)")
    axis.legend(frameon=False, fontsize=8)
    return drawing
