"""What a report holds: rows of plain data, and the matrices made from them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.trust.spaces import Array

FORMAT = 1


@dataclass
class GeneralisationReport:
    """How a hybrid model fares on function spaces that it was not trained on.

    Attributes:
        names: the spaces; rows (training) and columns (test) of every matrix.
        settings: what the report was made with, plain data.
        rows: one dict a training space and seed, in the order of ``names`` and seeds.
        folder: where it was written, if anywhere.
    """

    names: list[str]
    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    folder: Path | None = field(default=None, compare=False)

    @property
    def skill(self) -> Array:
        """log10(E / E_ref), mean over seeds ``(spaces, spaces)``: below 0 the network helps, above it harms.

        NaN where no test trajectory of a seed could be solved, or the fit itself failed.
        """
        return self._mean(_skill)

    @property
    def skill_spread(self) -> Array:
        """Standard deviation of the skill over seeds ``(spaces, spaces)``; zero for one seed."""
        values = self._all(_skill)
        return np.nanstd(values, axis=0) if len(values) > 1 else np.zeros(values.shape[1:])

    @property
    def relative_error(self) -> Array:
        """Root mean square error over the size of the truth, mean over seeds ``(spaces, spaces)``."""
        return self._mean(lambda cell: _ratio(cell["error"], cell["size"]))

    @property
    def reference_error(self) -> Array:
        """The same of the reference, which has no network."""
        return self._mean(lambda cell: _ratio(cell["reference_error"], cell["size"]))

    @property
    def failures(self) -> Array:
        """Fraction of test trajectories whose solve failed ``(spaces, spaces)``; 1 where the fit failed."""
        values = self._all(lambda cell: cell["failures"] / cell["samples"])
        return np.nan_to_num(values, nan=1.0).mean(axis=0)

    def coverage(self, what: str = "outside") -> Array:
        """``(spaces, spaces)`` of "outside" (fraction) or "residual" (relative); NaN without a network."""
        if what not in ("outside", "residual", "dimension", "rank"):
            raise InvalidInput(f'what={what!r} is not known. Known: "outside", "residual", "dimension", "rank".')
        return self._mean(lambda cell: np.nan if cell["coverage"] is None else cell["coverage"][what])

    @property
    def solver_change(self) -> Array:
        """Change of predictions under the checking solver over the model's error ``(spaces, spaces)``."""
        return self._mean(lambda cell: _ratio(cell["solver_change"], cell["error"]))

    @property
    def drift(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Scientific parameter -> training space -> (mean, standard deviation over seeds)."""
        out: dict[str, dict[str, tuple[float, float]]] = {}
        for name in self.names:
            rows = [row for row in self.rows if row["space"] == name and not row["failed"]]
            for parameter in rows[0]["parameters"] if rows else ():
                values = [row["parameters"][parameter] for row in rows]
                out.setdefault(parameter, {})[name] = (float(np.mean(values)), float(np.std(values)))
        return out

    @property
    def impulse_error(self) -> dict[str, tuple[float, float]]:
        """Training space -> relative error of the impulse response (model, reference), mean over seeds."""
        out = {}
        for name in self.names:
            rows = [row for row in self.rows if row["space"] == name and not row["failed"] and row["impulse"]]
            pairs = [[_number(row["impulse"][kind]) for kind in ("model", "reference")] for row in rows]
            if pairs:
                model, reference = np.mean(pairs, axis=0)
                out[name] = (float(model), float(reference))
        return out

    @property
    def failed_fits(self) -> list[tuple[str, int, str]]:
        """Training space, seed and message of the fits that raised."""
        return [(row["space"], row["seed"], row["failed"]) for row in self.rows if row["failed"]]

    def summary(self) -> str:
        """In words: where the model may be used, where it is worse than no network, and why."""
        from hybridsam_bridge.trust.words import summarise

        return summarise(self)

    def figures(self, folder: str | Path | None = None) -> list[Path]:
        """Write heat maps of skill and coverage and the drift of parameters as PNG; returns their paths."""
        from hybridsam_bridge.trust.figures import draw

        target = Path(folder) if folder is not None else self.folder
        if target is None:
            raise InvalidInput("folder: the report was not written anywhere; pass a folder for the figures.")
        return draw(self, target)

    def save(self, path: str | Path) -> Path:
        """Write everything as JSON, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"format": FORMAT, "names": self.names, "settings": self.settings, "rows": self.rows}
        write_json(path, {**content, "skill": [[_plain(v) for v in line] for line in self.skill]})
        return path

    @classmethod
    def load(cls, path: str | Path) -> GeneralisationReport:
        """Read what ``save`` wrote. Raises ``InvalidInput`` if it is something else."""
        data = read_json(Path(path))
        if data is None or data.get("format") != FORMAT:
            raise InvalidInput(f"{path} is not a generalisation report of this version.")
        return cls(data["names"], data["settings"], data["rows"], Path(path).parent)

    def _all(self, value: Any) -> Array:
        """``(seeds, spaces, spaces)`` of a number of each cell; NaN in rows whose fit failed."""
        seeds = sorted({row["seed"] for row in self.rows})
        out = np.full((len(seeds), len(self.names), len(self.names)), np.nan)
        for row in self.rows:
            if not row["failed"]:
                out[seeds.index(row["seed"]), self.names.index(row["space"])] = [value(cell) for cell in row["cells"]]
        return out

    def _mean(self, value: Any) -> Array:
        values = self._all(value)
        known = ~np.isnan(values)
        total = np.where(known, values, 0.0).sum(axis=0)
        count = known.sum(axis=0)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _skill(cell: dict[str, Any]) -> float:
    if cell["error"] is None or cell["reference_error"] is None:
        return float("nan")
    tiny = 1e-15 * (cell["size"] or 1.0)
    return float(np.log10(max(cell["error"], tiny) / max(cell["reference_error"], tiny)))


def _ratio(a: float | None, b: float | None) -> float:
    return float("nan") if a is None or b is None else a / max(b, 1e-300)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)


def write_json(path: Path, data: Any) -> None:
    """Whole or not at all, so that an interrupted run leaves nothing half written."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The content, or None if the file is not there or no JSON object."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    return data if isinstance(data, dict) else None
