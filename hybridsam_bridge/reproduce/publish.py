"""Saved results of studies, and the section of examples/README.md that is written from them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.reproduce.command import FIGURE, OWN_FIGURE, RESULTS
from hybridsam_bridge.reproduce.registry import STUDIES
from hybridsam_bridge.reproduce.summary import header, table_rows, tried
from hybridsam_bridge.reproduce.verdict import best, verdicts
from hybridsam_bridge.train.checkpoint import write_atomically
from hybridsam_bridge.train.runs import RunFolder

BEGIN, END = "<!-- results: written by hybridsam-bridge reproduce --publish -->", "<!-- end of results -->"
INTRODUCTION = """\
## SAM against other regularisers

Rerun one with `hybridsam-bridge reproduce TASK` (`--quick` for a minute's version, which claims nothing). The paper's
(Takeishi, arXiv:2602.06837) exact settings are not public: where one is unknown its predecessors' is taken, each
paragraph says so, and the claim is qualitative only. Entries are mean ± standard deviation over seeds; a seed has data
and first weights of its own, the same for all methods. Hyperparameters are those with the least error on validation
predictions; the true parameters are never looked at. Every training keeps the weights of its best validation. Sharpness
is the rise of the training loss under SAM's perturbation of the network, at one radius for all methods of a task. "SAM
wins" compares the best of the sharpness-aware methods with the best of the others: yes if its mean is lower and it is
better on most seeds (their number is in brackets), no if its mean is higher. Only methods that were run count: each
task's own table lists them, and where that is ERM and SAM alone, SAM's lead over other regularisers is not shown.
"""


def publish(root: Path, examples: Path) -> None:
    """Copy a study's results from its folder ``root`` to ``examples/results`` and rewrite the README there.

    Raises:
        InvalidInput: nothing was reproduced in ``root``, or only the quick version.
    """
    summary = RunFolder(root).read_json(RESULTS)
    name = summary["study"]
    if summary["quick"]:
        raise InvalidInput("publish: results of --quick claim nothing and are not published. Run the full study.")
    results = RunFolder(examples / "results")
    results.write_json(f"{name}.json", summary)
    for source, target in ((FIGURE, f"{name}.png"), (OWN_FIGURE, f"{name}-own.png")):
        if (root / source).exists():
            shutil.copyfile(root / source, results.path / target)
    write_readme(examples)


def write_readme(examples: Path) -> None:
    """Write the results' section of ``examples/README.md`` from the files in ``examples/results``."""
    found = {path.stem: path for path in sorted((examples / "results").glob("*.json"))}
    if not found:
        raise InvalidInput(f"publish: {examples / 'results'} holds no results.")
    order = {name: place for place, name in enumerate(STUDIES)}
    names = sorted(found, key=lambda name: (order.get(name, len(order)), name))
    summaries = [json.loads(found[name].read_text(encoding="utf-8")) for name in names]
    sections = [INTRODUCTION, _overview(summaries), *(_section(summary, examples) for summary in summaries)]
    readme = examples / "README.md"
    before, after = "# Examples\n\n", ""
    if readme.exists():
        text = readme.read_text(encoding="utf-8")
        if text.count(BEGIN) != 1 or text.count(END) != 1:
            raise InvalidInput(f"publish: {readme} must have the lines {BEGIN} and {END} once each.")
        before, rest = text.split(BEGIN)
        after = rest.split(END)[1].lstrip("\n")
    write_atomically(readme, "\n".join([f"{before}{BEGIN}", *sections, f"{END}\n{after}"]).encode())


def _overview(summaries: list[dict[str, Any]]) -> str:
    """A row a task: θ error of ERM, the best of the other methods without SAM, the best with, and who wins."""
    title = ["task", "θ error: ERM", "best without SAM", "best with SAM", "SAM wins: θ", "prediction", "seeds"]
    rows = []
    for summary in summaries:
        name = summary["study"]
        groups = ["erm", best(summary, "theta_error", aware=False), best(summary, "theta_error", aware=True)]
        words = {v.column: f"{v.word} ({v.better} of {v.seeds})" for v in verdicts(summary)}
        wins = [words.get(column, "") for column in ("theta_error", "prediction_error")]
        rows.append([f"[{name}](#{name})", *(_mean(summary, m) for m in groups), *wins, str(summary["seeds"])])
    saved = {summary["study"] for summary in summaries}
    missing = [name for name in STUDIES if name not in saved]
    note = f"\nNo results of a full run are saved for {', '.join(missing)}.\n" if missing else ""
    return _markdown([title, *rows]) + note


def _mean(summary: dict[str, Any], name: str | None) -> str:
    method = summary["methods"].get(name, {})
    return f"{method['theta_error']['mean']:.3g} ({method['label']})" if "theta_error" in method else ""


def _section(summary: dict[str, Any], examples: Path) -> str:
    name = summary["study"]
    lines = [f"### {name}", "", summary["about"], "", _markdown([header(summary), *table_rows(summary)])]
    lines += [f"- {verdict.sentence}" for verdict in verdicts(summary)]
    lines.append(f"- Tried: {tried(summary)}; chosen on {_count(summary['tuning_seeds'], 'seed')}.")
    lines += [f"- {method} does not apply: {why}" for method, why in summary["not_applicable"].items()]
    lines += [f"- {_count(len(summary['failed']), 'training')} failed."] if summary["failed"] else []
    length = f"{summary['train'].get('steps') or summary['train'].get('epochs')} "
    length += "steps" if "steps" in summary["train"] else "epochs"
    solved = f", solved by {' and '.join(summary['backends'])}" if summary["backends"] else ""
    versions = summary["versions"]
    lines.append(
        f"- {length} of training each{solved}; sharpness at ρ = {summary['sharpness_rho']:g}; "
        f"the runs' times add up to {summary['seconds'] / 60:.0f} minutes; "
        f"Python {versions['python']}, torch {versions['torch']}."
    )
    for label, file in (("θ against prediction", f"{name}.png"), ("what was learned", f"{name}-own.png")):
        if (examples / "results" / file).exists():
            lines += ["", f"![{name}: {label}](results/{file})"]
    return "\n".join([*lines, ""])


def _markdown(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:], ""])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
