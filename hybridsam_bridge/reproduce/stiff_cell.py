"""A lithium-ion cell whose diffusivity depends on concentration, which its equations do not know."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hybridsam_bridge.fields.hybrid import Additive
from hybridsam_bridge.fields.parameters import physical_values
from hybridsam_bridge.models.initial_value import InitialValueModel
from hybridsam_bridge.objectives.data import DataLoss, Trajectories
from hybridsam_bridge.objectives.noise import Gaussian
from hybridsam_bridge.objectives.penalties import FunctionalNorm, Orthogonality
from hybridsam_bridge.reproduce.cell import POSITIVE, Cell, Shells
from hybridsam_bridge.reproduce.study import FULL_BACKEND, QUICK_BACKEND, Problem, Study
from hybridsam_bridge.reproduce.windows import mlp

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SLOPE = -0.8  # of the true diffusivity over stoichiometry, relative to that at 0.6
# Of the network's part of the diffusivity, as a share of the published one. With a bound on it (through tanh) SAM made
# no difference on one seed; perhaps the network then sat on the bound, where all is flat.
GAIN = 0.4
NOISE = 1e-3  # V
KNOTS = torch.arange(0.0, 1201.0, 60.0, dtype=torch.float64)  # s, of the current profiles
RATE = 1e-5  # 1/s, size of the stoichiometries' rate of change; penalties are in its units
ABOUT = """\
A single-particle model of an LG M50 cell: diffusion in one sphere an electrode ({shells} shells), Butler-Volmer
kinetics and one temperature, heated by the overpotentials; parameters of Chen et al. (J. Electrochem. Soc. 167, 080534,
2020) as in PyBaMM's set. Made up here: the positive electrode's diffusivity falls with stoichiometry, D (1 - 0.8 (x -
0.6)) with the published D = 4e-15 m²/s. The equations have a constant D, unknown, trained as its logarithm from half
its value; a network 1-{width}-{width}-1 (tanh) of x adds to it, in units of 0.4 D. Only the voltage is measured,
every {interval:.0f} s for {minutes:.0f} min with 1 mV of noise, under two current profiles (1 C with pauses; pulses of
1.5 C), each from known states of charge at rest. Validation is on other states of charge; the test is another profile,
random levels between charging at C/2 and discharging at 1.5 C, without noise. This is the one stiff task of moderate
stiffness, about 300 between the fastest and the slowest mode. Adam with 3e-3 for the network and 2e-2 for ln D, as for
the pendulum; at 1e-2 for both D hardly left its start before the network had taken its place. Penalties take the
network's part of dx/dt in units of 1e-5/s. θ error is |ln(D / published)|; prediction error the root mean square in
V."""


class MoreDiffusion(nn.Module):
    """What a diffusivity that depends on stoichiometry adds to the positive particle's diffusion."""

    def __init__(self, width: int, shells: int):
        super().__init__()
        self.net = mlp(1, width, width, 1)
        self.shells = Shells(shells)

    def diffusivity(self, x: torch.Tensor) -> torch.Tensor:
        """(k,) in m²/s at stoichiometries (k,)."""
        return POSITIVE.diffusivity * GAIN * self.net((x[:, None] - 0.6) / 0.3)[:, 0]

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        n = len(self.shells.volumes)
        positive = y[n : 2 * n]
        more = self.diffusivity(0.5 * (positive[1:] + positive[:-1]))
        rate = self.shells.inner(positive, more, POSITIVE.radius)
        return torch.cat([torch.zeros_like(rate), rate, torch.zeros_like(rate[:1])])


class CellModel(InitialValueModel):
    """Predicts the voltage (B, T), which depends on the states and on the current itself."""

    def forward(
        self, ts: torch.Tensor, y0: torch.Tensor | None = None, context: torch.Tensor | None = None
    ) -> torch.Tensor:
        assert context is not None, "the data bring the current"
        states = self.solve(ts, y0, context).ys
        field: Any = self.field
        cell = getattr(field, "science", field)
        current = torch.vmap(lambda t: cell.current(t, context.T))(ts).T
        voltage: torch.Tensor = cell.voltage(states, current)
        return voltage


def profiles() -> dict[str, torch.Tensor]:
    """Currents in A at the knots (K,)."""
    k = torch.arange(len(KNOTS))
    generator = torch.Generator().manual_seed(20)
    level = -2.5 + 10.0 * torch.rand(len(k) // 2 + 1, dtype=torch.float64, generator=generator)
    return {
        "pauses": 5.0 * ((k % 10) < 7).double(),
        "pulses": 7.5 * ((k % 6) < 3).double(),
        "random": level.repeat_interleave(2)[: len(k)],
    }


def measurements(
    names: list[str], taken: list[float], ts: torch.Tensor, truth: Cell, backend: str, seed: int | None = None
) -> Trajectories:
    """The true cell's voltage (B, T) under each profile from each charge taken before (A h); with a seed, noise."""
    currents = torch.stack([profiles()[name] for name in names for _ in taken])
    y0 = truth.rest(torch.tensor(taken * len(names), dtype=torch.float64))
    with torch.no_grad():
        voltage = CellModel(truth, rtol=1e-6, atol=1e-8, backend=backend)(ts, y0, currents)
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        voltage = voltage + NOISE * torch.randn(voltage.shape, dtype=voltage.dtype, generator=generator)
    return Trajectories(ts, voltage, y0=y0, context=currents)


def study(quick: bool) -> Study:
    """The study; the quick one has fewer shells, a smaller network, fewer states of charge, five minutes and few
    steps."""
    charges = [1.0] if quick else [0.3, 1.3, 2.3]
    width, shells = (8, 4) if quick else (16, 10)
    ts = torch.arange(0.0, 301.0 if quick else 1201.0, 60.0 if quick else 30.0, dtype=torch.float64)
    truth = Cell(POSITIVE.diffusivity, KNOTS, SLOPE, shells)
    backend = QUICK_BACKEND if quick else FULL_BACKEND

    def build(seed: int) -> Problem:
        trained = ["pauses", "pulses"]
        train = measurements(trained, charges, ts, truth, backend, 3 * seed)
        validation = measurements(trained, [c + 0.5 for c in charges], ts, truth, backend, 3 * seed + 1)
        test = measurements(["random"], charges, ts, truth, backend)
        science = Cell(0.5 * POSITIVE.diffusivity, KNOTS, shells=shells)
        field = Additive(science, MoreDiffusion(width, shells))
        model = CellModel(field, rtol=1e-4, atol=1e-6, backend=backend)

        def score(model: nn.Module) -> dict[str, float]:
            predicted = model(test.ts, y0=test.given["y0"], context=test.given["context"])
            found = physical_values(model)["diffusivity"][0]
            return {
                "theta_error": abs(math.log(found / POSITIVE.diffusivity)),
                "prediction_error": float((predicted - test.y).square().mean().sqrt()),
                "diffusivity": found,
            }

        return Problem(model, train, validation, DataLoss(Gaussian(0.01)), score)

    return Study(
        "stiff-cell",
        ABOUT.format(shells=shells, width=width, interval=float(ts[1]), minutes=float(ts[-1]) / 60),
        build,
        train={"steps": 6 if quick else 400, "batch_size": 6, "validate_every": 3 if quick else 10},
        optimizer={"lr": 3e-3, "science_lr": 2e-2},
        quick=quick,
        seeds=2 if quick else 5,
        methods=("erm", "weight-decay", "sam") if quick else None,
        grids={"sam": (0.1,), "weight-decay": (1e-4,)} if quick else {"weight-decay": (1e-5, 1e-4, 1e-3)},
        penalties={
            "functional-norm": lambda weight: FunctionalNorm(weight / RATE**2),
            "orthogonality": lambda weight: Orthogonality(weight / RATE**2),
        },
        theta_label="|ln(D / published)|",
        prediction_label="test voltage error (V)",
        figure=figure,
    )


def figure(models: Mapping[str, nn.Module], problem: Problem) -> Figure:
    """The positive electrode's diffusivity, science and network together, beside the true one."""
    from hybridsam_bridge.reproduce.figures import axes_grid

    drawing, ((axis,),) = axes_grid(1, 1)
    x = torch.linspace(0.3, 0.85, 56, dtype=torch.float64)
    axis.plot(x, POSITIVE.diffusivity * (1 + SLOPE * (x - 0.6)), color="black", linewidth=2, label="truth")
    for name, model in models.items():
        whole: Any = model.field
        found = whole.science.p.diffusivity + whole.neural.diffusivity(x)
        (line,) = axis.plot(x, found.detach(), label=name)
        axis.axhline(float(whole.science.p.diffusivity.detach()), color=line.get_color(), linestyle=":", linewidth=1)
    axis.set_xlabel("stoichiometry of the positive electrode")
    axis.set_ylabel("diffusivity (m²/s); dotted: the equations' part")
    axis.legend(frameon=False, fontsize=8)
    return drawing
