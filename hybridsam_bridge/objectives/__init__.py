"""What is minimised: noise models, the data loss, and penalties to compare with."""

from hybridsam_bridge.objectives.data import DataLoss, Trajectories
from hybridsam_bridge.objectives.horizons import GrowingHorizon, MultipleShooting
from hybridsam_bridge.objectives.noise import Gaussian, Laplace, LogNormal, Noise, Relative
from hybridsam_bridge.objectives.penalties import FunctionalNorm, Orthogonality, WeightDecay

__all__ = [
    "DataLoss",
    "FunctionalNorm",
    "Gaussian",
    "GrowingHorizon",
    "Laplace",
    "LogNormal",
    "MultipleShooting",
    "Noise",
    "Orthogonality",
    "Relative",
    "Trajectories",
    "WeightDecay",
]
