"""W3: FitzHugh-Nagumo reaction and diffusion plus a convolutional network, here and in torchdiffeq."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from hybridsam_bridge.fields.base import VectorField
from hybridsam_bridge.pde import Grid, laplacian
from hybridsam_bridge.solve import solve


@dataclass(frozen=True)
class Result:
    """Outputs (T, B, 2, n, n) and the loss's gradient for all parameters and initial states, flat."""

    ys: torch.Tensor = field(repr=False)
    gradient: torch.Tensor = field(repr=False)

    def errors(self, reference: Result) -> tuple[float, float]:
        """Largest error of an output, and of the gradient relative to its norm."""
        gap = self.gradient - reference.gradient
        return float((self.ys - reference.ys).abs().max()), float(gap.norm() / reference.gradient.norm())


class FitzHughNagumoNet(VectorField):
    """u_t = a ∇²u + u - u³ - k - v, v_t = b ∇²v + u - v without flux through the walls, plus a 3x3 tanh network of
    2-16-16-2 channels. States ``(..., 2, n, n)``: the same function serves tools that take a batch at once.
    """

    def __init__(self, n: int = 32, channels: int = 16):
        super().__init__()
        half = 1 / (n - 1)  # points at both walls, -1 and 1, a spacing of 2/(n-1) apart
        self.grid = Grid((n, n), -1 - half, 1 + half, boundary="neumann")
        self.state_shape = (2, n, n)
        self.diffusion = nn.Parameter(torch.tensor([1.5e-3, 5e-3], dtype=torch.float64))
        self.k = nn.Parameter(torch.tensor(5e-3, dtype=torch.float64))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            convs = [nn.Conv2d(a, b, 3, padding=1).double() for a, b in ((2, channels), (channels, channels))]
            last = nn.Conv2d(channels, 2, 3, padding=1).double()
        self.net = nn.Sequential(convs[0], nn.Tanh(), convs[1], nn.Tanh(), last)

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        u, v = y.unbind(-3)
        reaction = torch.stack([u - u * u * u - self.k - v, u - v], -3)
        return self.diffusion[:, None, None] * laplacian(y, self.grid) + reaction + self.net(y)


@dataclass(frozen=True)
class Workload:
    """The model, initial states (B, 2, n, n) and output times (T,); the loss is the mean square of all outputs."""

    model: FitzHughNagumoNet
    y0: torch.Tensor
    ts: torch.Tensor

    def parameters(self) -> list[torch.Tensor]:
        """In the order of ``Result.gradient``."""
        return list(self.model.parameters())

    def run(self, rtol: float, method: str = "Tsit5") -> Callable[[], Result]:
        """The gradient by ``hsb.solve``."""

        def run() -> Result:
            y0 = self.y0.clone().requires_grad_(True)
            sol = solve(self.model, y0, self.ts, method=method, rtol=rtol, atol=1e-2 * rtol)
            return self._result(sol.ys.transpose(0, 1), y0)

        return run

    def torchdiffeq(self, **options: Any) -> Callable[[], Result]:
        """The gradient by ``torchdiffeq.odeint``, the batch as one system, differentiated through its steps.

        Raises ImportError where torchdiffeq is missing.
        """
        from torchdiffeq import odeint

        def run() -> Result:
            y0 = self.y0.clone().requires_grad_(True)
            return self._result(odeint(self.model, y0, self.ts, **options), y0)

        return run

    def _result(self, ys: torch.Tensor, y0: torch.Tensor) -> Result:
        grads = torch.autograd.grad(ys.square().mean(), [*self.parameters(), y0])
        return Result(ys.detach(), torch.cat([g.reshape(-1) for g in grads]))


def w3(batch: int = 8, n: int = 32) -> Workload:
    """Random initial states in 0..1, 15 outputs to t = 1.5."""
    y0 = torch.rand(batch, 2, n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return Workload(FitzHughNagumoNet(n), y0, torch.linspace(0, 1.5, 16, dtype=torch.float64))
