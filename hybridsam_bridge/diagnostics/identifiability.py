"""Whether the data determine the scientific parameters, with the network there and without it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import nn

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.fields.parameters import ParameterSet
from hybridsam_bridge.fields.roles import neural_parameters
from hybridsam_bridge.objectives.data import Batch, DataLoss


@dataclass(frozen=True)
class Estimate:
    """One declared scientific parameter.

    Attributes:
        name, value, unit: as declared, physical.
        interval: confidence interval with the network free, physical; (lower, upper).
        interval_alone: the same with the network held fixed.
        kept: share of the information about it that is left when the network is free: 1 where the network
            cannot imitate it, 0 where it can do so entirely.
        identified: whether the data determine it with the network free.
    """

    name: str
    value: float
    unit: str
    interval: tuple[float, float]
    interval_alone: tuple[float, float]
    kept: float
    identified: bool


@dataclass(frozen=True)
class Identifiability:
    """Result of ``identifiability``: ``estimates`` by name, the Fisher matrices, and plain warnings.

    ``fisher`` is that of the trained numbers of the science with the network free (the Schur complement),
    ``fisher_alone`` with the network fixed; rows in the order of ``names``.
    """

    estimates: dict[str, Estimate]
    names: list[str]
    fisher: np.ndarray
    fisher_alone: np.ndarray
    warnings: list[str]

    def text(self) -> str:
        """A table and the warnings."""
        lines = [f"{'parameter':<14}{'value':>12}{'interval':>26}{'network fixed':>26}{'kept':>7}"]
        for e in self.estimates.values():
            spans = [f"{low:.4g} .. {high:.4g}" for low, high in (e.interval, e.interval_alone)]
            lines.append(f"{e.name:<14}{e.value:>12.5g}{spans[0]:>26}{spans[1]:>26}{e.kept:>7.0%}")
        return "\n".join([*lines, *self.warnings])


def identifiability(
    model: nn.Module, loss: DataLoss, batch: Batch, *, level: float = 0.95, prior: float = 0.0
) -> Identifiability:
    """Fisher information of the declared scientific parameters at the model's weights.

    F = Jᵀ W J with J the derivative of the predictions (one vjp of the solve a measured value) and W the
    information that the noise model says a value carries. With the network free, its directions are projected
    out: F_θθ - F_θφ F_φφ⁺ F_φθ. Intervals are Wald intervals of the trained numbers, mapped to physical units.

    Args:
        loss: its noise model and its way to predict are used, not its penalties.
        level: of the confidence intervals.
        prior: added to the diagonal of F_φφ: the information that a penalty, such as weight decay, has about each
            weight of the network.

    Raises:
        InvalidInput: the model declares no scientific parameters (see ``hsb.ParameterSet``).
    """
    if not 0 < level < 1:
        raise InvalidInput(f"level: must be between 0 and 1, got {level!r}.")
    entries = _declared_entries(model)
    theta = list({id(e.raw): e.raw for e in entries}.values())
    phi = [p for p in neural_parameters(model) if all(p is not t for t in theta)]
    jacobian = _weighted_jacobian(model, loss, batch, [*theta, *phi])
    count = sum(p.numel() for p in theta)
    j_theta, j_phi = jacobian[:, :count], jacobian[:, count:]
    alone = j_theta.T @ j_theta
    fisher = alone - _explained_by_network(j_theta, j_phi, prior)
    quantile = NormalDist().inv_cdf(0.5 + level / 2)
    spread, spread_alone = _spreads(fisher), _spreads(alone)
    estimates = {}
    for i, entry in enumerate(entries):
        kept = float(fisher[i, i] / alone[i, i]) if alone[i, i] > 0 else 0.0
        estimates[entry.name] = Estimate(
            entry.name,
            entry.physical(0.0),
            entry.unit,
            entry.interval(quantile * spread[i]),
            entry.interval(quantile * spread_alone[i]),
            min(max(kept, 0.0), 1.0),
            entry.known(spread[i]),
        )
    warnings = [_warn(e, entry.known(s)) for e, entry, s in zip(estimates.values(), entries, spread_alone, strict=True)]
    return Identifiability(estimates, [e.name for e in entries], fisher, alone, [text for text in warnings if text])


@dataclass(frozen=True)
class _Entry:
    """One number of one declared parameter."""

    name: str
    unit: str
    raw: nn.Parameter
    index: int
    forward: Callable[[torch.Tensor], torch.Tensor]
    transform: str

    def physical(self, shift: float) -> float:
        moved = self.raw.detach().reshape(-1)[self.index] + shift
        return float(self.forward(moved))

    def interval(self, half: float) -> tuple[float, float]:
        ends = sorted((self.physical(-half), self.physical(half))) if math.isfinite(half) else self._everything()
        return ends[0], ends[1]

    def _everything(self) -> list[float]:
        return sorted((self.physical(-math.inf), self.physical(math.inf)))

    def known(self, spread: float) -> bool:
        """Known at all: within a factor of e for log, a fifth of the range for logit, its own size else."""
        if not math.isfinite(spread):
            return False
        if self.transform == "identity":
            return spread <= max(abs(float(self.raw.detach().reshape(-1)[self.index])), 1e-300)
        return spread <= 1.0


def _declared_entries(model: nn.Module) -> list[_Entry]:
    sets = [(path, sub) for path, sub in model.named_modules() if isinstance(sub, ParameterSet)]
    names = [name for _, sub in sets for name in sub.declared]
    entries = []
    for path, sub in sets:
        for name, declaration in sub.declared.items():
            raw = getattr(sub, f"raw_{name}")
            label = name if names.count(name) == 1 else f"{path}.{name}"
            for k in range(raw.numel()):
                full = label if raw.numel() == 1 else f"{label}[{k}]"
                entries.append(_Entry(full, declaration.unit, raw, k, declaration.forward, declaration.transform))
    if not entries:
        raise InvalidInput("model: declares no scientific parameters; declare them with hsb.ParameterSet.")
    return entries


def _weighted_jacobian(model: nn.Module, loss: DataLoss, batch: Batch, params: Sequence[torch.Tensor]) -> np.ndarray:
    """sqrt(information) * d prediction / d parameter: (measured values, parameters)."""
    with torch.enable_grad():
        predicted = loss.predict(model, batch)
        predicted = predicted.expand(batch["y"].shape) if predicted.ndim < batch["y"].ndim else predicted
        weight = loss.noise.information(predicted.detach()).sqrt().expand(predicted.shape)
        used = predicted[batch["mask"]]
        rows = []
        for value, w in zip(used, weight[batch["mask"]], strict=True):
            grads = torch.autograd.grad(value, params, retain_graph=True, allow_unused=True)
            flat = [torch.zeros(p.numel()) if g is None else g.reshape(-1) for g, p in zip(grads, params, strict=True)]
            rows.append(torch.cat([g.double() for g in flat]) * w)
    return torch.stack(rows).numpy()


def _explained_by_network(j_theta: np.ndarray, j_phi: np.ndarray, prior: float) -> Any:
    """F_θφ (F_φφ + prior)⁺ F_φθ by the singular values of J_φ, so that no square is taken twice."""
    if not j_phi.size:
        return np.zeros((j_theta.shape[1],) * 2)
    u, s, _ = np.linalg.svd(j_phi, full_matrices=False)
    used = s > s.max() * 1e-10 if s.size and s.max() > 0 else np.zeros(len(s), bool)
    share = s[used] ** 2 / (s[used] ** 2 + prior)
    projected = u[:, used].T @ j_theta
    return projected.T @ (share[:, None] * projected)


def _spreads(fisher: np.ndarray) -> np.ndarray:
    """Standard deviations; infinite along directions without information."""
    values, vectors = np.linalg.eigh((fisher + fisher.T) / 2)
    floor = max(values.max(), 0.0) * 1e-12
    inverse = np.full(len(values), np.inf)
    inverse[values > floor] = 1.0 / values[values > floor]
    parts = np.where(vectors**2 > 1e-12, vectors**2, 0.0)
    terms = np.multiply(parts, inverse[None, :], where=parts > 0, out=np.zeros_like(parts))
    return np.sqrt(terms.sum(axis=1))


def _warn(estimate: Estimate, known_alone: bool) -> str:
    if estimate.identified:
        return ""
    if known_alone:
        return (
            f"{estimate.name} is not identified: with the network free the data leave it open "
            f"({estimate.interval[0]:.3g} .. {estimate.interval[1]:.3g}), since the network can imitate it."
        )
    return f"{estimate.name} is not identified, even with the network fixed: the data do not tell it."
