"""How far to trust a heat equation whose cubic sink a network has learned, pointwise or from the whole state.

A pointwise network serves new shapes and fails at larger amplitudes; a dense one fails on shapes that training never
showed. Run: python examples/trust_heat.py, or: hybridsam-bridge trust examples/trust_heat.py
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

import hybridsam_bridge as hsb
from hybridsam_bridge import trust

N = 12
SOLVER = {"backend": "torch", "rtol": 1e-5, "atol": 1e-7}


class Heat(hsb.VectorField):
    """u_t = D u_xx - sink * u³ on [0, 1], u = 0 at both ends, on N interior points."""

    state_shape = (N,)

    def __init__(self, diffusion: float = 0.03, sink: float = 0.0):
        super().__init__()
        self.p = hsb.ParameterSet(D=hsb.Param(diffusion, transform="log", unit="length²/time"))
        self.sink = sink

    def forward(self, t, y, context=None):
        wide = nn.functional.pad(y, (1, 1))
        return self.p.D * (wide[2:] - 2 * y + wide[:-2]) * (N + 1) ** 2 - self.sink * y**3


class Pointwise(nn.Module):
    """The same small network at every point."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 12), nn.Tanh(), nn.Linear(12, 1)).double()

    def forward(self, y):
        return self.net(y.unsqueeze(-1)).squeeze(-1)


def pointwise(seed: int) -> hsb.Additive:
    torch.manual_seed(seed)
    return hsb.Additive(Heat(), Pointwise())


def dense(seed: int) -> hsb.Additive:
    torch.manual_seed(seed)
    return hsb.Additive(Heat(), nn.Sequential(nn.Linear(N, 24), nn.Tanh(), nn.Linear(24, N)).double())


def trust_report(model=pointwise, iterations: int = 80) -> dict[str, Any]:
    """Arguments of ``hsb.generalisation_report``; ``hybridsam-bridge trust`` calls this."""
    return {
        "model_factory": model,
        "fit": trust.SolverFit(iterations, SOLVER, decay=1e-8),
        "truth": Heat(0.02, sink=1.0),
        "spaces": [
            trust.sine(2),
            trust.sine(6),
            trust.hats(N + 1),
            trust.gaussian_field(0.2),
            trust.sine(2).scaled(2.5, "sine 2, large"),
        ],
        "n_train": 24,
        "n_test": 16,
        "ts": torch.tensor([0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8], dtype=torch.float64),
        "solver": SOLVER,
    }


def main(short: bool = False) -> dict[str, float]:
    """Report on both networks; returns the skill on amplitudes and shapes never trained on."""
    found = {}
    for model in (pointwise,) if short else (pointwise, dense):
        arguments = trust_report(model, 3 if short else 80)
        if short:
            arguments |= {"spaces": arguments["spaces"][::4], "n_train": 2, "n_test": 2, "impulses": 0}
        report = hsb.generalisation_report(**arguments, folder=None if short else f"runs/trust-heat-{model.__name__}")
        print(f"--- {model.__name__} network\n{report.summary()}\n")
        found[model.__name__] = float(report.skill[0, -1])
    return found


if __name__ == "__main__":
    main("--short" in sys.argv)
