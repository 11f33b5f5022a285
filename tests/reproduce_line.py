"""A study without any solve: y = k x + network(x), for tests of what is around a study.

The environment steers what goes wrong: LINE_FAIL (a seed whose build raises), LINE_TERM (a loss evaluation at which
the process asks itself to stop), LINE_KILL (a file: the process that finds it removes it and dies).
"""

from __future__ import annotations

import os
import signal

import torch
from torch import nn

import hybridsam_bridge as hsb
from hybridsam_bridge.objectives.penalties import Penalty
from hybridsam_bridge.reproduce.study import Problem, Study

TRUE = 3.0
calls = 0


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.p = hsb.ParameterSet(k=hsb.Param(2.0))
        self.net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).double()

    def forward(self, x):
        return self.p.k * x + self.net(x)


class Size(Penalty):
    """In place of the functional norm, which looks for an ``hsb.Additive``."""

    def value(self, model, batch):
        return model.net(batch[0]).square().mean()


def loss(model, batch):
    global calls
    calls += 1
    if calls == int(os.environ.get("LINE_TERM", -1)):
        os.kill(os.getpid(), signal.SIGTERM)
    return (model(batch[0]) - batch[1]).square().mean()


def build(seed):
    if seed == int(os.environ.get("LINE_FAIL", -1)):
        raise RuntimeError("no such line")
    trap = os.environ.get("LINE_KILL", "")
    if trap and os.path.exists(trap):
        os.remove(trap)
        os.kill(os.getpid(), signal.SIGKILL)
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for _ in range(3):
        x = torch.rand(8, 1, dtype=torch.float64, generator=generator)
        parts.append((x, TRUE * x + 0.1 * x.sin()))
    train, validation, test = parts

    def score(model):
        assert not model.training, "scores are taken in eval mode"
        k = hsb.physical_values(model)["k"][0]
        return {"theta_error": abs(k - TRUE), "prediction_error": float(loss(model, test))}

    return Problem(Line(), train, validation, loss, score)


def study(quick):
    return Study(
        "line",
        "A line.",
        build,
        train={"steps": 30, "validate_every": 5},
        optimizer={"lr": 0.02},
        quick=quick,
        seeds=2,
        methods=("erm", "functional-norm", "sam"),
        grids={"functional-norm": (1e-3, 100.0), "sam": (0.01, 0.1)},
        penalties={"functional-norm": Size},
        not_applicable={"orthogonality": "the model is no sum of fields"},
    )
