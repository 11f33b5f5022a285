"""Convolutions, pooling, modules, and whole models."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from lowering_case import Body, Case


def _convolution(
    shape: tuple[int, ...], weights: tuple[tuple[int, ...], ...], body: Callable[..., torch.Tensor]
) -> Callable[[str], Case]:
    """``body(x, *weights)`` on a state of ``shape``, which may return any shape: its sums go back to the state."""
    n = int(torch.Size(shape).numel())

    def rhs(y: torch.Tensor, p: list[torch.Tensor] | torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        out = body(y.reshape(shape), *(p if isinstance(p, list) else [p])).reshape(-1)
        return F.pad(torch.tanh(out), (0, n - out.numel())) * y + out.sum()

    return lambda name: Case(name, rhs, n=n, shapes=weights)


def convolutions() -> list[Case]:
    w3, w33 = (4, 2, 3), (4, 2, 3, 3)
    back = (2, 4, 3, 3)
    wide = ((9, 2, 3, 3), (9,), (8, 9, 3, 3), (8,), (2, 8, 3, 3))
    made = {
        "conv1d": _convolution((2, 9), (w3, (4,)), lambda x, w, b: F.conv1d(x, w, b)),
        "conv1d_stride": _convolution((2, 11), (w3,), lambda x, w: F.conv1d(x, w, stride=2, padding=1)),
        "conv1d_dilation": _convolution((2, 11), (w3,), lambda x, w: F.conv1d(x, w, dilation=2, padding=2)),
        "conv1d_transpose": _convolution(
            (4, 5), (w3,), lambda x, w: F.conv_transpose1d(x, w, stride=2, padding=1, output_padding=1)[:, :9]
        ),
        "conv2d": _convolution((2, 6, 7), (w33, (4,)), lambda x, w, b: F.conv2d(x, w, b)),
        "conv2d_zero": _convolution(
            (2, 6, 10),
            (w33, (4,), back),
            lambda x, w, b, v: F.conv2d(torch.tanh(F.conv2d(x, w, b, padding=1)), v, padding=1),
        ),
        "conv2d_groups": _convolution((4, 5, 6), ((4, 2, 3, 3),), lambda x, w: F.conv2d(x, w, padding=1, groups=2)),
        "conv2d_stride": _convolution((2, 7, 8), (w33,), lambda x, w: F.conv2d(x, w, stride=(2, 3), padding=(1, 2))),
        "conv2d_same": _convolution((2, 6, 7), ((2, 2, 3, 5),), lambda x, w: F.conv2d(x, w, padding="same")),
        "conv2d_batch": _convolution((3, 2, 4, 5), ((1, 2, 3, 3),), lambda x, w: F.conv2d(x, w, padding=1)),
        "conv3d": _convolution((1, 3, 4, 4), ((2, 1, 2, 2, 2),), lambda x, w: F.conv3d(x, w)),
        "pad_circular": _convolution(
            (2, 5, 8), (w33,), lambda x, w: F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), w)[:2]
        ),
        "pad_reflect": _convolution(
            (2, 5, 6), (w33,), lambda x, w: F.conv2d(F.pad(x, (1, 2, 1, 1), mode="reflect"), w)[:2, :, :6]
        ),
        "pad_replicate": _convolution(
            (2, 5, 6), (w33,), lambda x, w: F.conv2d(F.pad(x, (1, 1, 2, 1), mode="replicate"), w)[:2, :5]
        ),
        "pad_circular_1d": _convolution(
            (2, 12), (w3,), lambda x, w: F.conv1d(F.pad(x, (2, 2), mode="circular"), w, dilation=2)[:2]
        ),
        "avg_pool1d": _convolution((2, 9), ((1,),), lambda x, w: F.avg_pool1d(x * w, 3, 2, padding=1)),
        "avg_pool2d": _convolution((2, 6, 8), ((1,),), lambda x, w: F.avg_pool2d(x * x * w, 2)),
        "avg_pool2d_edges": _convolution(
            (2, 5, 6), ((1,),), lambda x, w: F.avg_pool2d(x * x * w, 3, 2, padding=1, count_include_pad=False)
        ),
        "max_pool1d": _convolution((2, 9), ((1,),), lambda x, w: F.max_pool1d(x * w, 3, 2, padding=1)),
        "max_pool2d": _convolution((2, 6, 8), ((1,),), lambda x, w: F.max_pool2d(x * x * w, 2)),
        "max_pool2d_overlap": _convolution((2, 6, 7), ((1,),), lambda x, w: F.max_pool2d(x * x * w, 3, 1, padding=1)),
        "adaptive_pool": _convolution((2, 6, 8), ((1,),), lambda x, w: F.adaptive_avg_pool2d(x * x * w, 1)),
        "conv_field": _convolution(
            (2, 12, 12),
            (w33, (4,), back),
            lambda x, w, b, v: F.conv2d(F.relu(F.conv2d(x, w, b, padding=1)), v, padding=1),
        ),
        # Layers that are written into padded tensors, sums over those, and gradients with vectors along the outputs.
        "conv_layers": _convolution((2, 8, 9), wide, _layers),
        "conv1d_layers": _convolution(
            (2, 70),
            ((8, 2, 3), (8,), (2, 8, 5)),
            lambda x, w, b, v: F.conv1d(torch.exp(-F.conv1d(x, w, b, padding=1)), v, padding=2),
        ),
        "read_twice": _convolution((2, 8, 9), wide, _read_twice),
        "rows_of_columns": _convolution(
            (2, 160), ((2, 160), (1,)), lambda x, w, b: torch.tanh((w * x).T) * torch.sigmoid(x.reshape(160, 2).T.T + b)
        ),
    }
    return [build(name) for name, build in made.items()]


def _layers(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor, v: torch.Tensor, c: torch.Tensor, u: torch.Tensor):
    hidden = torch.sigmoid(F.conv2d(torch.tanh(F.conv2d(x, w, b, padding=1)), v, c, padding=1))
    return F.conv2d(hidden, u, padding=1)


def _read_twice(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor, v: torch.Tensor, c: torch.Tensor, u: torch.Tensor):
    """Activations that are padded twice, summed, and read across rows."""
    first = torch.tanh(F.conv2d(x, w, b, padding=1))
    second = F.conv2d(first, v, c, padding=1) + F.pad(first, (-1, 1, 2, -2))[:8]
    total = second.reshape(8, -1).sum(1) * first.flatten().cumsum(0)[-1]
    return F.conv2d(second * total[:, None, None] * 0.01, u, stride=2, padding=2)


def _robertson(y: torch.Tensor, p: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    y1, y2, y3 = y
    k1, k2, k3 = p
    first, second = -k1 * y1 + k3 * y2 * y3, k2 * y2**2
    return torch.stack([first, -first - second, second])


def _network(hidden: int, act: Callable[[torch.Tensor], torch.Tensor], norm: bool = False) -> Body:
    def body(y: torch.Tensor, p: list[torch.Tensor], t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        x = torch.cat([y, c, t.reshape(1)])
        x = act(F.linear(x, p[0], p[1]))
        if norm:
            x = F.layer_norm(x, (hidden,), p[2], p[3])
        x = act(F.linear(x, p[4], p[5]))
        return F.linear(x, p[6]) + torch.sin(t) * y

    return body


_BATCH_NORM = torch.nn.BatchNorm1d(3, affine=False).double().eval()
_BATCH_NORM.running_mean.copy_(torch.tensor([0.1, -0.2, 0.3]))


def modules() -> list[Case]:
    made: dict[str, Case] = {
        "batch_norm": Case(
            "batch_norm",
            lambda y, p, t, c: (
                _BATCH_NORM(y.view(2, 3) * p[:3])
                * F.batch_norm(y.view(2, 3), _BATCH_NORM.running_mean, _BATCH_NORM.running_var, p[:3], p[3:])
            ).reshape(6),
        ),
        "group_norm": Case("group_norm", lambda y, p, t, c: F.group_norm((y * p).view(1, 6), 2, p, y)[0]),
        "bilinear": Case(
            "bilinear_module",
            lambda y, p, t, c: F.bilinear(y, y * y, p[0], p[1]),
            shapes=((6, 6, 6), (6,)),
        ),
        "gru": Case(
            "gru",
            lambda y, p, t, c: torch.gru_cell(y[None], (y * t)[None], p[0], p[1], p[2], p[3])[0],
            shapes=((18, 6), (18, 6), (18,), (18,)),
        ),
        "attention": Case(
            "attention",
            lambda y, p, t, c: F.scaled_dot_product_attention(*((y.view(1, 3, 2) @ w) for w in p))[0].reshape(6),
            shapes=((2, 2), (2, 2), (2, 2)),
        ),
        "bucketize": Case(
            "bucketize",
            lambda y, p, t, c: y * p[torch.bucketize(y, torch.tensor([-0.8, -0.1, 0.4, 0.9], dtype=y.dtype))],
        ),
        "searchsorted": Case(
            "searchsorted",
            lambda y, p, t, c: y * p[torch.searchsorted(torch.tensor([0.2, 0.5, 0.7], dtype=y.dtype), t, right=True)],
        ),
        "angles": Case("angles", lambda y, p, t, c: torch.deg2rad(y) * torch.rad2deg(p) + torch.frac(2 * y)),
        "trace": Case("trace", lambda y, p, t, c: torch.trace(torch.outer(y, p)) * y),
        "block_diag": Case(
            "block_diag", lambda y, p, t, c: torch.block_diag(torch.outer(y[:3], p[:3]), torch.outer(p[3:], y[3:])) @ y
        ),
        "own_gradient": Case("own_gradient", lambda y, p, t, c: _potential_gradient(y, p) * t),
        "vmap": Case("vmap", lambda y, p, t, c: torch.vmap(lambda a: a * a.sum())(y.view(2, 3)).reshape(6) * p),
    }
    return list(made.values())


def _potential_gradient(y: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """A right-hand side that is itself a gradient, as Hamiltonian and gradient-flow models are."""
    return torch.func.grad(lambda q: (torch.sin(q * p) ** 2).sum() + q[0] ** 3 * q[1])(y)


def composites() -> list[Case]:
    def shapes(n: int, hidden: int) -> tuple[tuple[int, ...], ...]:
        return ((hidden, n + 3), (hidden,), (hidden,), (hidden,), (hidden, hidden), (hidden,), (n, hidden))

    return [
        Case("robertson", _robertson, n=3, shapes=((3,),), low=0.2, high=1.5),
        Case("network", _network(24, torch.tanh), n=4, shapes=shapes(4, 24)),
        Case("network_norm", _network(24, F.gelu, norm=True), n=4, shapes=shapes(4, 24)),
        Case("network_silu", _network(33, F.silu, norm=True), n=7, shapes=shapes(7, 33)),
        Case("network_tiny", _network(3, torch.sigmoid, norm=True), n=2, shapes=shapes(2, 3)),
        Case("network_wide_state", _network(20, F.softplus), n=30, shapes=shapes(30, 20)),
        Case("brusselator", _brusselator, n=32, shapes=((3,),), low=0.2, high=1.5),
        Case("constant_part", lambda y, p, t, c: torch.cat([y[:1] * 0 + 1, p[:2] * t, c, y[:1] * t]), n=6),
        Case("no_state", lambda y, p, t, c: p * t**2 + c.sum(), n=6),
        Case("no_parameters", lambda y, p, t, c: y * torch.exp(-t) + c[0], n=6, shapes=((0,),)),
    ]


def _brusselator(y: torch.Tensor, p: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    u, v = y.view(2, 16)
    a, b, alpha = p
    du = a + u**2 * v - (b + 1) * u + alpha * (u.roll(1) - 2 * u + u.roll(-1))
    dv = b * u - u**2 * v + alpha * (v.roll(1) - 2 * v + v.roll(-1))
    return torch.stack([du, dv]).reshape(-1)
