"""How measurements scatter about the prediction: negative log-likelihoods, entry by entry."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import nn

from hybridsam_bridge.errors import InvalidInput

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


class Noise(nn.Module):
    """Base of the noise models.

    Args:
        sigma: width, a number or a tensor that broadcasts to one observation; see each model for its unit.
        fitted: train log sigma (pass the module's parameters to the optimizer).
    """

    def __init__(self, sigma: float | torch.Tensor = 1.0, fitted: bool = False):
        super().__init__()
        value = torch.as_tensor(sigma, dtype=torch.float64)
        if not bool((torch.isfinite(value) & (value > 0)).all()):
            raise InvalidInput(f"sigma: must be positive and finite, got {sigma!r}.")
        if fitted:
            self.log_sigma = nn.Parameter(value.log())
        else:
            self.register_buffer("log_sigma", value.log())

    @property
    def sigma(self) -> torch.Tensor:
        """The width, connected to the graph where it is fitted."""
        return self.log_sigma.exp()

    @abstractmethod
    def forward(self, predicted: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
        """-log p(observed | predicted), the shape of ``observed``."""

    def information(self, predicted: torch.Tensor) -> torch.Tensor:
        """Fisher information that one value carries about its prediction, 1 / unit²; here 1 / sigma²."""
        return torch.ones_like(predicted) / self.sigma.detach() ** 2


class Gaussian(Noise):
    """observed = predicted + sigma * normal; sigma in the unit of the observation."""

    def forward(self, predicted: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
        return 0.5 * ((observed - predicted) / self.sigma) ** 2 + self.log_sigma + _HALF_LOG_2PI


class Laplace(Noise):
    """observed = predicted + sigma * Laplace(1); forgiving of outliers. sigma in the observation's unit."""

    def forward(self, predicted: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
        return (observed - predicted).abs() / self.sigma + self.log_sigma + math.log(2.0)


class LogNormal(Noise):
    """log observed = log predicted + sigma * normal, for positive quantities; sigma has no unit."""

    def forward(self, predicted: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
        residual = (observed.log() - predicted.log()) / self.sigma
        return 0.5 * residual**2 + self.log_sigma + _HALF_LOG_2PI + observed.log()

    def information(self, predicted: torch.Tensor) -> torch.Tensor:
        """1 / (sigma * predicted)²."""
        return 1.0 / (self.sigma.detach() * predicted) ** 2


class Relative(Noise):
    """Normal with standard deviation sqrt(floor² + (sigma * predicted)²); sigma has no unit.

    Args:
        floor: the part that stays where the prediction vanishes, in the unit of the observation.
    """

    def __init__(self, sigma: float | torch.Tensor = 0.1, fitted: bool = False, *, floor: float = 0.0):
        super().__init__(sigma, fitted)
        if not (math.isfinite(floor) and floor >= 0):
            raise InvalidInput(f"floor: must be finite and not negative, got {floor!r}.")
        self.floor = float(floor)

    def forward(self, predicted: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
        variance = self.floor**2 + (self.sigma * predicted) ** 2
        return 0.5 * (observed - predicted) ** 2 / variance + 0.5 * variance.log() + _HALF_LOG_2PI

    def information(self, predicted: torch.Tensor) -> torch.Tensor:
        """Of mean and variance, which both depend on the prediction."""
        sigma = self.sigma.detach()
        variance = self.floor**2 + (sigma * predicted) ** 2
        return 1.0 / variance + 2.0 * (sigma**2 * predicted / variance) ** 2

    def extra_repr(self) -> str:
        return f"floor={self.floor}"
