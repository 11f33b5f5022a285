"""The main job from Python, and what its result is worth: shares, sharpness, identifiability.

``hybridsam-bridge train`` does the first half of it. Run: python examples/hare_lynx.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import hybridsam_bridge as hsb
from hybridsam_bridge.diagnostics import plots
from hybridsam_bridge.tasks.hare_lynx.task import build, fit_science


def main(short: bool = False, folder: str | Path = "runs/hare_lynx_example") -> dict[str, float]:
    """Train, judge and draw; returns the numbers printed."""
    torch.manual_seed(0)
    task = build({}, {})
    model, batch = task.model, task.data.whole()
    fit_science(task, progress=not short)

    optimizer = hsb.SAM(torch.optim.Adam(model.parameters(), lr=5e-3), rho=0.05, perturb=hsb.neural_parameters(model))
    trainer = hsb.Trainer(model, optimizer, task.loss_fn, progress=not short, run_folder=folder)
    trainer.fit(task.data, steps=3 if short else 300)

    fine = torch.linspace(0, 20, 201, dtype=torch.float64)
    with torch.no_grad():
        ys = model.solve(fine).ys
    share = hsb.explained_share(model.field, fine, ys)
    trust = hsb.identifiability(model, task.loss_fn, batch, prior=1.0)
    sharp = hsb.sharpness(model, task.loss_fn, batch, curvature=not short)
    print(trust.text())
    print(f"SAM gap of the network {sharp.parts['neural'].gap:.3g}, of the science {sharp.parts['science'].gap:.3g}")

    out = Path(folder)
    plots.plot_fit(task.data.ts, task.data.y[0], {"hybrid": (fine, ys)}, names=["hare", "lynx"], path=out / "fit.png")
    plots.plot_share(share, fine, names=["hare", "lynx"], path=out / "share.png")
    plots.plot_intervals(trust, path=out / "intervals.png")
    return {name: e.value for name, e in trust.estimates.items()}


if __name__ == "__main__":
    main("--short" in sys.argv)
