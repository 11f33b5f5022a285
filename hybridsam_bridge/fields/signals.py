"""Exogenous inputs: signals known at given times, evaluated inside a right-hand side."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hybridsam_bridge.errors import InvalidInput

INTERPOLATIONS = ("linear", "previous")
OUTSIDE = ("hold", "fail")


class SampledSignal(nn.Module):
    """An input sampled at fixed times, its values handed over in ``context``.

        class Tank(hsb.VectorField):
            state_shape = (1,)
            def __init__(self):
                super().__init__()
                self.inflow = hsb.SampledSignal(torch.arange(0.0, 24.0), "previous")
            def forward(self, t, y, context=None):        # context: (24,), the inflow of one sample
                return self.inflow(t, context) - 0.3 * y.sqrt()

    Args:
        times: ``(K,)`` strictly increasing, in the model's unit of time; the same for all samples.
        interpolation: "linear", or "previous": the latest value at or before t, so that it jumps at ``times``.
        outside: before the first and after the last time "hold" takes the nearest value; "fail" gives NaN, at which
            a solve stops with ``SolveFailed`` and the time (a margin of 1e-9 of the span allows for rounding).

    The steps of the Julia and torch backends end at the jumps of a "previous" signal, and each sees the value on its
    own side; SciPy's methods find a jump by their error control. Gradients flow to the values and to t; the times
    themselves are fixed.

    Raises:
        InvalidInput: the times do not increase, or a name is unknown.
    """

    times: torch.Tensor

    def __init__(self, times: Any, interpolation: str = "linear", outside: str = "hold"):
        super().__init__()
        knots = torch.as_tensor(times).detach().to(torch.float64).clone()
        if knots.ndim != 1 or len(knots) < 2 or not bool(torch.isfinite(knots).all() and (knots.diff() > 0).all()):
            raise InvalidInput(f"times: must be two or more finite, strictly increasing numbers, got {times!r}.")
        if interpolation not in INTERPOLATIONS:
            raise InvalidInput(f"interpolation={interpolation!r} is not known. Known: {', '.join(INTERPOLATIONS)}.")
        if outside not in OUTSIDE:
            raise InvalidInput(f"outside={outside!r} is not known. Known: {', '.join(OUTSIDE)}.")
        self.interpolation = interpolation
        self.outside = outside
        margin = 1e-9 * float(knots[-1] - knots[0])
        self._range = (float(knots[0]) - margin, float(knots[-1]) + margin)
        self.register_buffer("times", knots)

    @property
    def jumps(self) -> torch.Tensor:
        """Times at which the signal may jump ("previous") or its slope does ("linear"): all but the ends."""
        return self.times[1:] if self.interpolation == "previous" else self.times[1:-1]

    def forward(self, t: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """The signal at the 0-d time t: ``values`` (K, *any) -> (*any)."""
        if not isinstance(values, torch.Tensor) or not values.ndim or len(values) != len(self.times):
            got = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
            raise InvalidInput(f"values: must be (K, *any), one row for each of {len(self.times)} times; got {got}.")
        weights = self._weights(t).to(values.dtype)
        if values.ndim == 1:
            return weights @ values
        return (weights @ values.reshape(len(values), -1)).reshape(values.shape[1:])

    def _weights(self, t: torch.Tensor) -> torch.Tensor:
        """(K,), one or two of them not zero: comparisons in place of a search, so that it is traced."""
        start, end = self.times[:-1], self.times[1:]
        one, zero = torch.ones_like(self.times[:1]), torch.zeros_like(self.times[:1])
        # How much of each interval lies before t, 0..1; at a knot the interval above it is the one that counts,
        # which makes the derivative by t the slope to its right.
        passed = (t >= end).to(self.times.dtype)
        if self.interpolation == "linear":
            passed = torch.where((t >= start) & (t < end), (t - start) / (end - start), passed)
        weights = torch.cat([one, passed]) - torch.cat([passed, zero])
        if self.outside == "fail":
            low, high = self._range
            inside = (t >= low) & (t <= high)
            weights = torch.where(inside, weights, torch.nan)
        return weights
