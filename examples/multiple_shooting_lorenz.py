"""Multiple shooting: the Lorenz system over twenty time units, where one long solve forgets where it started.

Run: python examples/multiple_shooting_lorenz.py
"""

from __future__ import annotations

import sys

import torch

import hybridsam_bridge as hsb

TRUE = {"sigma": 10.0, "rho": 28.0, "beta": 8 / 3}


class Lorenz(hsb.VectorField):
    state_shape = (3,)

    def __init__(self, **values: float):
        super().__init__()
        self.p = hsb.ParameterSet(**{name: hsb.Param(value, transform="log") for name, value in values.items()})

    def forward(self, t, y, context=None):
        p = self.p
        return torch.stack([p.sigma * (y[1] - y[0]), y[0] * (p.rho - y[2]) - y[1], y[0] * y[1] - p.beta * y[2]])


def main(short: bool = False) -> dict[str, float]:
    """Train and print; returns the parameters found."""
    torch.manual_seed(0)
    ts = torch.linspace(0, 2.0 if short else 20.0, 41 if short else 401, dtype=torch.float64)
    y0 = torch.tensor([[-8.0, 7.0, 27.0]], dtype=torch.float64)
    with torch.no_grad():
        y = hsb.solve(Lorenz(**TRUE), y0, ts, rtol=1e-9, atol=1e-9).ys
    data = hsb.Trajectories(ts, y + 0.1 * torch.randn_like(y))
    model = hsb.InitialValueModel(Lorenz(sigma=7.0, rho=20.0, beta=2.0), rtol=1e-5, atol=1e-5)
    loss = hsb.MultipleShooting(model, data, segments=5 if short else 50, noise=hsb.Gaussian(1.0), autonomous=True)
    parameters = [{"params": model.parameters()}, {"params": loss.parameters(), "lr": 1e-2}]
    trainer = hsb.Trainer(model, torch.optim.Adam(parameters, lr=3e-2), loss, progress=not short)
    trainer.fit(data, steps=3 if short else 200)
    found = {name: value for name, (value, _) in hsb.physical_values(model).items()}
    print("  ".join(f"{name} {value:.3f} (true {TRUE[name]:.3f})" for name, value in found.items()))
    return found


if __name__ == "__main__":
    main("--short" in sys.argv)
