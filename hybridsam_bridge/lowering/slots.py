"""Where a program keeps the rank-one updates of its weights' gradients that it has put off; see kernels_deferred.jl."""

from __future__ import annotations

import math


class Slots:
    """One slot a matrix in the workspace, behind the scratch of all functions; vjp! and hvp! share them."""

    ROWS = 16  # updates that are gathered: more would push a matrix of 64 x 64 out of the first cache

    def __init__(self) -> None:
        self.places: dict[tuple[int, int, int, int], int] = {}
        self.size = 0

    def place(self, offset: int, apart: int, rows: int, columns: int) -> str:
        """Julia text of the slot's start, for the matrix at ``offset`` in gp whose rows are ``apart``."""
        key = (offset, apart, rows, columns)
        if key not in self.places:
            self.places[key] = self.size
            self.size += 8 + 8 * math.ceil(self.ROWS * (rows + columns) / 8)
        return f"slots + {self.places[key]}"

    def definitions(self, start: int) -> str:
        """Julia source of where the slots start, and of ``flush!``; nothing if there are none."""
        if not self.places:
            return ""
        calls = [
            f"    k_flush!(gp, {offset}, {apart}, {rows}, {columns}, w, slots + {at}, {self.ROWS})"
            for (offset, apart, rows, columns), at in self.places.items()
        ]
        return "\n".join([f"const slots = {start}", "function flush!(gp,w)", *calls, "    return nothing", "end", ""])
