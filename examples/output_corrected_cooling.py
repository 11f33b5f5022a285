"""OutputCorrected: Newton's cooling is right, the thermometer is not; a network corrects what is read.

Run: python examples/output_corrected_cooling.py
"""

from __future__ import annotations

import sys

import torch
from torch import nn

import hybridsam_bridge as hsb

RATE, ROOM = 0.4, 20.0


class Cooling(hsb.VectorField):
    """d temperature / dt = -rate (temperature - room)."""

    state_shape = (1,)

    def __init__(self, rate: float):
        super().__init__()
        self.p = hsb.ParameterSet(rate=hsb.Param(rate, transform="log", unit="1/min"))

    def forward(self, t, y, context=None):
        return -self.p.rate * (y - ROOM)


class Bend(nn.Module):
    """A small network of the temperature, scaled to order one."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)).double()

    def forward(self, temperature):
        return 5.0 * self.net((temperature - 50.0) / 30.0)


def main(short: bool = False) -> dict[str, float]:
    """Train and print; returns the numbers printed."""
    torch.manual_seed(0)
    ts = torch.linspace(0, 10, 21, dtype=torch.float64)
    y0 = torch.tensor([[90.0], [70.0], [50.0], [35.0]], dtype=torch.float64)
    true = ROOM + (y0[:, None] - ROOM) * torch.exp(-RATE * ts)[None, :, None]
    read = true + 3.0 * torch.sin(true / 15.0)  # the thermometer's error depends on what it shows
    data = hsb.Trajectories(ts, read, y0=y0)
    science = hsb.InitialValueModel(Cooling(0.7), rtol=1e-5, atol=1e-6)
    model = hsb.OutputCorrected(science, Bend())
    optimizer = hsb.SAM(torch.optim.Adam(model.parameters(), lr=2e-2), rho=0.05, perturb=hsb.neural_parameters(model))
    trainer = hsb.Trainer(model, optimizer, hsb.DataLoss(hsb.Gaussian(1.0)), progress=not short)
    result = trainer.fit(data, steps=3 if short else 400)
    found = {"rate": float(science.field.p.rate.detach()), "loss": result.best}
    print(f"rate {found['rate']:.3f} 1/min (true {RATE}); loss {found['loss']:.3f}")
    return found


if __name__ == "__main__":
    main("--short" in sys.argv)
