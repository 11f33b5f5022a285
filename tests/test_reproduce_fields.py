"""Reaction-diffusion and pendulum-image studies: their equations, their data, and the rasteriser."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import hybridsam_bridge as hsb
from hybridsam_bridge.reproduce import pendulum_images as images
from hybridsam_bridge.reproduce import reaction_diffusion as fields
from hybridsam_bridge.reproduce.registry import load_study
from hybridsam_bridge.reproduce.run import build

SETTINGS = {"deep grey-box": fields.DEEP_GREY_BOX, "aphynity": fields.APHYNITY}


def five_points(y, setting):
    """The predecessors' Laplacian: NumPy's padding of a field (n, n), then the five-point stencil."""
    mode = {"neumann": "edge", "periodic": "wrap"}[setting.boundary]
    p = np.pad(y, 1, mode=mode)
    return (p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:] - 4 * y) / setting.spacing**2


def right_hand_side(y, setting):
    u, v = y
    reaction = np.stack([u - u**3 - v - 5e-3, u - v])
    return reaction + np.stack([setting.a * five_points(u, setting), setting.b * five_points(v, setting)])


@pytest.mark.parametrize("name", SETTINGS)
def test_reaction_diffusion_is_that_of_the_predecessors(name):
    """To rounding: spacing 2/31 without flux or 2/32 periodic; their five-point stencils written out in NumPy."""
    setting = SETTINGS[name]
    y = torch.rand(2, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    truth = fields.Reaction(32, setting, setting.a, setting.b, reacts=True)
    found = truth(torch.tensor(0.0), y).detach().numpy()
    assert np.abs(found - right_hand_side(y.numpy(), setting)).max() < 1e-12
    known = fields.Reaction(32, setting, setting.a, setting.b, reacts=False)
    diffusion = np.stack(
        [setting.a * five_points(y[0].numpy(), setting), setting.b * five_points(y[1].numpy(), setting)]
    )
    assert np.abs(known(torch.tensor(0.0), y).detach().numpy() - diffusion).max() < 1e-12
    assert setting.a in (1.5e-3, 1e-3)
    assert (setting.b, fields.K) == (5e-3, 5e-3)


def test_reaction_diffusion_data_solve_the_equations():
    """Against SciPy on 6 x 6 points; Tsit5 at rtol 1e-6 keeps 1e-5 of states of order one."""
    setting = fields.DEEP_GREY_BOX
    data = fields.simulate(2, 6, setting, 4, "torch")
    assert tuple(data.y.shape) == (2, 16, 2, 6, 6)
    assert 0 <= float(data.y[:, 0].min()) <= float(data.y[:, 0].max()) <= 1
    for y in data.y.numpy():

        def f(t, flat):
            return right_hand_side(flat.reshape(2, 6, 6), setting).reshape(-1)

        expected = solve_ivp(f, (0, 1.5), y[0].reshape(-1), "DOP853", data.ts.numpy(), rtol=1e-10, atol=1e-12).y
        assert np.abs(y.reshape(16, -1) - expected.T).max() < 1e-5


@pytest.mark.parametrize(("padding", "shift"), [("circular", True), ("replicate", False)])
def test_convolutional_network(padding, shift):
    """2-16-16-2 channels; with circular padding a shifted field gives the shifted result, single or in a batch."""
    torch.manual_seed(0)
    net = fields.ConvolutionalNet(16, padding)
    assert [tuple(m.weight.shape) for m in net.layers if isinstance(m, torch.nn.Conv2d)] == [
        (16, 2, 3, 3),
        (16, 16, 3, 3),
        (2, 16, 3, 3),
    ]
    y = torch.rand(2, 8, 8, dtype=torch.float64)
    rolled = net(torch.roll(y, (3, 5), (1, 2))).detach()
    difference = float((rolled - torch.roll(net(y).detach(), (3, 5), (1, 2))).abs().max())
    assert (difference < 1e-12) == shift
    assert torch.allclose(net(y[None])[0], net(y), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["reaction-diffusion", "reaction-diffusion-periodic"])
def test_reaction_diffusion_starts_as_aphynity_does(name):
    """Both coefficients at 1.19e-3 = 0.01 sigmoid(-2), to three digits; they are the science."""
    problem = build(load_study(name, True), 0)
    found = hsb.physical_values(problem.model)
    for key in ("a", "b"):
        assert found[key][0] == pytest.approx(0.01 / (1 + math.exp(2)), rel=5e-3)
    assert len(hsb.scientific_parameters(problem.model)) == 2
    assert len(hsb.neural_parameters(problem.model)) == 6
    assert len(problem.data.ts) == fields.TRAINED == 7


def frame(angle):
    return images.draw(torch.tensor(angle, dtype=torch.float64)).reshape(images.SIDE, images.SIDE)


@pytest.mark.parametrize("angle", [0.0, 0.3, -0.7, 1.2])
def test_frames_turn_and_mirror_with_the_angle(angle):
    """A quarter turn is NumPy's rot90 (down becomes right), the other sign a mirror image; both to rounding."""
    at = frame(angle).numpy()
    assert np.abs(frame(angle + math.pi / 2).numpy() - np.rot90(at)).max() < 1e-12
    assert np.abs(frame(-angle).numpy() - at[:, ::-1]).max() < 1e-12


@pytest.mark.parametrize("angle", [0.0, 0.3, -0.7, 1.2])
def test_frames_show_the_rod(angle):
    """Ink is the rod's area, width times length and two half discs (2 % for the pixels' sampling of the edge), which
    also blurs its second moment; its centre is half the rod along the angle, within a twentieth of a pixel."""
    at = frame(angle)
    assert 0 <= float(at.min()) <= float(at.max()) <= 1
    # the edge falls from 1 to 0 linearly in distance: over a straight edge that keeps the area, around the round ends
    # it adds pi/12
    area = 2 * images.HALF_WIDTH * images.ROD + math.pi * (images.HALF_WIDTH**2 + 1 / 12)
    assert float(at.sum()) == pytest.approx(area, rel=0.02)
    centre = torch.arange(images.SIDE, dtype=torch.float64) - (images.SIDE - 1) / 2
    down, right = float((at.sum(1) * centre).sum() / at.sum()), float((at.sum(0) * centre).sum() / at.sum())
    assert down == pytest.approx(images.ROD / 2 * math.cos(angle), abs=0.05)
    assert right == pytest.approx(images.ROD / 2 * math.sin(angle), abs=0.05)
    edges = [at[0], at[-1], at[:, 0], at[:, -1]]
    assert max(float(e.max()) for e in edges) == 0.0  # the rod fits into the frame


def test_frames_change_smoothly():
    """No jumps as the rod turns: 0.001 rad moves the tip by 0.01 pixel, and no pixel by more than twice that."""
    assert float((frame(0.4) - frame(0.401)).abs().max()) < 0.02


def test_image_data_are_the_damped_pendulum():
    """Frames against those of SciPy's angles; equations at tolerances of 1e-8 and float32 frames keep 1e-5."""
    data, length = images.simulate(3, 2)
    assert tuple(data.y.shape) == (3, 50, 784)
    assert torch.equal(data.given["inputs"], data.y[:, :25])
    uniform = torch.rand(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(length, 1 + uniform[0])
    for i in range(3):
        y0 = [(2 * float(uniform[1, i]) - 1) * math.pi / 6, 2 * float(uniform[2, i]) - 1]

        def f(t, y, stiffness=10 / float(length[i])):
            return [y[1], -stiffness * math.sin(y[0]) - 0.7 * y[1]]

        angle = solve_ivp(f, (0, 5), y0, "DOP853", 0.1 * np.arange(50), rtol=1e-10, atol=1e-12).y[0]
        assert float((images.draw(torch.from_numpy(angle)) - data.y[i]).abs().max()) < 1e-5


def test_image_model_roles_and_loss():
    """Encoder: science; decoder and friction network: network. Calibration counts in training only."""
    problem = build(load_study("pendulum-images", True), 0)
    model, loss = problem.model, problem.loss_fn
    science = {id(p) for p in hsb.scientific_parameters(model)}
    assert science == {id(p) for p in model.encoder.parameters()}
    batch = problem.sharpness_batch
    with torch.no_grad():
        model.eval()
        plain = float(loss(model, batch))
        assert plain == pytest.approx(float(hsb.DataLoss(hsb.Gaussian(0.1))(model, batch)), rel=1e-12)
        model.train()
        code = model.encoder.frame(loss.frames)[:, 0].double()
        drawn = model.model.observe(torch.stack([loss.angles, loss.angles], 1))
        extra = ((code - loss.angles) / 0.05).square().mean() + ((drawn - loss.frames) / 0.1).square().mean()
        assert float(loss(model, batch)) == pytest.approx(plain + float(extra) / 2, rel=1e-5)  # float32


def test_image_encoder_reads_small_swings_of_any_size_alike():
    """Codes half as large give the same length, and half the angle and velocity: to the 5 % that the regularised size
    of small codes makes."""
    torch.manual_seed(0)
    encoder = images.Encoder(25, 16)
    encoder.frame = torch.nn.Linear(784, 1, bias=False)
    frames = torch.randn(4, 25, 784)
    with torch.no_grad():
        frames *= 10 / encoder.frame(frames).square().mean().sqrt()
        whole, half = encoder(frames), encoder(frames / 2)
    assert torch.allclose(half[:, 0], whole[:, 0], rtol=0.05, atol=0.01)
    assert torch.allclose(half[:, 1:], whole[:, 1:] / 2, rtol=0.05, atol=0.02)
