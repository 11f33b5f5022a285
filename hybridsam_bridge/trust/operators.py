"""Models that learn f -> u on a grid: parameter fits, linear maps, and networks of the usual kinds.

Each has ``fit(f, u)`` with samples in rows, ``predict(f)``, and a name. The networks are small forms of the
architectures of the paper's comparison; their sizes and training lengths are this package's choice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import nn

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.trust.equations import Equation
from hybridsam_bridge.trust.spaces import Array
from hybridsam_bridge.trust.theory import STENCILS, fit_coefficient, linear_fit


class OperatorModel(Protocol):
    """What a cross-validation trains: f ``(samples, size)`` to u ``(samples, size)``."""

    name: str

    def fit(self, f: Array, u: Array) -> None: ...

    def predict(self, f: Array) -> Array: ...


class DifferenceFit:
    """-w FD(u) = f with one unknown w, by least squares; predicts by solving the difference equation."""

    def __init__(self, equation: Equation, order: int = 2):
        if equation.kind != "poisson":
            raise InvalidInput(f"DifferenceFit: is about -k u'' = f, not {equation.kind}.")
        self.name = f"FD{order}"
        self.order, self.n = order, equation.n
        self.coefficient = float("nan")
        matrix = equation.stencil_matrix()
        if order == 4:  # rows where the wide stencil fits; the second-order ones beside the ends keep order 4
            wide = sum(-c * np.eye(equation.size, k=i - 2) for i, c in enumerate(STENCILS[4])) * equation.n**2
            matrix[1:-1] = wide[1:-1]
        self.inverse = np.linalg.inv(matrix)

    def fit(self, f: Array, u: Array) -> None:
        self.coefficient = fit_coefficient(f.T, u.T, self.n, self.order)

    def predict(self, f: Array) -> Array:
        return f @ self.inverse.T / self.coefficient


class Linear:
    """u = W f from W0 = 0, at the limit of gradient descent."""

    name = "linear"

    def __init__(self) -> None:
        self.weight = np.zeros((0, 0))

    def fit(self, f: Array, u: Array) -> None:
        self.weight = linear_fit(f, u)

    def predict(self, f: Array) -> Array:
        return f @ self.weight.T


class Network:
    """A torch module f -> u, inputs and outputs scaled to unit mean square, trained full batch with Adam.

    ``residual`` (the difference operator, ``(size, size)``) makes it physics-informed: the mean square of
    operator·u - f, relative to that of f, is added to the misfit, on the training forcings.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[int], nn.Module],
        steps: int = 2000,
        lr: float = 2e-3,
        seed: int = 0,
        residual: Array | None = None,
    ):
        self.name, self.make, self.steps, self.lr, self.seed = name, make, steps, lr, seed
        self.residual = None if residual is None else torch.as_tensor(residual)
        self.module: nn.Module | None = None
        self.scales = (1.0, 1.0)

    def fit(self, f: Array, u: Array) -> None:
        self.scales = float(np.sqrt(np.mean(f**2))) or 1.0, float(np.sqrt(np.mean(u**2))) or 1.0
        x, y = torch.as_tensor(f) / self.scales[0], torch.as_tensor(u) / self.scales[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            module = self.make(f.shape[1]).double()
        optimizer = torch.optim.Adam(module.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5 * self.lr, total_steps=self.steps)
        for _ in range(self.steps):
            optimizer.zero_grad()
            out = module(x)
            loss = nn.functional.mse_loss(out, y)
            if self.residual is not None:
                balance = out * self.scales[1] @ self.residual.T / self.scales[0] - x
                loss = loss + balance.pow(2).mean()
            loss.backward()
            optimizer.step()
            schedule.step()
        self.module = module

    def predict(self, f: Array) -> Array:
        if self.module is None:
            raise InvalidInput(f"{self.name}: call fit before predict.")
        with torch.no_grad():
            return (self.module(torch.as_tensor(f) / self.scales[0]) * self.scales[1]).numpy()


def deep_linear(size: int, layers: int = 3) -> nn.Module:
    """A product of ``layers`` square matrices."""
    return nn.Sequential(*(nn.Linear(size, size, bias=False) for _ in range(layers)))


def mlp(size: int, width: int = 64) -> nn.Module:
    """Two hidden layers of tanh."""
    return nn.Sequential(nn.Linear(size, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, size))


class DeepONet(nn.Module):
    """u(x) = Σ b_i(f) t_i(x) with a branch network of f and a trunk network of x (Lu et al., 2021)."""

    x: torch.Tensor

    def __init__(self, size: int, width: int = 64, rank: int = 24):
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(size, width), nn.Tanh(), nn.Linear(width, rank))
        self.trunk = nn.Sequential(
            nn.Linear(1, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, rank)
        )
        self.register_buffer("x", torch.arange(1, size + 1).reshape(-1, 1) / (size + 1))

    def forward(self, f: torch.Tensor) -> torch.Tensor:
        return self.branch(f) @ self.trunk(2 * self.x - 1).T


class FNO(nn.Module):
    """Fourier neural operator in one dimension (Li et al., 2021): spectral layers on the lowest ``modes``."""

    x: torch.Tensor

    def __init__(self, size: int, width: int = 12, modes: int = 8, layers: int = 3):
        super().__init__()
        self.modes = min(modes, size // 2 + 1)
        self.lift = nn.Linear(2, width)
        shape = (layers, 2, self.modes, width, width)
        self.spectral = nn.Parameter(torch.randn(shape) / width)
        self.local = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.lower = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, 1))
        self.register_buffer("x", torch.arange(1, size + 1) / (size + 1))

    def forward(self, f: torch.Tensor) -> torch.Tensor:
        h = self.lift(torch.stack([f, self.x.expand_as(f)], -1))
        size = f.shape[-1]
        for i, local in enumerate(self.local):
            low = torch.fft.rfft(h, dim=-2)[..., : self.modes, :]
            mixed = torch.einsum("...mi,mij->...mj", low, torch.complex(*self.spectral[i]))
            h = torch.fft.irfft(mixed, n=size, dim=-2) + local(h)
            if i + 1 < len(self.local):
                h = nn.functional.gelu(h)
        return self.lower(h).squeeze(-1)


def standard_models(equation: Equation, steps: int = 2000, seed: int = 0) -> list[Callable[[], OperatorModel]]:
    """Makers of the models of the comparison; parameter fits only where the equation is -k u'' = f."""
    residual = equation.k * equation.stencil_matrix()
    makers: list[Callable[[], OperatorModel]] = []
    if equation.kind == "poisson":
        makers += [lambda: DifferenceFit(equation, 2), lambda: DifferenceFit(equation, 4)]
    makers += [
        Linear,
        lambda: Network("deep linear", deep_linear, steps, seed=seed),
        lambda: Network("MLP", mlp, steps, seed=seed),
        lambda: Network("DeepONet", DeepONet, steps, seed=seed),
        lambda: Network("physics-informed DeepONet", DeepONet, steps, seed=seed, residual=residual),
    ]
    if equation.kind != "poisson2d":
        makers.append(lambda: Network("FNO", FNO, steps, seed=seed))
    return makers
