"""What a training run shows on the terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


class ProgressBar:
    """A bar with the latest numbers; on something other than a terminal, a line every ten seconds."""

    SECONDS = 10.0

    def __init__(self, total: int, label: str, start: int = 0, console: Console | None = None):
        from rich.console import Console  # here, since it takes a fifth of a second
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = console or Console(stderr=True)
        self.live = self.console.is_terminal
        self.label, self.total = label, total
        self._next = time.monotonic() + self.SECONDS
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[numbers]}"),
            console=self.console,
            disable=not self.live,
            transient=True,
        )
        self._task = self._bar.add_task(label, total=total, completed=start, numbers="")

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, step: int, row: Mapping[str, Any]) -> None:
        """Show the row's numbers after ``step`` steps."""
        text = summary_line(row)
        if self.live:
            self._bar.update(self._task, completed=step, numbers=text)
        elif time.monotonic() >= self._next or step == self.total:
            self._next = time.monotonic() + self.SECONDS
            self.console.print(f"{self.label} {step}/{self.total}  {text}", highlight=False, soft_wrap=True)


_HIDDEN = {"step", "epoch", "seconds", "lr"}
_NAMES = {"validation": "val", "gap": "sharp", "cost": "sam cost", "solver_steps": "steps"}


def summary_line(row: Mapping[str, Any]) -> str:
    """The numbers of a metrics row that say something: "loss 0.123  val 0.2  alpha 0.55  failed 1"."""
    parts = []
    for key, value in row.items():
        if key in _HIDDEN or value in ("", None) or (key in ("skipped", "dropped") and not value):
            continue
        if isinstance(value, float) and math.isnan(value):
            continue
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        parts.append(f"{_NAMES.get(key, key)} {shown}")
    return "  ".join(parts)
