"""``hybridsam-bridge compare``: several runs in one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.train.runs import CONFIG, METRICS, SUMMARY, RunFolder, read_metrics


def compare(folders: Sequence[Path]) -> str:
    """A table with a row for each run: how it ended, losses, parameters, and the settings in which runs differ.

    Raises:
        InvalidInput: a folder is not that of a run.
    """
    if not folders:
        raise InvalidInput("compare: name at least one run folder.")
    runs = [_read(folder) for folder in folders]
    settings = [_flat(run["config"]) for run in runs]
    differing = [
        key
        for key in dict.fromkeys(k for s in settings for k in s)
        if len({repr(s.get(key)) for s in settings}) > 1 and key != "relative_to"
    ]
    rows = []
    for run, setting in zip(runs, settings, strict=True):
        row = {"run": run["name"], **{key: setting.get(key, "") for key in differing}}
        rows.append({**row, **run["numbers"]})
    return _table(rows)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise InvalidInput(f"compare: {path} is not a folder.")
    folder = RunFolder(path)
    config = folder.read_json(CONFIG)
    metrics = read_metrics(path / METRICS)
    numbers: dict[str, Any] = {"ended": "running or killed", "steps": int(metrics[-1]["step"]) if metrics else 0}
    if (path / SUMMARY).exists():
        summary = folder.read_json(SUMMARY)
        numbers = {"ended": summary["ended"], "steps": summary["steps"], "best": summary["best_loss"]}
        if summary["skipped_steps"]:
            numbers["skipped"] = summary["skipped_steps"]
        numbers.update(_flat(summary["parameters"]))
    if metrics:
        numbers["loss"] = _number(metrics[-1]["loss"])
        validations = [row["validation"] for row in metrics if row["validation"]]
        if validations:
            numbers["validation"] = _number(validations[-1])
    return {"name": path.name or str(path), "config": config, "numbers": numbers}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{prefix}.{key}".strip(".")).items()}
    return {prefix: value}


def _number(text: str) -> float:
    return float(text) if text else float("nan")


def _table(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_show(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join(lines)


def _show(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
