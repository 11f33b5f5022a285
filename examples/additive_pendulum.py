"""Additive: a pendulum whose friction is missing from the equations; a network in the right-hand side finds it.

The frequency is identified because SAM keeps the network simple. Run: python examples/additive_pendulum.py
"""

from __future__ import annotations

import sys

import torch
from torch import nn

import hybridsam_bridge as hsb

OMEGA2, FRICTION = 1.1, 0.3


class Pendulum(hsb.VectorField):
    """angle'' = -omega2 sin(angle) - friction * velocity."""

    state_shape = (2,)

    def __init__(self, omega2: float, friction: float = 0.0):
        super().__init__()
        self.p = hsb.ParameterSet(omega2=hsb.Param(omega2, transform="log", unit="1/s²"))
        self.friction = friction

    def forward(self, t, y, context=None):
        return torch.stack([y[1], -self.p.omega2 * torch.sin(y[0]) - self.friction * y[1]])


def measure(samples: int) -> hsb.Trajectories:
    """Noisy windows of ten points from random initial states."""
    generator = torch.Generator().manual_seed(1)
    y0 = torch.randn(samples, 2, dtype=torch.float64, generator=generator)
    ts = torch.linspace(0.0, 2.0, 10, dtype=torch.float64)
    with torch.no_grad():
        y = hsb.solve(Pendulum(OMEGA2, FRICTION), y0, ts).ys
    return hsb.Trajectories(ts, y + 0.01 * torch.randn(y.shape, dtype=y.dtype, generator=generator), y0=y0)


def main(short: bool = False) -> dict[str, float]:
    """Train and print; returns the numbers printed."""
    torch.manual_seed(0)
    data = measure(4 if short else 32)
    network = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)).double()
    field = hsb.Additive(Pendulum(0.7), network, mask=[False, True])  # only the velocity's equation is incomplete
    model = hsb.InitialValueModel(field, rtol=1e-5, atol=1e-7)
    optimizer = hsb.SAM(torch.optim.Adam(model.parameters(), lr=1e-2), rho=0.05, perturb=hsb.neural_parameters(model))
    trainer = hsb.Trainer(model, optimizer, hsb.DataLoss(hsb.Gaussian(0.1)), progress=not short)
    result = trainer.fit(data, steps=3 if short else 400, batch_size=None if short else 16)
    share = hsb.explained_share(field, model.last.ts, model.last.ys)
    found = {"omega2": float(field.science.p.omega2.detach()), "loss": result.best, "share": float(share.total[1])}
    print(f"omega2 {found['omega2']:.3f} (true {OMEGA2}); the network makes {found['share']:.1%} of the acceleration")
    return found


if __name__ == "__main__":
    main("--short" in sys.argv)
