"""What the hare-lynx task says and draws after the training."""

from __future__ import annotations

from typing import Any

import torch

from hybridsam_bridge.diagnostics.share import Share, explained_share
from hybridsam_bridge.models.initial_value import InitialValueModel
from hybridsam_bridge.tasks.base import Task
from hybridsam_bridge.tasks.hare_lynx.model import PUBLISHED, LotkaVolterra, rates
from hybridsam_bridge.train.runs import RunFolder
from hybridsam_bridge.train.trainer import FitResult

SPECIES = ("hare", "lynx")
COLOURS = ("#b5651d", "#3b6ea5")


def report(task: Task, folder: RunFolder, result: FitResult, prepared: dict[str, Any]) -> dict[str, Any]:
    """Rates of the hybrid, of the science alone and of the published fit; the figure ``fit.png``."""
    batch = task.data.whole()
    with torch.no_grad():
        loss = float(task.loss_fn(task.model, batch))
        fine = torch.linspace(0.0, float(task.data.ts[-1]), 401, dtype=torch.float64)
        hybrid = task.model.solve(fine).ys
        alone = _science_alone(task, prepared).solve(fine).ys
    share = explained_share(task.model.field, fine, hybrid)
    figure = folder.path / "fit.png"
    _draw(figure, task, fine, hybrid, alone, share)
    shares = dict(zip(SPECIES, share.total.tolist(), strict=True))
    text = _table(rates(task.model), prepared["rates"])
    text += f"\nloss (mean negative log-likelihood): hybrid {loss:.4f}, science only {prepared['loss']:.4f}"
    text += f"\nshare of the growth that the network explains: hare {shares['hare']:.1%}, lynx {shares['lynx']:.1%}"
    return {
        "rates": rates(task.model),
        "science_only": prepared,
        "published": PUBLISHED,
        "loss": loss,
        "network_share": shares,
        "figure": figure.name,
        "text": text,
    }


def _science_alone(task: Task, prepared: dict[str, Any]) -> InitialValueModel:
    y0 = torch.tensor(prepared["initial"], dtype=torch.float64)
    return InitialValueModel(LotkaVolterra(**prepared["rates"]), y0, **task.model.solver)


def _table(hybrid: dict[str, float], science: dict[str, float]) -> str:
    lines = [f"{'rate':<8}{'hybrid':>10}{'science only':>15}{'published':>12}"]
    lines += [f"{name:<8}{hybrid[name]:>10.4f}{science[name]:>15.4f}{PUBLISHED[name]:>12.3f}" for name in PUBLISHED]
    return "\n".join(lines)


def _draw(path: Any, task: Task, ts: torch.Tensor, hybrid: torch.Tensor, alone: torch.Tensor, share: Share) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, 1, sharex=True, height_ratios=(2, 2, 1.5))
    years = 1900 + ts
    for i, (name, colour) in enumerate(zip(SPECIES, COLOURS, strict=True)):
        axes[i].plot(1900 + task.data.ts, task.data.y[0, :, i], "o", color="black", label="pelts", markersize=4)
        axes[i].plot(years, alone[:, i], "--", color="grey", label="science only")
        axes[i].plot(years, hybrid[:, i], color=colour, label="hybrid")
        axes[i].set_ylabel(f"{name} (thousand)")
        axes[i].legend(loc="upper right", frameon=False)
        axes[2].plot(years, share.science[:, i] / hybrid[:, i], "--", color=colour, linewidth=1)
        label = f"{name}: network {float(share.total[i]):.1%} of the whole"
        axes[2].plot(years, share.neural[:, i] / hybrid[:, i], color=colour, label=label)
    axes[2].set_ylabel("growth rate (1/year)\ndashed: science\nsolid: network")
    axes[2].set_xlabel("year")
    axes[2].legend(loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=2, frameon=False)
    axes[2].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(path, dpi=120)
