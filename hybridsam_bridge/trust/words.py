"""A report in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from hybridsam_bridge.trust.result import GeneralisationReport

USEFUL = -0.3  # log10: half the reference's error or less
UNSEEN = 0.1  # share of inputs out of range, or of their size in new directions, that a sentence is worth


def summarise(report: GeneralisationReport) -> str:
    """Where the model may be used, where it is worse than no network at all, and what explains it."""
    parts = [_opening(report)]
    parts += [_row(report, i) for i in range(len(report.names))]
    parts += [*_coverage(report), *_drift(report), *_impulses(report), *_solver(report)]
    return "\n".join(part for part in parts if part)


def _opening(report: GeneralisationReport) -> str:
    skill = report.skill
    off = skill[~np.eye(len(skill), dtype=bool)]
    known = off[~np.isnan(off)]
    useful, worse = int((known <= USEFUL).sum()), int((known > 0).sum())
    seeds = len(report.settings.get("seeds", [0]))
    return (
        f"Trained on one of {len(report.names)} spaces and tested on the others ({report.settings.get('vary', '')} "
        f"varied, {seeds} seed{'s' * (seeds != 1)}): in {useful} of {len(off)} cases the network at least halves the "
        f"error of the model without it, in {worse} it is worse than no network"
        + (f", and {len(off) - len(known)} could not be solved." if len(off) > len(known) else ".")
    )


def _row(report: GeneralisationReport, i: int) -> str:
    name, skill, failures = report.names[i], report.skill[i], report.failures[i]
    failed = [message for space, _, message in report.failed_fits if space == name]
    if np.isnan(skill).all() and failed:
        return f"Trained on {name}: the fit failed ({failed[0]})."
    groups: dict[str, list[str]] = {"may be used on": [], "little gained on": [], "worse than no network on": []}
    broken = []
    for j, other in enumerate(report.names):
        if failures[j] > 0:
            broken.append(f"{other} ({failures[j]:.0%})")
        if np.isnan(skill[j]):
            continue
        key = "may be used on" if skill[j] <= USEFUL else "little gained on"
        if skill[j] > 0:
            key = "worse than no network on"
        factor = 10 ** -skill[j]
        times = f"error {factor:.3g} times smaller" if factor >= 1 else f"error {1 / factor:.3g} times larger"
        # A cell with failed solves is no recommendation, however good the rest is.
        if not (key == "may be used on" and failures[j] > 0):
            groups[key].append(f"{other} ({times})")
    sentences = [f"{key} {', '.join(items)}" for key, items in groups.items() if items]
    if broken:
        sentences.append(f"solves fail on {', '.join(broken)}")
    if failed:
        sentences.append(f"{len(failed)} of its fits failed")
    return f"Trained on {name}: {'; '.join(sentences)}."


def _coverage(report: GeneralisationReport) -> list[str]:
    outside, residual = report.coverage("outside"), report.coverage("residual")
    if np.isnan(outside).all():
        return ["The model has no network whose inputs could be followed."]
    dimension = int(np.nanmax(report.coverage("dimension")))
    lines = []
    for i, name in enumerate(report.names):
        if np.isnan(outside[i]).all():
            continue
        amplitude, shape = [], []
        for j, other in enumerate(report.names):
            if i == j or np.isnan(outside[i, j]):
                continue
            if residual[i, j] > residual[i, i] + UNSEEN:
                shape.append(f"{other} ({residual[i, j]:.0%} of their size)")
            # A few of fresh draws of the same space lie out of range too: only what exceeds that is news.
            elif outside[i, j] > outside[i, i] + UNSEEN:
                amplitude.append(f"{other} ({outside[i, j]:.0%} of them)")
        if shape:
            lines.append(
                f"Trained on {name}, the network's inputs point in directions never visited on {_join(shape)}."
            )
        if amplitude:
            lines.append(f"Trained on {name}, the network's inputs leave the visited range on {_join(amplitude)}.")
    kind = "one number a point" if dimension == 1 else f"{dimension} numbers"
    if not lines:
        return [f"Coverage: the network (input: {kind}) was tested on inputs like those that it was trained on."]
    return [f"Coverage (the network's input is {kind}):", *(f"  {line}" for line in lines), *_explained(report)]


def _explained(report: GeneralisationReport) -> list[str]:
    """Whether lack of coverage goes with lack of skill."""
    skill, outside, residual = report.skill, report.coverage("outside"), report.coverage("residual")
    own = np.diag(outside)[:, None], np.diag(residual)[:, None]
    uncovered = (outside > own[0] + UNSEEN) | (residual > own[1] + UNSEEN)
    pairs = ~np.eye(len(skill), dtype=bool) & ~np.isnan(skill)
    seen, unseen = skill[pairs & ~uncovered], skill[pairs & uncovered]
    if not len(seen) or not len(unseen):
        return []
    return [
        f"  Where inputs are covered the network changes the error by a factor {10 ** np.median(seen):.2g} (median), "
        f"where they are not by {10 ** np.median(unseen):.2g}."
    ]


def _drift(report: GeneralisationReport) -> list[str]:
    lines = []
    for parameter, by_space in report.drift.items():
        means = {space: mean for space, (mean, _) in by_space.items()}
        if len(means) < 2:
            continue
        low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
        centre = float(np.mean(list(means.values())))
        width = means[high] - means[low]
        scatter = float(np.mean([sd for _, sd in by_space.values()]))
        relative = width / abs(centre) if centre else float("inf")
        verdict = "it does not depend on the training space"
        if relative > 0.02 and width > 3 * scatter:
            verdict = "it depends on the training space, so the network and the science share the explanation"
        elif relative > 0.02:
            verdict = "no more than between seeds"
        lines.append(
            f"Parameter {parameter}: {means[low]:.4g} (trained on {low}) to {means[high]:.4g} (trained on {high}); "
            f"{verdict}."
        )
    return lines


def _impulses(report: GeneralisationReport) -> list[str]:
    errors = report.impulse_error
    if not errors:
        return []
    items = [f"{name} {model:.2g} (without network {reference:.2g})" for name, (model, reference) in errors.items()]
    return [f"Relative error of the response to impulses, by training space: {', '.join(items)}."]


def _solver(report: GeneralisationReport) -> list[str]:
    change = report.solver_change
    if np.isnan(change).all():
        return []
    worst = float(np.nanmax(change))
    if worst > 0.1:
        i, j = np.unravel_index(int(np.nanargmax(change)), change.shape)
        return [
            f"Caution: another solver setting changes predictions by {worst:.2g} of the model's error (trained on "
            f"{report.names[i]}, tested on {report.names[j]}): part of what the network learned is the solver's own "
            "error. Train and predict with tighter tolerances."
        ]
    return [f"Solver: a stricter setting changes predictions by at most {worst:.2g} of the model's error."]


def _join(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
