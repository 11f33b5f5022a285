"""ParameterEncoder: every batch of a reaction has a rate of its own, which a network reads off its temperature.

The rates follow Arrhenius' law, which the network is not told. Run: python examples/parameter_encoder_reaction.py
"""

from __future__ import annotations

import sys

import torch
from torch import nn

import hybridsam_bridge as hsb


class Reaction(hsb.VectorField):
    """A -> B -> C; the first rate is the sample's own (context), the second one is common."""

    state_shape = (3,)

    def __init__(self):
        super().__init__()
        self.p = hsb.ParameterSet(k2=hsb.Param(1.0, transform="log", unit="1/s"))

    def forward(self, t, y, context=None):
        first, second = context[0] * y[0], self.p.k2 * y[1]
        return torch.stack([-first, first - second, second])


def arrhenius(temperature: torch.Tensor) -> torch.Tensor:
    """The true first rate at a temperature in kelvin, 1/s."""
    return 2.0 * torch.exp(-3000.0 * (1 / temperature - 1 / 350.0))


def main(short: bool = False) -> dict[str, float]:
    """Train and print; returns the numbers printed."""
    torch.manual_seed(0)
    temperature = torch.linspace(300.0, 380.0, 4 if short else 16, dtype=torch.float64)[:, None]
    ts = torch.linspace(0, 5, 11, dtype=torch.float64)
    y0 = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).expand(len(temperature), 3)
    truth = Reaction()
    truth.p.assign(k2=0.5)
    with torch.no_grad():
        y = hsb.solve(truth, y0, ts, context=arrhenius(temperature)).ys
    data = hsb.Trajectories(ts, y, y0=y0, inputs=(temperature - 340.0) / 25.0)

    encoder = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    model = hsb.ParameterEncoder(
        hsb.InitialValueModel(Reaction(), rtol=1e-5, atol=1e-7),
        encoder,
        parameters={"k1": hsb.Param(1.0, transform="log", unit="1/s")},
    )
    optimizer = hsb.SAM(torch.optim.Adam(model.parameters(), lr=2e-2), rho=0.02, perturb=hsb.neural_parameters(model))
    trainer = hsb.Trainer(model, optimizer, hsb.DataLoss(hsb.Gaussian(0.1)), progress=not short)
    result = trainer.fit(data, steps=3 if short else 300)
    with torch.no_grad():
        k1 = model.encode(data.given["inputs"])["k1"]
    error = float((k1 / arrhenius(temperature) - 1).abs().max())
    found = {"k2": float(model.model.field.p.k2.detach()), "worst_k1": error, "loss": result.best}
    print(f"k2 {found['k2']:.3f} 1/s (true 0.5); k1 is off by {error:.1%} at worst")
    return found


if __name__ == "__main__":
    main("--short" in sys.argv)
