"""A table as the command prints it and writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Table:
    """Rows of numbers and words under named columns.

    Attributes:
        key, title: name on the command line, and one sentence that says what was done.
        columns: names with units. rows: one cell a column; None where there is nothing to say.
        notes: sentences under the table, also about what was left out and why.
        figures: single numbers worth keeping by name, such as ratios.
    """

    key: str
    title: str
    columns: Sequence[str]
    rows: list[list[Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def add(self, *cells: Any) -> None:
        assert len(cells) == len(self.columns), "one cell a column"
        self.rows.append(list(cells))

    def text(self) -> str:
        """The table in aligned columns, numbers to three digits."""
        lines = [[str(c) for c in self.columns], *([_cell(x) for x in row] for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        body = ["  " + "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        return "\n".join([f"{self.key}: {self.title}", *body, *(f"  {note}" for note in self.notes)])

    def data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)
