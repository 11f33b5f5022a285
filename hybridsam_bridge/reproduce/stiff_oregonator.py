"""The Oregonator, whose flow reactor is missing from the equations."""

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

S, Q, W = 77.27, 8.375e-6, 0.161
RADII = (0.05, 0.1, 0.2)
FLOW, FEED = 0.003, 3000.0  # refreshed volume a unit of time, Y in what flows in
SIZE = (1.0, 1e3, 1e4)
GAIN = 0.05  # in sizes of Y a unit of time
ABOUT = """\
The Oregonator of the Belousov-Zhabotinsky reaction, scaled as in the test set for initial value problems (Mazzia and
Magherini): X' = s (Y + X (1 - q X - Y)), Y' = (Z - (1 + X) Y) / s, Z' = w (X - Z), s = 77.27, q = 8.375e-6, w = 0.161.
The truth is fed: inhibitor Y flows in, Y' has 0.003 (3000 - Y) more, which the equations lack; s is unknown and starts
at twice its value, q and w are known. A network of (Y, Z) gives a source of Y. Measured are Y and Z, over the recovery
between two pulses, t in [0, 20]; the autocatalyst X is not. X relaxes at the rate s Y, about 1e5, while Y and Z change
at 0.03 to 0.2: a stiffness ratio of 1e6. In trials on one seed ASAM and the orthogonality penalty (λ = 1) came as close
to s as SAM or closer, the penalty with a larger prediction error; weight decay and the functional norm did not."""


class Oregonator(VectorField):
    """X (autocatalyst), Y (inhibitor), Z (catalyst); ``flow`` is the feed's rate, which the science lacks."""

    state_shape = (3,)

    def __init__(self, s: float, flow: float = 0.0):
        super().__init__()
        self.p = ParameterSet(s=Param(s, transform="log", scale=S))
        self.flow = flow

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        a, b, c = y[0], y[1], y[2]
        s = self.p.s
        feed = self.flow * (FEED - b)
        return torch.stack([s * (b + a * (1 - Q * a - b)), (c - (1 + a) * b) / s + feed, W * (a - c)])


class Source(nn.Module):
    """A source of Y from a network of (Y, Z)."""

    def __init__(self, width: int):
        super().__init__()
        self.net = mlp(2, width, width, 1)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        rate = GAIN * SIZE[1] * self.net(torch.stack([y[1] / SIZE[1], y[2] / SIZE[2]]))[0]
        return torch.stack([torch.zeros_like(rate), rate, torch.zeros_like(rate)])


def study(quick: bool) -> Study:
    """The study; the quick one has a smaller network, fewer trajectories and steps."""
    reaction = Kinetics(
        name="stiff-oregonator",
        about=ABOUT,
        truth=Oregonator(S, FLOW),
        science=lambda: Oregonator(2 * S),
        network=Source,
        theta="s",
        theta_label="|ln(s / true)|",
        low=(1.0, 300.0, 1e3),
        high=(10.0, 2e3, 2e4),
        ts=torch.linspace(0, 20, 11, dtype=torch.float64),
        size=SIZE,
        measured=(1, 2),
        gain=GAIN * SIZE[1],
        steps=400,
        grids={"sam": RADII, "sam-all": RADII},
        figure=figure,
    )
    return kinetic_study(reaction, quick)


def figure(models: Mapping[str, nn.Module], problem: Problem) -> Figure:
    """The source of Y that each network gives, over Z at Y = 1000, beside the missing feed."""
    from hybridsam_bridge.reproduce.figures import axes_grid

    drawing, ((axis,),) = axes_grid(1, 1)
    z = torch.linspace(1e3, 2e4, 41, dtype=torch.float64)
    y = torch.full_like(z, 1e3)
    axis.plot(z, FLOW * (FEED - y), color="black", linewidth=2, label="missing feed")
    for name, model in models.items():
        network = find_additive(model).neural
        rates = torch.stack([network(state) for state in torch.stack([torch.ones_like(z), y, z], 1)])
        axis.plot(z, rates[:, 1].detach(), label=name)
    axis.set_xlabel("Z at Y = 1000")
    axis.set_ylabel("source of Y")
    axis.legend(frameon=False, fontsize=8)
    return drawing
