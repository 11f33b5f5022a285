"""The wind-tunnel study on the official measurements, dataset wt_intake_impulse_v1 of the causal chambers."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.reproduce.data import data_file
from hybridsam_bridge.reproduce.study import Problem, Study
from hybridsam_bridge.reproduce.wind_tunnel import PHYSICS, POINTS, Impulses, problem, settings

FILE = "wt_intake_impulse_v1/load_out_0.5_osr_downwind_4.csv"
ORIGIN = "from the dataset of that name at github.com/juangamella/causal-chamber, CC BY 4.0"
COLUMNS = ("timestamp", "flag", "hatch", "load_in", "load_out", "pressure_downwind", "pressure_ambient")
ABOUT = f"""\
The official measurements wt_intake_impulse_v1, experiment load_out_0.5_osr_downwind_4, which the user has to
download. {PHYSICS} The barometer's constant offset is a second unknown, starting at 0. What the science misses is
whatever real fans, air and barometer do besides."""


def load(path: Path) -> Impulses:
    """All impulses of a file of the dataset: 50 readings with one flag each.

    Times and loads are those of all impulses: the means of the times (they differ by milliseconds).

    Raises:
        InvalidInput: a column is missing, or the rows are no impulses of 50 readings under the same loads.
    """
    with open(path, newline="", encoding="utf-8") as file:
        header = next(csv.reader(file))
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise InvalidInput(f"{path}: has no column {missing[0]}; it must be a file of wt_intake_impulse_v1.")
        table = np.loadtxt(file, delimiter=",", usecols=[header.index(name) for name in COLUMNS], ndmin=2)
    if not len(table) or len(table) % POINTS:
        raise InvalidInput(f"{path}: has {len(table)} rows, not a multiple of {POINTS}, the readings of an impulse.")
    impulse = torch.from_numpy(table).reshape(-1, POINTS, len(COLUMNS))
    time, flag, hatch, load_in, load_out, downwind, ambient = impulse.unbind(-1)
    for name, constant in (("flag", flag), ("hatch", hatch)):
        if bool((constant != constant[:, :1]).any()):
            raise InvalidInput(f"{path}: {name} changes within {POINTS} rows, so that they are not one impulse.")
    for name, common in (("load_in", load_in), ("load_out", load_out)):
        if bool((common != common[:1]).any()):
            raise InvalidInput(f"{path}: {name} differs between impulses.")
    ts = (time - time[:, :1]).mean(0)
    return Impulses(downwind - ambient, hatch[:, 0], ts, load_in[0], load_out[0])


def study(quick: bool) -> Study:
    """The study; the quick one has fewer impulses and steps, and smaller networks."""
    sizes, width = ([60, 40, 100], 8) if quick else ([400, 200, 500], 32)

    def build(seed: int) -> Problem:
        return problem(load(data_file(FILE, ORIGIN)), sizes, width, seed, quick, offset=True)

    return Study("wind-tunnel-measured", ABOUT, build, quick=quick, files={FILE: ORIGIN}, **settings(quick))
