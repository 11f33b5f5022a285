"""The studies by name. A new study is one line here and a module with ``study(quick) -> Study``."""

from __future__ import annotations

from pathlib import Path

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.reproduce.study import Study
from hybridsam_bridge.tasks.load import load_module

_HERE = "hybridsam_bridge.reproduce"

# Name on the command line -> module.
STUDIES = {
    "pendulum": f"{_HERE}.pendulum",
    "pendulum-gym": f"{_HERE}.pendulum_gym",
    "pendulum-images": f"{_HERE}.pendulum_images",
    "duffing": f"{_HERE}.duffing",
    "reaction-diffusion": f"{_HERE}.reaction_diffusion",
    "reaction-diffusion-periodic": f"{_HERE}.reaction_diffusion_periodic",
    "light-tunnel": f"{_HERE}.light_tunnel",
    "wind-tunnel": f"{_HERE}.wind_tunnel",
    "wind-tunnel-measured": f"{_HERE}.wind_tunnel_measured",
    "stiff-rober": f"{_HERE}.stiff_rober",
    "stiff-hires": f"{_HERE}.stiff_hires",
    "stiff-oregonator": f"{_HERE}.stiff_oregonator",
    "stiff-cell": f"{_HERE}.stiff_cell",
}

# Several under one name.
GROUPS = {"stiff": ("stiff-rober", "stiff-hires", "stiff-oregonator", "stiff-cell")}


def load_study(name: str, quick: bool) -> Study:
    """The study of that name, or of a .py file with a function ``study``, in its quick or its full size.

    Raises:
        InvalidInput: the name is not listed, or the file has no such function.
    """
    if name not in STUDIES and not name.endswith(".py"):
        raise InvalidInput(f"reproduce: {name!r} is neither a .py file nor known. Known: {', '.join(STUDIES)}.")
    make = getattr(load_module(STUDIES.get(name, name), Path()), "study", None)
    if not callable(make):
        raise InvalidInput(f"reproduce: {name} has no function study(quick) that returns a Study.")
    study: Study = make(quick)
    return study
