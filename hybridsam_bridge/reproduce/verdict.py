"""Whether the sharpness-aware methods beat the others, from a study's summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hybridsam_bridge.reproduce.methods import METHODS


@dataclass(frozen=True)
class Verdict:
    """The best sharpness-aware method against the best of the others, in the mean of one column.

    ``better`` of ``seeds`` common seeds are in favour of the first. ``word``: "yes" if it has the lower mean and most
    seeds, "no" if it has the higher mean, else "unclear".
    """

    column: str
    label: str
    aware: str
    aware_mean: float
    other: str
    other_mean: float
    better: int
    seeds: int

    @property
    def word(self) -> str:
        if self.aware_mean >= self.other_mean:
            return "no"
        return "yes" if 2 * self.better > self.seeds else "unclear"

    @property
    def sentence(self) -> str:
        start = {"yes": "SAM wins", "no": "SAM does not win", "unclear": "no clear winner"}[self.word]
        return (
            f"{self.label}: {start} ({METHODS[self.aware].label} {self.aware_mean:.3g}, {METHODS[self.other].label} "
            f"{self.other_mean:.3g}; better on {self.better} of {self.seeds} seeds)."
        )


def verdicts(summary: dict[str, Any]) -> list[Verdict]:
    """For the errors of θ and of predictions; none where one of the two groups has no results."""
    found = [_verdict(summary, column) for column in ("theta_error", "prediction_error")]
    return [verdict for verdict in found if verdict is not None]


def best(summary: dict[str, Any], column: str, aware: bool) -> str | None:
    """The method with the least mean among those that are sharpness-aware or not; None if there is none."""
    means = {name: m[column]["mean"] for name, m in summary["methods"].items() if column in m}
    group = [name for name in means if METHODS[name].sharpness_aware == aware]
    return min(group, key=means.__getitem__) if group else None


def _verdict(summary: dict[str, Any], column: str) -> Verdict | None:
    one, other = best(summary, column, True), best(summary, column, False)
    if one is None or other is None:
        return None
    methods = summary["methods"]
    rows = [dict(zip(methods[m]["seeds"], methods[m][column]["values"], strict=True)) for m in (one, other)]
    common = set(rows[0]) & set(rows[1])
    better = sum(rows[0][seed] < rows[1][seed] for seed in common)
    means = [methods[m][column]["mean"] for m in (one, other)]
    return Verdict(column, summary["labels"][column], one, means[0], other, means[1], better, len(common))
