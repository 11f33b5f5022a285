"""Sharpness-aware optimizers, all wrapping a torch optimizer."""

from hybridsam_bridge.optim.looksam import LookSAM
from hybridsam_bridge.optim.sam import ASAM, SAM

__all__ = ["ASAM", "SAM", "LookSAM"]
