"""The studies by name. A new study is one line here, and a module with ``study(quick) -> Study``."""

from __future__ import annotations

import importlib

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.reproduce.study import Study

_HERE = "hybridsam_bridge.reproduce"

# Name on the command line -> module.
STUDIES = {
    "pendulum": f"{_HERE}.pendulum",
    "pendulum-gym": f"{_HERE}.pendulum_gym",
    "duffing": f"{_HERE}.duffing",
    "light-tunnel": f"{_HERE}.light_tunnel",
}


def load_study(name: str, quick: bool) -> Study:
    """The study of that name, in its quick or its full size. Raises ``InvalidInput`` for a name not listed."""
    if name not in STUDIES:
        raise InvalidInput(f"reproduce: {name!r} is not known. Known: {', '.join(STUDIES)}.")
    study: Study = importlib.import_module(STUDIES[name]).study(quick)
    return study
