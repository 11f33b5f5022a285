"""A single-particle model of a lithium-ion cell with one temperature.

Parameters: C.-H. Chen et al., "Development of experimental techniques for parameterization of multi-scale lithium-ion
battery models", J. Electrochem. Soc. 167 (2020) 080534, as in PyBaMM's set "Chen2020" (LG M50, 5 A h): NMC 811 against
graphite-silicon. The model is the textbook one: diffusion of lithium in one representative sphere an electrode, uniform
reaction, Butler-Volmer kinetics with transfer coefficient 1/2, electrolyte at rest; heat from the overpotentials.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from hybridsam_bridge.fields.base import VectorField
from hybridsam_bridge.fields.parameters import Param, ParameterSet
from hybridsam_bridge.fields.signals import SampledSignal

FARADAY, GAS = 96485.33212, 8.314462618  # C/mol, J/(mol K)
AREA = 0.065 * 1.58  # m², of the electrodes
AMBIENT = 298.15  # K
ELECTROLYTE = 1000.0  # mol/m³
# Thickness (m), density (kg/m³) and specific heat (J/(kg K)) of collectors, electrodes and separator.
LAYERS = (
    (1.2e-5, 8960.0, 385.0),
    (8.52e-5, 1657.0, 700.0),
    (1.2e-5, 397.0, 700.0),
    (7.56e-5, 3262.0, 700.0),
    (1.6e-5, 2700.0, 897.0),
)
HEAT_CAPACITY = 2.42e-5 * sum(d * rho * c for d, rho, c in LAYERS) / sum(d for d, _, _ in LAYERS)  # J/K
COOLING = 10.0 * 0.00531  # W/K: heat transfer coefficient times cooling surface


@dataclass(frozen=True)
class Electrode:
    """Thickness and particle radius (m), active fraction, greatest concentration (mol/m³), diffusivity (m²/s), rate of
    the reaction at 298.15 K (A/m² (m³/mol)^1.5) and its activation energy (J/mol), and the charged cell's
    stoichiometry."""

    thickness: float
    radius: float
    active: float
    c_max: float
    diffusivity: float
    rate: float
    activation: float
    charged: float

    @property
    def surface(self) -> float:
        """Particle surface in the electrode, m²."""
        return AREA * self.thickness * 3 * self.active / self.radius

    @property
    def capacity(self) -> float:
        """Charge in A h that changes the stoichiometry by one."""
        return FARADAY * AREA * self.thickness * self.active * self.c_max / 3600


NEGATIVE = Electrode(8.52e-5, 5.86e-6, 0.75, 33133.0, 3.3e-14, 6.48e-7, 35000.0, 29866.0 / 33133.0)
POSITIVE = Electrode(7.56e-5, 5.22e-6, 0.665, 63104.0, 4e-15, 3.42e-6, 17800.0, 17038.0 / 63104.0)


def graphite(x: torch.Tensor) -> torch.Tensor:
    """Open-circuit potential of the negative electrode in V over its stoichiometry; the paper's fit."""
    return (
        1.9793 * torch.exp(-39.3631 * x)
        + 0.2482
        - 0.0909 * torch.tanh(29.8538 * (x - 0.1234))
        - 0.04478 * torch.tanh(14.9159 * (x - 0.2769))
        - 0.0205 * torch.tanh(30.4444 * (x - 0.6103))
    )


def nmc(x: torch.Tensor) -> torch.Tensor:
    """Open-circuit potential of the positive electrode in V over its stoichiometry; the paper's fit."""
    return (
        -0.8090 * x
        + 4.4875
        - 0.0428 * torch.tanh(18.5138 * (x - 0.5542))
        - 17.7326 * torch.tanh(15.7890 * (x - 0.3117))
        + 17.5842 * torch.tanh(15.9308 * (x - 0.3120))
    )


class Shells(nn.Module):
    """Finite volumes of a sphere: ``count`` shells of equal thickness; lengths in radii.

    Attributes: faces (count - 1,) between shells, volumes (count,) over 4 pi, thickness.
    """

    faces: torch.Tensor
    volumes: torch.Tensor

    def __init__(self, count: int):
        super().__init__()
        edges = torch.linspace(0, 1, count + 1, dtype=torch.float64)
        self.thickness = 1.0 / count
        self.register_buffer("faces", edges[1:-1].clone())
        self.register_buffer("volumes", (edges[1:] ** 3 - edges[:-1] ** 3) / 3)

    def inner(self, x: torch.Tensor, diffusivity: float | torch.Tensor, radius: float) -> torch.Tensor:
        """dx/dt (count,) in 1/s by diffusion between shells; ``diffusivity`` a number or one a face, in m²/s."""
        flow = diffusivity / radius**2 * self.faces**2 * x.diff() / self.thickness
        none = torch.zeros_like(flow[:1])
        return (torch.cat([flow, none]) - torch.cat([none, flow])) / self.volumes

    def outer(self, rate: torch.Tensor) -> torch.Tensor:
        """dx/dt (count,) for stoichiometry that leaves through the surface at ``rate``, in radii/s."""
        none = torch.zeros_like(self.volumes[:-1])
        return torch.cat([none, -rate.reshape(1) / self.volumes[-1]])

    def surface(self, x: torch.Tensor) -> torch.Tensor:
        """The value at the surface (*batch,) of x (*batch, count): the parabola through the last three shells."""
        return (15 * x[..., -1] - 10 * x[..., -2] + 3 * x[..., -3]) / 8


def leaving(electrode: Electrode, current: torch.Tensor) -> torch.Tensor:
    """Stoichiometry that leaves an electrode's particles through their surface, in radii/s, at a current in A."""
    return current / (FARADAY * electrode.surface * electrode.c_max * electrode.radius)


def overpotential(electrode: Electrode, x: torch.Tensor, current: torch.Tensor, warm: torch.Tensor) -> torch.Tensor:
    """Of the reaction, in V, at surface stoichiometry x and ``warm`` K above ambient; the current's sign."""
    kelvin = AMBIENT + warm
    arrhenius = torch.exp(electrode.activation / GAS * (1 / AMBIENT - 1 / kelvin))
    # Outside (0, 1) there is no such state; the floor keeps a trial step of the solver from NaN.
    room = (x * (1 - x)).clamp(min=1e-6)
    exchange = electrode.rate * arrhenius * ELECTROLYTE**0.5 * electrode.c_max * room.sqrt()
    return 2 * GAS * kelvin / FARADAY * torch.asinh(current / (2 * electrode.surface * exchange))


class Cell(VectorField):
    """Stoichiometries of ``shells`` shells of the negative and of the positive particle (each from the centre out),
    then the temperature above ambient in K. Time in s.

    ``context`` (K,) holds the current in A at ``knots``, positive in discharge, linear between. ``slope`` makes the
    positive electrode's diffusivity depend on stoichiometry, D (1 + slope (x - 0.6)).
    """

    def __init__(self, diffusivity: float, knots: torch.Tensor, slope: float = 0.0, shells: int = 10):
        super().__init__()
        self.state_shape = (2 * shells + 1,)
        self.p = ParameterSet(
            diffusivity=Param(diffusivity, transform="log", scale=POSITIVE.diffusivity, unit="m²/s"),
        )
        self.current = SampledSignal(knots)
        self.slope = slope
        self.shells = Shells(shells)

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        assert context is not None, "the data bring the current"
        n = len(self.shells.volumes)
        current, negative, positive = self.current(t, context), y[:n], y[n : 2 * n]
        between = 0.5 * (positive[1:] + positive[:-1])
        diffusivity = self.p.diffusivity * (1 + self.slope * (between - 0.6))
        minus = self.shells.inner(negative, NEGATIVE.diffusivity, NEGATIVE.radius)
        plus = self.shells.inner(positive, diffusivity, POSITIVE.radius)
        minus = minus + self.shells.outer(leaving(NEGATIVE, current))
        plus = plus - self.shells.outer(leaving(POSITIVE, current))
        heat = current * self.losses(y, current) - COOLING * y[-1]
        return torch.cat([minus, plus, (heat / HEAT_CAPACITY).reshape(1)])

    def surfaces(self, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Stoichiometries (*batch,) at the surface of the negative and of the positive particle."""
        n = len(self.shells.volumes)
        return self.shells.surface(y[..., :n]), self.shells.surface(y[..., n : 2 * n])

    def losses(self, y: torch.Tensor, current: torch.Tensor) -> torch.Tensor:
        """Sum of the overpotentials (*batch,) in V."""
        minus, plus = self.surfaces(y)
        return overpotential(NEGATIVE, minus, current, y[..., -1]) + overpotential(POSITIVE, plus, current, y[..., -1])

    def voltage(self, y: torch.Tensor, current: torch.Tensor) -> torch.Tensor:
        """Of the cell, (*batch,) in V, for states (*batch, n) and currents (*batch,)."""
        minus, plus = self.surfaces(y)
        return nmc(plus) - graphite(minus) - self.losses(y, current)

    def rest(self, taken: torch.Tensor) -> torch.Tensor:
        """States (B, n) at rest at ambient temperature, with ``taken`` (B,) A h taken from the charged cell."""
        n = len(self.shells.volumes)
        minus = NEGATIVE.charged - taken / NEGATIVE.capacity
        plus = POSITIVE.charged + taken / POSITIVE.capacity
        return torch.cat([minus[:, None].expand(-1, n), plus[:, None].expand(-1, n), 0 * taken[:, None]], 1)
