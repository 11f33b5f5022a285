"""Figures of fits and diagnostics. Each is returned, and saved where a path is given; no display is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hybridsam_bridge.diagnostics.identifiability import Identifiability
from hybridsam_bridge.diagnostics.profile import Profile
from hybridsam_bridge.diagnostics.share import Share
from hybridsam_bridge.diagnostics.sharpness import Sharpness
from hybridsam_bridge.errors import InvalidInput

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Where = str | Path | None


def plot_fit(
    ts: torch.Tensor,
    measured: torch.Tensor,
    fits: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    *,
    names: Sequence[str] = (),
    path: Where = None,
) -> Figure:
    """Data and fits of one trajectory, a panel for each observable.

    Args:
        ts: (T,), measured: (T, m), NaN where missing. fits: label -> (times (K,), prediction (K, m)).
    """
    if measured.ndim != 2 or len(measured) != len(ts):
        raise InvalidInput(f"measured: must be (T, m) with T = {len(ts)}, got shape {tuple(measured.shape)}.")
    count = measured.shape[1]
    figure, axes = _panels(count, height=2.2)
    for i, axis in enumerate(axes):
        axis.plot(_array(ts), _array(measured)[:, i], "o", color="black", markersize=4, label="data")
        for label, (times, prediction) in fits.items():
            axis.plot(_array(times), _array(prediction)[:, i], label=label)
        axis.set_ylabel(names[i] if i < len(names) else f"observable {i}")
    axes[0].legend(frameon=False)
    axes[-1].set_xlabel("time")
    return _done(figure, path)


def plot_share(share: Share, ts: torch.Tensor, *, names: Sequence[str] = (), path: Where = None) -> Figure:
    """Both parts of dy/dt along the first trajectory, a panel for each (flattened) component of the state."""
    total = share.total.reshape(-1)
    science, neural = (part.reshape(-1, len(ts), len(total))[0] for part in (share.science, share.neural))
    figure, axes = _panels(len(total), height=2.2)
    for i, axis in enumerate(axes):
        name = names[i] if i < len(names) else f"component {i}"
        axis.plot(_array(ts), _array(science)[:, i], label="science")
        axis.plot(_array(ts), _array(neural)[:, i], label="network")
        axis.set_title(f"{name}: the network makes {float(total[i]):.1%}", fontsize=10)
        axis.set_ylabel("rate of change")
    axes[0].legend(frameon=False)
    axes[-1].set_xlabel("time")
    return _done(figure, path)


def plot_profiles(profiles: Sequence[Profile], *, path: Where = None) -> Figure:
    """Profile likelihoods; profiles of the same parameter share a panel, so that a network shows its effect."""
    if not profiles:
        raise InvalidInput("profiles: pass at least one.")
    names = list(dict.fromkeys(p.name for p in profiles))
    figure, axes = _panels(len(names), height=2.6, share_x=False)
    for axis, name in zip(axes, names, strict=True):
        own = [p for p in profiles if p.name == name]
        for p in own:
            label = "all refitted" if p.refitted == "all" else "network fixed"
            axis.plot(
                p.values, p.rise, "o-", markersize=3, label=label if p.identified else f"{label} (not identified)"
            )
        axis.axhline(own[0].threshold, color="grey", linestyle="--", linewidth=1)
        axis.set_ylim(0, max(4 * own[0].threshold, 1e-12))
        axis.set_xlabel(f"{name} {f'({own[0].unit})' if own[0].unit else ''}".strip())
        axis.set_ylabel("rise of -log L")
        axis.legend(frameon=False)
    return _done(figure, path)


def plot_intervals(result: Identifiability, *, path: Where = None) -> Figure:
    """Confidence intervals relative to the estimates, with the network free and fixed."""
    figure, axes = _panels(1, height=1.2 + 0.5 * len(result.estimates))
    axis = axes[0]
    for row, e in enumerate(result.estimates.values()):
        size = abs(e.value) or 1.0
        for shift, (low, high), colour in ((0.1, e.interval_alone, "#999999"), (-0.1, e.interval, "#b5651d")):
            ends = np.clip([low / size, high / size], -3.0, 5.0)  # an open interval runs out of the panel
            axis.plot(ends, [row + shift] * 2, color=colour, linewidth=4, solid_capstyle="butt")
        axis.plot([e.value / size], [row], "o", color="black", markersize=4)
    axis.set_yticks(range(len(result.estimates)), list(result.estimates))
    axis.set_xlabel("value / estimate (brown: network free, grey: network fixed)")
    return _done(figure, path)


def plot_sharpness(results: Mapping[str, Sharpness], *, path: Where = None) -> Figure:
    """SAM gaps and top eigenvalues of several models, by part."""
    if not results:
        raise InvalidInput("results: pass at least one.")
    parts = list(dict.fromkeys(part for r in results.values() for part in r.parts))
    figure, axes = _panels(2, height=2.6, share_x=False)
    for axis, key, title in zip(axes, ("gap", "top_eigenvalue"), ("SAM gap", "top Hessian eigenvalue"), strict=True):
        for k, (label, result) in enumerate(results.items()):
            heights = [getattr(result.parts[p], key) if p in result.parts else np.nan for p in parts]
            axis.bar(np.arange(len(parts)) + 0.8 * k / len(results), heights, 0.8 / len(results), label=label)
        axis.set_xticks(np.arange(len(parts)) + 0.4 - 0.4 / len(results), parts)
        axis.set_ylabel(title)
    axes[0].legend(frameon=False)
    return _done(figure, path)


def _panels(count: int, height: float, share_x: bool = True) -> tuple[Figure, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.6 + height * count), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(count, 1, sharex=share_x, squeeze=False)[:, 0])


def _done(figure: Figure, path: Where) -> Figure:
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    return figure


def _array(value: torch.Tensor) -> np.ndarray:
    return value.detach().cpu().double().numpy()
