"""The pelts of the Hudson Bay as a task for ``hybridsam-bridge train``."""

from hybridsam_bridge.tasks.hare_lynx.task import build

__all__ = ["build"]
