"""Where measured data of studies are looked for."""

from __future__ import annotations

import os
from pathlib import Path

from hybridsam_bridge.errors import InvalidInput

VARIABLE = "HYBRIDSAM_DATA"


def data_folder() -> Path:
    """The folder in HYBRIDSAM_DATA, else ``../shared/data`` beside the source tree."""
    given = os.environ.get(VARIABLE)
    return Path(given) if given else Path(__file__).resolve().parents[3] / "shared" / "data"


def data_file(relative: str, origin: str) -> Path:
    """The path of a data file. Raises ``InvalidInput``, with ``origin`` saying where to get it, if it is missing."""
    path = data_folder() / relative
    if not path.is_file():
        raise InvalidInput(
            f"data: {path} is not there. Put {relative} ({origin}) into a folder and name that folder in {VARIABLE}."
        )
    return path
