"""Composed: network of science of network, without any solve.

Two polarisers stand at an angle that a bent dial shows; behind them the light follows Malus' law and is read by a
sensor that saturates. Networks take care of dial and sensor, the law stays a law: its parameter, the offset
between the polarisers, is in degrees. Run: python examples/composed_malus.py
"""

from __future__ import annotations

import math
import sys

import torch
from torch import nn

import hybridsam_bridge as hsb

OFFSET = 12.0


class Dial(nn.Module):
    """Shown angle -> true angle, in radians: the identity plus a small odd network.

    Were it not odd, the network could turn the dial, and no data would tell that from the offset.
    """

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)).double()

    def forward(self, shown):
        return shown + 0.05 * (self.net(shown) - self.net(-shown))


class Malus(nn.Module):
    """Intensity behind both polarisers, as a share of that between them: cos²(angle - offset)."""

    def __init__(self):
        super().__init__()
        self.p = hsb.ParameterSet(offset=hsb.Param(0.0, scale=10.0, unit="degree"))

    def forward(self, angle):
        return torch.cos(angle - self.p.offset * math.pi / 180) ** 2


class Sensor(nn.Module):
    """Intensity -> reading: the identity plus a small network."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)).double()

    def forward(self, intensity):
        return intensity + 0.3 * self.net(intensity)


def main(short: bool = False) -> dict[str, float]:
    """Train and print; returns the numbers printed."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a second thread only costs with tensors this small
    shown = torch.linspace(-1.5, 1.5, 200, dtype=torch.float64)[:, None]
    true = shown + 0.03 * torch.sin(3 * shown)
    reading = torch.tanh(1.2 * torch.cos(true - math.radians(OFFSET)) ** 2)
    model = hsb.Composed(Dial(), Malus(), Sensor(), roles=["neural", "science", "neural"])

    def loss(model, batch):
        return ((model(batch) - reading) ** 2).mean() / 0.01**2

    optimizer = hsb.SAM(torch.optim.Adam(model.parameters(), lr=1e-2), rho=0.05, perturb=hsb.neural_parameters(model))
    trainer = hsb.Trainer(model, optimizer, loss, progress=not short, log_every=50)
    result = trainer.fit(shown, steps=10 if short else 2000)
    found = {"offset": float(model.stages[1].p.offset.detach()), "loss": result.best}
    print(f"offset {found['offset']:.2f} degrees (true {OFFSET}); root mean square misfit {found['loss'] ** 0.5:.2f} %")
    return found


if __name__ == "__main__":
    main("--short" in sys.argv)
