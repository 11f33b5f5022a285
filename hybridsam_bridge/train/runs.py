"""The folder of a run: configuration, versions, metrics, checkpoints, figures."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import json
import platform
from datetime import datetime
from pathlib import Path
from typing import Any

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.train.checkpoint import write_atomically

LAST = "last.safetensors"
BEST = "best.safetensors"
METRICS = "metrics.csv"
CONFIG = "config.json"
SUMMARY = "summary.json"


class RunFolder:
    """A run's files. The folder is made if it is not there."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)

    @classmethod
    def create(cls, parent: str | Path, task: str) -> RunFolder:
        """A new folder ``parent/task-YYYYmmdd-HHMMSS``, with a number behind it if that is taken."""
        stamp = f"{task}-{datetime.now():%Y%m%d-%H%M%S}"
        for tail in ("", *(f"-{i}" for i in range(2, 1000))):
            path = Path(parent) / f"{stamp}{tail}"
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            return cls(path)
        raise InvalidInput(f"runs: no free name for {stamp} in {parent}.")

    @property
    def last(self) -> Path:
        return self.path / LAST

    @property
    def best(self) -> Path:
        return self.path / BEST

    def write_json(self, name: str, value: Any) -> None:
        write_atomically(self.path / name, (json.dumps(value, indent=2) + "\n").encode())

    def read_json(self, name: str) -> Any:
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InvalidInput(f"run: {self.path} has no {name}; is it a run folder?") from None
        except json.JSONDecodeError as error:
            raise InvalidInput(f"run: {path} is damaged ({error}).") from error

    def write_versions(self) -> None:
        """Versions of Python and of the packages that decide about the numbers."""
        self.write_json("versions.json", versions())


def versions() -> dict[str, str]:
    """Versions of what is installed, for the record of a run."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("hybridsam-bridge", "torch", "numpy", "scipy", "juliacall", "safetensors"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


class MetricsLog:
    """Rows of numbers, appended to metrics.csv as they come.

    On resume, rows after the checkpoint's step are dropped: the run writes them again.
    """

    def __init__(self, folder: RunFolder, columns: list[str], resume_after: int | None):
        self.path = folder.path / METRICS
        self.columns = columns
        kept = self._rows_until(resume_after) if resume_after is not None else []
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(kept)
        write_atomically(self.path, text.getvalue().encode())

    def _rows_until(self, step: int) -> list[dict[str, str]]:
        return [row for row in read_metrics(self.path) if int(row["step"]) <= step]

    def append(self, row: dict[str, Any]) -> None:
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns, restval="", extrasaction="ignore").writerow(row)


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Rows of a metrics.csv; a last line that a kill left incomplete is dropped."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        text = file.read()
    whole = text[: text.rfind("\n") + 1]
    return [row for row in csv.DictReader(io.StringIO(whole)) if None not in row.values()]
