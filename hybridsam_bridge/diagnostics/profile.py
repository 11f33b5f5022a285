"""Profile likelihood of a scientific parameter: how much worse the best fit gets as it is moved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from torch import nn

from hybridsam_bridge.errors import InvalidInput, SolveFailed
from hybridsam_bridge.fields.parameters import ParameterSet
from hybridsam_bridge.fields.roles import scientific_parameters
from hybridsam_bridge.objectives.data import Batch, DataLoss


@dataclass(frozen=True)
class Profile:
    """Profile of one parameter.

    Attributes:
        name, unit: of the parameter. values: physical values, increasing.
        rise: negative log-likelihood above the lowest one found, refitted at each value; nan where no fit was
            possible.
        threshold: the rise at which the confidence interval ends. interval: where the profile crosses it, linear
            between values; infinite on a side where it never does, within the values tried.
        refitted: "all" or "science".
    """

    name: str
    unit: str
    values: np.ndarray
    rise: np.ndarray
    threshold: float
    interval: tuple[float, float]
    refitted: str

    @property
    def identified(self) -> bool:
        """Whether the profile rises above the threshold on both sides."""
        return all(math.isfinite(end) for end in self.interval)


def profile_likelihood(
    model: nn.Module,
    loss: DataLoss,
    batch: Batch,
    name: str,
    values: Sequence[float],
    *,
    refit: str = "all",
    iterations: int = 20,
    level: float = 0.95,
) -> Profile:
    """Fix a declared scalar parameter at each of ``values`` and refit the rest by L-BFGS, outward from the optimum.

    The model should be at its best fit. It is left as it was.

    Args:
        name: as declared. values: physical, at least three.
        refit: "all", or "science" to leave the network as it is.
        iterations: of L-BFGS at each value.
        level: of the interval; its threshold is half the chi-squared quantile of one degree of freedom.

    Raises:
        InvalidInput: no such scalar parameter, or too few values.
    """
    owner = _owner(model, name)
    points = np.unique(np.asarray(values, dtype=np.float64))
    if len(points) < 3 or not np.isfinite(points).all():
        raise InvalidInput("values: at least three different finite values are needed.")
    if refit not in ("all", "science"):
        raise InvalidInput(f'refit={refit!r} is not known. Known: "all", "science".')
    kept = {key: value.detach().clone() for key, value in model.state_dict().items()}
    raw = getattr(owner, f"raw_{name}")
    free = [p for p in (model.parameters() if refit == "all" else scientific_parameters(model)) if p is not raw]
    best = float(getattr(owner, name).detach())
    with torch.no_grad():
        lowest = float(loss.total(model, batch))
    needed = raw.requires_grad
    found = np.full(len(points), np.nan)
    try:
        raw.requires_grad_(False)
        middle = int(np.searchsorted(points, best))
        for side in (range(middle, len(points)), range(middle - 1, -1, -1)):
            model.load_state_dict(kept)
            for i in side:
                owner.assign(**{name: float(points[i])})
                found[i] = _refit(model, loss, batch, free, iterations)
                if math.isnan(found[i]):
                    break
    finally:
        raw.requires_grad_(needed)
        model.load_state_dict(kept)
    rise = found - min(lowest, float(np.nanmin(found)) if np.isfinite(found).any() else lowest)
    threshold = NormalDist().inv_cdf(0.5 + level / 2) ** 2 / 2  # chi-squared with one degree of freedom
    return Profile(
        name, owner.declared[name].unit, points, rise, threshold, _interval(points, rise, best, threshold), refit
    )


def _owner(model: nn.Module, name: str) -> ParameterSet:
    owners = [sub for sub in model.modules() if isinstance(sub, ParameterSet) and name in sub.declared]
    if len(owners) != 1 or getattr(owners[0], f"raw_{name}").numel() != 1:
        known = [n for sub in model.modules() if isinstance(sub, ParameterSet) for n in sub.declared]
        raise InvalidInput(f"name: {name!r} must be one declared scalar parameter. Declared: {', '.join(known)}.")
    return owners[0]


def _refit(model: nn.Module, loss: DataLoss, batch: Batch, free: Sequence[nn.Parameter], iterations: int) -> float:
    optimizer = torch.optim.LBFGS(free, max_iter=iterations, line_search_fn="strong_wolfe") if free else None

    def closure() -> torch.Tensor:
        assert optimizer is not None, "called by the optimizer"
        optimizer.zero_grad()
        value = loss.total(model, batch)
        value.backward()
        return value

    try:
        if optimizer is not None:
            with torch.enable_grad():
                optimizer.step(closure)
            optimizer.zero_grad()
        with torch.no_grad():
            return float(loss.total(model, batch))
    except SolveFailed:
        return math.nan


def _interval(values: np.ndarray, rise: np.ndarray, best: float, threshold: float) -> tuple[float, float]:
    ends = []
    for sign, side in ((-1, values[values < best][::-1]), (1, values[values >= best])):
        end, before = sign * math.inf, (best, 0.0)
        for value in side:
            height = float(rise[np.searchsorted(values, value)])
            if math.isnan(height):
                break
            if height >= threshold:
                end = before[0] + (value - before[0]) * (threshold - before[1]) / (height - before[1])
                break
            before = (float(value), max(height, 0.0))
        ends.append(float(end))
    return ends[0], ends[1]
