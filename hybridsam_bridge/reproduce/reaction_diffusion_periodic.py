"""The reaction-diffusion study in APHYNITY's setting: periodic, with twice the time."""

from __future__ import annotations

from hybridsam_bridge.reproduce.reaction_diffusion import APHYNITY, ASSUMED, MODEL, make_study
from hybridsam_bridge.reproduce.study import Study

ABOUT = f"""\
{MODEL} This is the setting of APHYNITY's public code: a, b, k = 1e-3, 5e-3, 5e-3, periodic, spacing 2/32, 30 frames
to t = 3, initial states U(0, 1) at every point; 700 training, 100 validation and 200 test sequences instead of 1,600
and 320; 300 steps of Adam on eight sequences each. {ASSUMED}"""


def study(quick: bool) -> Study:
    """The study; the quick one as that of the other setting."""
    return make_study("reaction-diffusion-periodic", ABOUT, APHYNITY, quick)
