"""Figures of a study: θ error against prediction error by method, and a canvas for the tasks' own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hybridsam_bridge.reproduce.methods import METHODS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def axes_grid(rows: int, columns: int, width: float = 6.0, height: float = 4.0) -> tuple[Figure, np.ndarray]:
    """A figure that needs no display, and its axes as a 2-D array; width and height of a panel in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def comparison(summary: dict[str, Any]) -> Figure:
    """A small point a seed, a large one for each method's mean; sharpness-aware methods are filled."""
    figure, ((axis,),) = axes_grid(1, 1)
    for k, (name, method) in enumerate(summary["methods"].items()):
        if "theta_error" not in method:
            continue
        colour = f"C{k}"
        x, y = method["prediction_error"], method["theta_error"]
        axis.plot(x["values"], y["values"], ".", color=colour, alpha=0.5)
        face = colour if METHODS[name].sharpness_aware else "none"
        axis.plot(x["mean"], y["mean"], "o", color=colour, markerfacecolor=face, markersize=9, label=method["label"])
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel(summary["labels"]["prediction_error"])
    axis.set_ylabel(summary["labels"]["theta_error"])
    axis.set_title(summary["study"])
    axis.legend(frameon=False, fontsize=8)
    return figure
