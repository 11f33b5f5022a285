"""The trainer and what it keeps."""

from hybridsam_bridge.train.runs import RunFolder
from hybridsam_bridge.train.trainer import FitResult, Trainer

__all__ = ["FitResult", "RunFolder", "Trainer"]
