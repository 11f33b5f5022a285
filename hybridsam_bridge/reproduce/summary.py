"""Statistics over seeds, and the table that a study prints."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from hybridsam_bridge.reproduce.methods import METHODS
from hybridsam_bridge.reproduce.runner import Outcome
from hybridsam_bridge.reproduce.verdict import verdicts
from hybridsam_bridge.train.runs import versions

COLUMNS = ("theta_error", "prediction_error", "sharpness")
# Not scores: what a record holds beside them.
_NOT_SCORES = {"seed", "value", "steps", "skipped", "best_step"}


def summarise(outcome: Outcome) -> dict[str, Any]:
    """Plain data: settings, versions, and for each method its hyperparameter and statistics of every score."""
    study = outcome.study
    failed = outcome.failed()
    backends = {r["backend"] for r in outcome.records if r.get("backend")}
    return {
        "study": study.name,
        "quick": study.quick,
        "about": study.about,
        "labels": {"theta_error": study.theta_label, "prediction_error": study.prediction_label},
        "seeds": outcome.seeds,
        "tuning_seeds": min(study.tuning_seeds, outcome.seeds),
        "train": dict(study.train),
        "optimizer": dict(study.optimizer),
        "sharpness_rho": study.sharpness_rho,
        "not_applicable": dict(study.not_applicable),
        "backends": sorted(backends),
        "seconds": sum(r["seconds"] for r in outcome.records if "seconds" in r),
        "versions": versions(),
        "methods": {name: _method(outcome, name) for name in outcome.methods},
        "failed": [{key: r[key] for key in ("method", "value", "seed", "failed")} for r in failed],
    }


def _method(outcome: Outcome, name: str) -> dict[str, Any]:
    rows = outcome.final(name)
    scores = [
        key
        for key in (rows[0] if rows else {})
        if key not in _NOT_SCORES and all(isinstance(r.get(key), float) for r in rows)
    ]
    return {
        "label": METHODS[name].label,
        "symbol": METHODS[name].symbol,
        "value": outcome.chosen.get(name),
        "validation_by_value": [[value, loss] for value, loss in outcome.tuning[name]],
        "seeds": [r["seed"] for r in rows],
        **{key: statistics_of([r[key] for r in rows]) for key in scores},
    }


def statistics_of(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (n - 1; 0 for one value), median and range, beside the values."""
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "values": list(values),
    }


def table_rows(summary: dict[str, Any]) -> list[list[str]]:
    """A row of text a method: its name with hyperparameter, then mean ± standard deviation of each column."""
    rows = []
    for method in summary["methods"].values():
        if "theta_error" not in method:
            rows.append([method["label"], *["failed"] * len(COLUMNS), "0"])
            continue
        value = method["value"]
        label = method["label"] if value is None else f"{method['label']} ({method['symbol']} = {value:g})"
        rows.append([label, *(_spread(method[column]) for column in COLUMNS), str(len(method["seeds"]))])
    return rows


def header(summary: dict[str, Any]) -> list[str]:
    """The columns of ``table_rows``."""
    labels = summary["labels"]
    return ["method", labels["theta_error"], labels["prediction_error"], "sharpness", "seeds"]


def tried(summary: dict[str, Any]) -> str:
    """The hyperparameters that were tried: "weight decay λ = 0.0001, 0.001; SAM, network ρ = 0.05, 0.1"."""
    parts = []
    for method in summary["methods"].values():
        values = [value for value, _ in method["validation_by_value"] if value is not None]
        if values:
            parts.append(f"{method['label']} {method['symbol']} = {', '.join(f'{v:g}' for v in values)}")
    return "; ".join(parts)


def as_text(summary: dict[str, Any]) -> str:
    """The table for the terminal, with verdicts and failures."""
    cells = [header(summary), *table_rows(summary)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    lines += ["", f"mean ± standard deviation over seeds; sharpness: SAM gap at ρ = {summary['sharpness_rho']:g}"]
    lines += [verdict.sentence for verdict in verdicts(summary)]
    lines.append(f"tried: {tried(summary)}")
    lines += [f"failed: {r['method']} {r['value'] or ''} seed {r['seed']}: {r['failed']}" for r in summary["failed"]]
    return "\n".join(lines)


def _spread(stats: dict[str, Any]) -> str:
    if len(stats["values"]) == 1:
        return f"{stats['mean']:.3g}"
    return f"{stats['mean']:.3g} ± {stats['std']:.2g}"
