"""Heat maps of a report. The only file here that imports matplotlib, and only when a figure is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridsam_bridge.trust.spaces import Array

if TYPE_CHECKING:
    from hybridsam_bridge.trust.result import GeneralisationReport


def draw(report: GeneralisationReport, folder: Path) -> list[Path]:
    """skill.png, outside.png and residual.png (if there is a network), drift.png (if there are parameters)."""
    folder.mkdir(parents=True, exist_ok=True)
    bound = max(1.0, float(np.nanmax(np.abs(report.skill), initial=0.0)))
    made = [
        heat_map(
            report.skill,
            report.names,
            folder / "skill.png",
            title="log10(error / error without network)",
            limits=(-bound, bound),
            colours="RdBu_r",
            marks=report.failures,
        )
    ]
    for what, title in (
        ("outside", "share of network inputs out of the visited range"),
        ("residual", "share of network inputs in directions never visited"),
    ):
        values = report.coverage(what)
        if not np.isnan(values).all():
            path = folder / f"{what}.png"
            made.append(heat_map(values, report.names, path, title=title, limits=(0.0, 1.0), colours="viridis"))
    if report.drift:
        made.append(_drift(report, folder / "drift.png"))
    return made


def heat_map(
    values: Array,
    names: list[str],
    path: Path,
    *,
    title: str,
    limits: tuple[float, float],
    colours: str,
    marks: Array | None = None,
) -> Path:
    """A square matrix with its numbers; rows are training spaces. Cells with failed solves say how many."""
    figure, axis = _figure(len(names))
    image = axis.imshow(values, vmin=limits[0], vmax=limits[1], cmap=colours)
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("tested on")
    axis.set_ylabel("trained on")
    axis.set_title(title, fontsize=10)
    for (i, j), value in np.ndenumerate(values):
        text = "" if np.isnan(value) else f"{value:.2f}"
        if marks is not None and marks[i, j] > 0:
            text = f"{text}\n{marks[i, j]:.0%} fail".strip()
        red, green, blue, _ = image.cmap(image.norm(value)) if not np.isnan(value) else (1.0, 1.0, 1.0, 1.0)
        dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
        axis.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    figure.colorbar(image, shrink=0.8)
    figure.savefig(path, dpi=130)
    return path


def _drift(report: GeneralisationReport, path: Path) -> Path:
    figure, axis = _figure(len(report.names))
    for parameter, by_space in report.drift.items():
        found = [(report.names.index(space), *pair) for space, pair in by_space.items()]
        x, mean, spread = (np.array(column) for column in zip(*found, strict=True))
        scale = abs(float(mean.mean())) or 1.0
        axis.errorbar(x, mean / scale, spread / scale, fmt="o-", capsize=3, label=f"{parameter} / {scale:.3g}")
    axis.set_xticks(range(len(report.names)), report.names, rotation=60, ha="right")
    axis.set_xlabel("trained on")
    axis.set_ylabel("parameter over its mean")
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=130)
    return path


def _figure(n: int) -> tuple[Any, Any]:
    # Figure without pyplot: no global state and no window, whatever the backend of the session.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = 3.0 + 0.55 * max(n, 4)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()
