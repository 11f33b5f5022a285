"""Frames of a damped pendulum: its length from an encoder, its friction missing, frames from a decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hybridsam_bridge.fields.base import VectorField
from hybridsam_bridge.fields.hybrid import Additive
from hybridsam_bridge.fields.parameters import Param
from hybridsam_bridge.fields.roles import NEURAL, SCIENCE
from hybridsam_bridge.models.forms import ParameterEncoder
from hybridsam_bridge.models.initial_value import InitialValueModel
from hybridsam_bridge.objectives.data import Batch, DataLoss, Trajectories
from hybridsam_bridge.objectives.noise import Gaussian
from hybridsam_bridge.reproduce.study import FULL_BACKEND, QUICK_BACKEND, Problem, Study
from hybridsam_bridge.reproduce.windows import mlp
from hybridsam_bridge.solve import solve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRAVITY, FRICTION = 10.0, 0.7  # m/s², 1/s
LENGTHS = (1.0, 2.0)  # m
SIDE, ROD, HALF_WIDTH = 28, 10.0, 1.5  # pixels
STEP, SEEN, FRAMES = 0.1, 25, 50  # s; frames that the encoder gets, and all
PIXEL_ERROR, ANGLE_ERROR, CALIBRATED = 0.1, 0.05, 64  # of the loss; rad; frames of known angle
GRIDS = {
    "weight-decay": (1e-4, 1e-3),
    "functional-norm": (1e-2, 1e-1),
    "orthogonality": (1e-2, 1e-1),
    "sam": (0.02, 0.1),
    "sam-all": (0.02, 0.1),
    "asam": (0.2, 1.0),
}
ABOUT = """\
Frames of 28 x 28 pixels, drawn by a rasteriser of this project, of a pendulum θ'' = -(g/l) sin θ - b θ' with g =
10, the length l ~ U(1, 2) of each sequence and friction b = 0.7; |first angle| up to π/6, first velocity up to 1,
as in GOKU (Linial et al., arXiv:2003.10775; its public code), where a rod is drawn with one length for all.
Science: the undamped pendulum; an encoder reads length, first angle and first velocity off 25 frames (length from
0.5 to 3, starting at 1.5); a network 2-64-64-2 (tanh) is added to both derivatives, and a decoder 2-64-64-784 draws
frames from the cosine and sine of the angle. The encoder stands in the place of θ and counts as science, the
decoder as network. Assumed: frames 0.1 apart (GOKU: 50 of 0.05 over the same time), no variational part, 450
training, 20 validation and 100 test sequences (GOKU: 450 and 50), 64 frames with known angle as a calibration of
encoder and decoder, pixels with an error of 0.1, 600 steps of Adam in batches of 16 at 3e-3 (GOKU: 1,600 epochs),
two hyperparameters a method, for the time it takes. θ error is the mean |l - true| over test sequences in m (1.5 for
all would give 0.25); prediction error the mean squared error of their next 25 frames, which the encoder does not
see."""


def draw(angle: torch.Tensor) -> torch.Tensor:
    """Frames (*angle.shape, 784), 0 to 1, of a rod at these angles (radians, 0 hanging down, positive to the right).

    The rod turns about the middle of the frame and has round ends; brightness falls from 1 to 0 over one pixel
    across the edge. It is drawn with one length for all pendulums, so that the length shows in the motion alone.
    """
    centre = torch.arange(SIDE, dtype=torch.float64) - (SIDE - 1) / 2
    down, right = torch.meshgrid(centre, centre, indexing="ij")
    tip_down, tip_right = torch.cos(angle)[..., None, None], torch.sin(angle)[..., None, None]
    along = (down * tip_down + right * tip_right).clamp(0, ROD)
    distance = torch.hypot(down - along * tip_down, right - along * tip_right)
    return (HALF_WIDTH + 0.5 - distance).clamp(0, 1).flatten(-2)


class Pendulum(VectorField):
    """(angle, angular velocity); context: the length in m. Without friction, the science that is known."""

    state_shape = (2,)

    def __init__(self, friction: float = 0.0):
        super().__init__()
        self.friction = friction

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        assert context is not None, "the length"
        return torch.stack([y[1], -GRAVITY / context[0] * torch.sin(y[0]) - self.friction * y[1]])


class Decoder(nn.Module):
    """States (..., 2) -> frames (..., 784): dense layers on cosine and sine of the angle."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = mlp(2, width, width, SIDE * SIDE).float()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        angle = states[..., 0].float()
        return torch.sigmoid(self.layers(torch.stack([torch.cos(angle), torch.sin(angle)], -1)))


class Encoder(nn.Module):
    """Frames (B, T, 784) -> (B, 3): what makes length, first angle and first velocity.

    One network turns each frame into a number, its code; another makes length and velocity of the sequence of codes
    divided by its size, since small swings of any size have one period.
    """

    def __init__(self, frames: int, width: int):
        super().__init__()
        self.frame = mlp(SIDE * SIDE, width, 1).float()
        self.sequence = mlp(frames, width, 2).float()

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        code = self.frame(frames)[..., 0]
        size = code.square().mean(1, keepdim=True).sqrt() + ANGLE_ERROR
        found = self.sequence(code / size)
        return torch.cat([found[:, :1], code[:, :1], size * found[:, 1:]], 1)


def simulate(count: int, seed: int) -> tuple[Trajectories, torch.Tensor]:
    """Frames (n, 50, 784) in float32, the first 25 of them as the encoder's inputs; lengths (n,)."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(3, count, dtype=torch.float64, generator=generator)
    length = LENGTHS[0] + (LENGTHS[1] - LENGTHS[0]) * uniform[0]
    y0 = torch.stack([(2 * uniform[1] - 1) * torch.pi / 6, 2 * uniform[2] - 1], 1)
    ts = STEP * torch.arange(FRAMES, dtype=torch.float64)
    options: dict[str, Any] = {"method": "Tsit5", "rtol": 1e-8, "atol": 1e-8, "backend": "torch"}
    with torch.no_grad():
        states = solve(Pendulum(FRICTION), y0, ts, context=length[:, None], **options).ys
    frames = draw(states[..., 0]).float()
    return Trajectories(ts, frames, inputs=frames[:, :SEEN]), length


class CalibratedLoss(nn.Module):
    """Misfit of the frames; while training also that of ``CALIBRATED`` frames whose angles are known.

    Without these the code of a frame is free to be any function of the angle.
    """

    angles: torch.Tensor
    frames: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.data = DataLoss(Gaussian(PIXEL_ERROR))
        angles = torch.linspace(-1, 1, CALIBRATED, dtype=torch.float64)
        self.register_buffer("angles", angles)
        self.register_buffer("frames", draw(angles).float())

    def forward(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        loss = self.data(model, batch)
        if not model.training:
            return loss
        code = model.encoder.frame(self.frames)[:, 0]  # type: ignore[union-attr, operator]
        drawn = model.model.observe(torch.stack([self.angles, self.angles], 1))  # type: ignore[union-attr, operator]
        encoded = ((code - self.angles) / ANGLE_ERROR).square().mean()
        return loss + (encoded + ((drawn - self.frames) / PIXEL_ERROR).square().mean()) / 2


def study(quick: bool) -> Study:
    """The study; the quick one has fewer sequences and steps, and smaller networks."""
    sizes, width = ([12, 4, 8], 16) if quick else ([450, 20, 100], 64)
    solver: dict[str, Any] = {"method": "Tsit5", "rtol": 1e-3, "atol": 1e-4}
    solver["backend"] = QUICK_BACKEND if quick else FULL_BACKEND

    def build(seed: int) -> Problem:
        (train, _), (validation, _), (test, length) = (simulate(n, 3 * seed + k) for k, n in enumerate(sizes))
        decoder, encoder = Decoder(width), Encoder(SEEN, width)
        decoder.hsb_role, encoder.hsb_role = NEURAL, SCIENCE  # type: ignore[assignment]
        moving = InitialValueModel(Additive(Pendulum(), mlp(2, width, width, 2)), observe=decoder, **solver)
        first = {"angle": Param(0.0, unit="rad"), "velocity": Param(0.0, unit="rad/s")}
        model = ParameterEncoder(moving, encoder, {"length": Param(1.5, "logit", (0.5, 3.0), unit="m")}, first)

        def score(model: nn.Module) -> dict[str, float]:
            assert isinstance(model, ParameterEncoder)
            inputs = test.whole()["inputs"]
            found = model.encode(inputs)["length"][:, 0]
            squares = (model(test.ts, inputs) - test.y).square()
            return {
                "theta_error": float((found - length).abs().mean()),
                "prediction_error": float(squares[:, SEEN:].mean()),
                "error_of_seen_frames": float(squares[:, :SEEN].mean()),
                "length_bias": float((found - length).mean()),
            }

        seen = train.until(float(train.ts[SEEN - 1]))
        batch = seen.collate([seen[i] for i in range(8)])
        return Problem(model, seen, validation.until(float(seen.ts[-1])), CalibratedLoss(), score, batch)

    return Study(
        "pendulum-images",
        ABOUT,
        build,
        train={"steps": 15 if quick else 600, "batch_size": 4 if quick else 16, "validate_every": 15 if quick else 25},
        optimizer={"lr": 3e-3, "science_lr": 3e-3},
        quick=quick,
        seeds=1 if quick else 5,
        methods=("erm", "weight-decay", "sam") if quick else None,
        grids={"sam": (0.1,), "weight-decay": (1e-3,)} if quick else GRIDS,
        theta_label="error of the length (m)",
        prediction_label="mean squared error of pixels ahead",
        figure=figure,
    )


def figure(models: Mapping[str, nn.Module], problem: Problem) -> Figure:
    """Frames of a validation sequence and their prediction by each method, every fourth."""
    from hybridsam_bridge.reproduce.figures import axes_grid

    shown = problem.validation.collate([problem.validation[0]])
    rows = {"true": shown["y"][0]}
    with torch.no_grad():
        rows.update({name: model(shown["ts"], shown["inputs"])[0] for name, model in models.items()})
    drawing, axes = axes_grid(len(rows), 7, width=1.0, height=1.0)
    for line, (name, frames) in zip(axes, rows.items(), strict=True):
        for axis, frame in zip(line, frames[::4], strict=True):
            axis.imshow(frame.reshape(SIDE, SIDE).numpy(), vmin=0, vmax=1, cmap="gray")
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(name, fontsize=7)
    return drawing
