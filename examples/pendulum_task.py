"""A task of one's own, for ``hybridsam-bridge train examples/pendulum.toml``: model and data of additive_pendulum.py.

``build`` gets the options and solver settings of the configuration file and returns an ``hsb.Task``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from torch import nn

import hybridsam_bridge as hsb

sys.path.insert(0, str(Path(__file__).parent))
from additive_pendulum import Pendulum, measure


def build(options: dict, solver: dict) -> hsb.Task:
    """Options: samples (windows of data), width (of the network)."""
    width = options.get("width", 16)
    network = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 2)).double()
    field = hsb.Additive(Pendulum(0.7), network, mask=[False, True])
    model = hsb.InitialValueModel(field, **{"rtol": 1e-5, "atol": 1e-7, **solver})
    return hsb.Task("pendulum", model, hsb.DataLoss(hsb.Gaussian(0.1)), measure(options.get("samples", 32)))
