"""What ``hybridsam-bridge bench`` does: tables on the screen as they are ready, all of them in one JSON file."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from hybridsam_bridge.bench import diffusion, gradients, overheads, sparse
from hybridsam_bridge.bench.tables import Table
from hybridsam_bridge.errors import BackendUnavailable, InvalidInput

TABLES: dict[str, Callable[[int], Table]] = {
    "start": overheads.start,
    "W1": lambda rounds: gradients.table("W1", rounds),
    "W2": lambda rounds: gradients.table("W2", rounds),
    "threads": overheads.threads,
    "bridge": overheads.bridge,
    "sam": overheads.sam,
    "W3": diffusion.table,
    "W4": sparse.table,
}
TOOLS = ("hybridsam-bridge", "torch", "numpy", "scipy", "juliacall", "diffrax", "jax", "torchdiffeq")


def bench_command(names: Sequence[str], rounds: int, path: Path | None, echo: Callable[[str], None]) -> None:
    """Run the tables named (all if none is) and write them to ``path``.

    Raises:
        InvalidInput: a table is not known, or ``rounds`` is not positive.
    """
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        raise InvalidInput(f"bench: no table {unknown[0]!r}. Known: {', '.join(TABLES)}.")
    if rounds < 1:
        raise InvalidInput(f"bench: --rounds must be positive, got {rounds}.")
    torch.set_num_threads(os.cpu_count() or 1)  # whatever the environment says: all tools get the same cores
    found: list[Table] = []
    for name in names or TABLES:
        try:
            found.append(TABLES[name](rounds))
            echo(found[-1].text() + "\n")
        except BackendUnavailable as error:
            echo(f"{name}: left out. {error}\n")
        if path is not None:
            path.write_text(json.dumps(report(found), indent=2), encoding="utf-8")
    if path is not None:
        echo(f"Written to {path}.")


def report(tables: Sequence[Table]) -> dict[str, object]:
    """The tables as plain data, with what they were measured on."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"platform": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in TOOLS}},
        "tables": [table.data() for table in tables],
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
