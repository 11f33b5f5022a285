"""FitzHugh-Nagumo reaction and diffusion: diffusion known in form, the reaction left to a convolutional network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from hybridsam_bridge.fields.base import VectorField
from hybridsam_bridge.fields.hybrid import Additive
from hybridsam_bridge.fields.parameters import Param, ParameterSet, physical_values
from hybridsam_bridge.models.initial_value import InitialValueModel
from hybridsam_bridge.objectives.data import DataLoss, Trajectories
from hybridsam_bridge.pde.grid import Grid
from hybridsam_bridge.pde.operators import laplacian
from hybridsam_bridge.reproduce.study import FULL_BACKEND, QUICK_BACKEND, Problem, Study
from hybridsam_bridge.solve import solve

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Setting:
    """What differs between the predecessors: diffusion a of u and b of v (area per time), spacing and ends of the
    grid, the frames of a sequence (0.1 apart), and how the network pads. Then what is taken here for the time it takes:
    sequences for training, validation and test, methods, steps of training and sequences of each.
    """

    a: float
    b: float
    boundary: str
    spacing: float
    frames: int
    padding: Literal["replicate", "circular"]
    sizes: tuple[int, int, int]
    methods: tuple[str, ...]
    steps: int
    batch_size: int


DEEP_GREY_BOX = Setting(
    a=1.5e-3,
    b=5e-3,
    boundary="neumann",
    spacing=2 / 31,
    frames=16,
    padding="replicate",
    sizes=(400, 300, 300),
    methods=("erm", "weight-decay", "functional-norm", "sam", "asam"),
    steps=300,
    batch_size=8,
)
APHYNITY = Setting(
    a=1e-3,
    b=5e-3,
    boundary="periodic",
    spacing=2 / 32,
    frames=30,
    padding="circular",
    sizes=(700, 100, 200),
    methods=("erm", "weight-decay", "functional-norm", "sam", "asam"),
    steps=300,
    batch_size=8,
)
K, FRAME = 5e-3, 0.1
TRAINED = 7  # frames of a sequence that are trained on: later the field is smooth and says little on diffusion
START, LARGEST = 1.19e-3, 1e-2  # APHYNITY: 0.01 sigmoid(-2), and its bound

# Penalties sum over 2,048 components here, so that their weights are smaller; two values each, for the time it takes.
GRIDS = {
    "weight-decay": (1e-5, 1e-4),
    "functional-norm": (1e-6, 1e-5),
    "orthogonality": (1e-6, 1e-5),
    "sam": (0.01, 0.05),
    "sam-all": (0.01, 0.05),
    "asam": (0.1, 0.5),
}
MODEL = """\
u_t = a ∇²u + u - u³ - k - v, v_t = b ∇²v + u - v (FitzHugh-Nagumo) on 32 x 32 points. Science: both Laplacians,
with a and b unknown in (0, 0.01), starting at 1.19e-3 as in APHYNITY (Yin et al., arXiv:2010.04456). The reaction
is missing; a convolutional network 2-16-16-2 (3 x 3, ReLU, edges padded as the boundary) takes its place, without
the batch normalisation of the predecessors: a right-hand side here is a function of one sample. It can represent a
Laplacian too, so data alone do not tell a and b from it."""
ASSUMED = """\
θ error is the mean of |a/true - 1| and |b/true - 1|; prediction error the mean squared error of test sequences from
their initial states. Sequences are trained on up to t = 0.6 (theirs: whole sequences, 1,000 epochs and more), with
learning rates of 5e-3 for the network and 5e-2 for a and b (theirs: 1e-3 for all). For the time it takes there are
three seeds and two hyperparameters a method. Methods that are not in the table run with --methods."""
ABOUT = f"""\
{MODEL} This is the setting of Deep Grey-Box (Takeishi and Kalousis, AISTATS 2023; its public code): a, b, k =
1.5e-3, 5e-3, 5e-3, no flux through the walls, spacing 2/31, 16 frames to t = 1.5, initial states U(0, 1) at every
point; 400 training, 300 validation and 300 test sequences, as there; 300 steps of Adam on eight sequences each.
{ASSUMED}"""


class Reaction(VectorField):
    """u_t = a ∇²u + u - u³ - k - v, v_t = b ∇²v + u - v; y (2, n, n). Without reaction, the science that is known."""

    def __init__(self, n: int, setting: Setting, a: float, b: float, reacts: bool):
        super().__init__()
        self.state_shape = (2, n, n)
        self.grid = Grid((n, n), 0.0, n * setting.spacing, boundary=setting.boundary)
        self.p = ParameterSet(a=Param(a, "logit", (0.0, LARGEST)), b=Param(b, "logit", (0.0, LARGEST)))
        self.reacts = reacts

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        diffusion = torch.stack([self.p.a, self.p.b])[:, None, None] * laplacian(y, self.grid)
        if not self.reacts:
            return diffusion
        u, v = y[0], y[1]
        return diffusion + torch.stack([u - u * u * u - K - v, u - v])


class ConvolutionalNet(nn.Module):
    """(2, n, n) or (B, 2, n, n): 2-16-16-2 channels, 3 x 3, ReLU between."""

    def __init__(self, channels: int, padding: Literal["replicate", "circular"]):
        super().__init__()

        def conv(a: int, b: int) -> nn.Conv2d:
            return nn.Conv2d(a, b, 3, padding=1, padding_mode=padding, dtype=torch.float64)

        self.layers = nn.Sequential(
            conv(2, channels), nn.ReLU(), conv(channels, channels), nn.ReLU(), conv(channels, 2)
        )

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return self.layers(y)


def simulate(count: int, n: int, setting: Setting, seed: int, backend: str) -> Trajectories:
    """``count`` sequences from initial states that are U(0, 1) at every point."""
    y0 = torch.rand(count, 2, n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    ts = FRAME * torch.arange(setting.frames, dtype=torch.float64)
    truth = Reaction(n, setting, setting.a, setting.b, reacts=True)
    with torch.no_grad():
        y = solve(truth, y0, ts, method="Tsit5", rtol=1e-6, atol=1e-8, backend=backend).ys
    return Trajectories(ts, y, y0=y0)


def part(data: Trajectories, start: int, count: int) -> Trajectories:
    """Sequences ``start`` to ``start + count``."""
    y = data.y[start : start + count]
    return Trajectories(data.ts, y, y0=y[:, 0])


def make_study(name: str, about: str, setting: Setting, quick: bool) -> Study:
    """The study of one setting; the quick one has a smaller domain of the same spacing, fewer sequences and steps."""
    sizes, n, channels = ((8, 2, 2), 8, 8) if quick else (setting.sizes, 32, 16)
    steps, batch_size = (15, 2) if quick else (setting.steps, setting.batch_size)
    backend = QUICK_BACKEND if quick else FULL_BACKEND

    def build(seed: int) -> Problem:
        data = simulate(sum(sizes), n, setting, seed, backend)
        train, validation, test = (part(data, sum(sizes[:k]), sizes[k]) for k in range(3))
        science = Reaction(n, setting, START, START, reacts=False)
        field = Additive(science, ConvolutionalNet(channels, setting.padding))
        model = InitialValueModel(field, method="Tsit5", rtol=1e-3, atol=1e-4, backend=backend)

        def score(model: nn.Module) -> dict[str, float]:
            found = physical_values(model)
            relative = [abs(found[key][0] / getattr(setting, key) - 1) for key in ("a", "b")]
            predicted = model(test.ts, y0=test.given["y0"])
            return {
                "theta_error": sum(relative) / 2,
                "prediction_error": float((predicted - test.y).square().mean()),
            }

        early = train.until(float(train.ts[TRAINED - 1]))
        return Problem(model, early, validation, DataLoss(), score, early.collate([early[0], early[1]]))

    return Study(
        name,
        about,
        build,
        train={"steps": steps, "batch_size": batch_size, "validate_every": 10 if steps < 100 else 30},
        optimizer={"lr": 5e-3, "science_lr": 5e-2},
        quick=quick,
        seeds=1 if quick else 3,
        methods=("erm", "weight-decay", "sam") if quick else setting.methods,
        grids={"sam": (0.05,), "weight-decay": (1e-4,)} if quick else GRIDS,
        theta_label="mean relative error of a, b",
        prediction_label="test mean squared error",
        figure=figure,
    )


def study(quick: bool) -> Study:
    """Deep Grey-Box's setting."""
    return make_study("reaction-diffusion", ABOUT, DEEP_GREY_BOX, quick)


def figure(models: Mapping[str, nn.Module], problem: Problem) -> Figure:
    """The missing reaction of u in the middle of a validation sequence, and what each network adds there."""
    from hybridsam_bridge.reproduce.figures import axes_grid

    y = problem.validation.y[0, 5]
    truth = y[0] - y[0] ** 3 - K - y[1]
    drawing, axes = axes_grid(1, 1 + len(models), width=2.2, height=2.4)
    fields = {"missing": truth}
    fields.update({name: model.field.neural(y[None]).detach()[0, 0] for name, model in models.items()})  # type: ignore
    low, high = float(truth.min()), float(truth.max())
    for axis, (name, field) in zip(axes[0], fields.items(), strict=True):
        axis.imshow(field.numpy(), vmin=low, vmax=high)
        axis.set_title(name, fontsize=9)
        axis.set_axis_off()
    return drawing
