"""W1 and W2: gradients of Robertson's stiff kinetics alone, and with a network in its right-hand side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from hybridsam_bridge.fields.base import VectorField
from hybridsam_bridge.solve import solve

RATES = (0.04, 3e7, 1e4)
WEIGHTS = (1.0, 1e4, 1.0)  # of the three concentrations in the loss, a sum over all outputs
BATCH = 32

Result = dict[str, np.ndarray]


class Robertson(VectorField):
    """Robertson's three reactions; rates k (3,)."""

    state_shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.tensor(RATES, dtype=torch.float64))

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        k1, k2, k3 = self.k
        a, b, c = y
        return torch.stack([-k1 * a + k3 * b * c, k1 * a - k2 * b * b - k3 * b * c, k2 * b * b])


class RobertsonNet(Robertson):
    """Robertson plus 1e-3 times a 3-64-64-3 tanh network on scaled inputs and outputs."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.inputs: torch.Tensor
        self.outputs: torch.Tensor
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = [nn.Linear(3, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 3)]
        self.net = nn.Sequential(*layers).double()
        self.register_buffer("inputs", torch.tensor(WEIGHTS, dtype=torch.float64))
        self.register_buffer("outputs", 1e-3 / torch.tensor(WEIGHTS, dtype=torch.float64))

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(t, y) + self.outputs * self.net(y * self.inputs)


@dataclass(frozen=True)
class Workload:
    """A model, initial states (3,) or (B, 3), output times and tolerances; the loss is Σ weights · ys."""

    name: str
    model: Robertson = field(repr=False)
    y0: np.ndarray = field(repr=False)
    ts: np.ndarray = field(repr=False)
    rtol: float
    atol: float

    def gradient(self, backend: str, samples: int | None = None) -> Callable[[], Result]:
        """A run of ``hsb.solve`` and backward on the first ``samples``; returns the gradients of k and y0."""
        ts, weights = torch.tensor(self.ts), torch.tensor(WEIGHTS, dtype=torch.float64)

        def run() -> Result:
            y0 = torch.tensor(self.y0[:samples] if samples else self.y0, requires_grad=True)
            self.model.zero_grad()
            sol = solve(self.model, y0, ts, rtol=self.rtol, atol=self.atol, backend=backend)
            (sol.ys * weights).sum().backward()
            assert y0.grad is not None
            assert self.model.k.grad is not None
            return {"k": self.model.k.grad.numpy().copy(), "y0": y0.grad.numpy()}

        return run

    def forward(self, backend: str) -> Callable[[], torch.Tensor]:
        """A run of the forward solve alone."""
        y0, ts = torch.tensor(self.y0), torch.tensor(self.ts)

        def run() -> torch.Tensor:
            with torch.no_grad():
                return solve(self.model, y0, ts, rtol=self.rtol, atol=self.atol, backend=backend).ys

        return run


def w1() -> Workload:
    """One sample, 40 logarithmic times to 1e5."""
    ts = np.concatenate([[0.0], np.logspace(-5, 5, 40)])
    return Workload("W1", Robertson(), np.array([1.0, 0.0, 0.0]), ts, 1e-6, 1e-10)


def w2(batch: int = BATCH) -> Workload:
    """A batch on the simplex that the reactions conserve, with the network, 20 logarithmic times to 100."""
    a = np.random.default_rng(1).uniform(0.8, 1.0, batch)
    y0 = np.stack([a, np.zeros(batch), 1 - a], axis=1)
    ts = np.concatenate([[0.0], np.logspace(-3, 2, 20)])
    return Workload("W2", RobertsonNet(), y0, ts, 1e-6, 1e-9)
