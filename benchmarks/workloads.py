"""The workloads that the benchmarks share: Robertson's kinetics alone (W1) and with a network inside (W2)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import hybridsam_bridge as hsb

W1_TIMES = np.concatenate([[0.0], np.logspace(-5, 5, 40)])
W1_WEIGHTS = np.array([1.0, 1e4, 1.0])
W1_RTOL, W1_ATOL = 1e-6, 1e-10
W2_TIMES = np.concatenate([[0.0], np.logspace(-3, 2, 20)])
W2_RTOL, W2_ATOL = 1e-6, 1e-9
W2_BATCH = 32


class Robertson(hsb.VectorField):
    """Robertson's three reactions; rates k (3,)."""

    state_shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.tensor([0.04, 3e7, 1e4], dtype=torch.float64))

    def forward(self, t, y, context=None):
        k1, k2, k3 = self.k
        a, b, c = y
        return torch.stack([-k1 * a + k3 * b * c, k1 * a - k2 * b * b - k3 * b * c, k2 * b * b])


class RobertsonNet(Robertson):
    """Robertson plus 1e-3 times a 3-64-64-3 tanh network on scaled inputs and outputs."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Linear(3, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 3)
        ).double()
        self.register_buffer("inputs", torch.tensor([1.0, 1e4, 1.0], dtype=torch.float64))
        self.register_buffer("outputs", 1e-3 * torch.tensor([1.0, 1e-4, 1.0], dtype=torch.float64))

    def forward(self, t, y, context=None):
        return super().forward(t, y) + self.outputs * self.net(y * self.inputs)


def w2_initial() -> torch.Tensor:
    """(32, 3) initial states on the mass-conserving simplex, fixed seed."""
    rng = np.random.default_rng(1)
    a = rng.uniform(0.8, 1.0, W2_BATCH)
    return torch.tensor(np.stack([a, np.zeros(W2_BATCH), 1 - a], axis=1))
