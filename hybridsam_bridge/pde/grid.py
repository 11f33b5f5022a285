"""Uniform grids on boxes, and the kind of condition at each of their ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hybridsam_bridge.errors import InvalidInput

BOUNDARIES = ("periodic", "dirichlet", "neumann")
POINTS = ("cells", "nodes")

Ends = tuple[str, str]


@dataclass(frozen=True, init=False)
class Grid:
    """A uniform grid on the box ``lower``..``upper`` in one, two or three dimensions.

    Fields on it are tensors ``(*channels, *shape)``: any number of leading dimensions, then one an axis.

    Args:
        shape: unknowns along each axis; a number for one dimension.
        lower, upper: the box, in the units of space; one number for all axes or one an axis.
        boundary: "periodic", "dirichlet" (the value is given) or "neumann" (the derivative along the outward normal
            is given): one name for all, or one an axis, each a name or a pair (lower end, upper end).
        points: where the unknowns are. "cells": in the middle of N equal cells, half a spacing from the ends; sums
            times the spacing are integrals, and fluxes conserve them. "nodes": on a lattice with points on the ends;
            a point at a Dirichlet end is known and left out, one at a Neumann end is an unknown, and of the two ends
            of a periodic axis the lower one is kept.

    Attributes:
        spacing: distance of neighbours along each axis, (upper - lower) / N for cells.

    Raises:
        InvalidInput: a name is unknown, or the numbers make no grid.
    """

    shape: tuple[int, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    boundary: tuple[Ends, ...]
    points: str

    def __init__(
        self,
        shape: int | Sequence[int],
        lower: float | Sequence[float] = 0.0,
        upper: float | Sequence[float] = 1.0,
        boundary: str | Sequence[str | Sequence[str]] = "periodic",
        points: str = "cells",
    ):
        sizes = _sizes(shape)
        starts, stops = _numbers("lower", lower, len(sizes)), _numbers("upper", upper, len(sizes))
        for axis, (a, b) in enumerate(zip(starts, stops, strict=True)):
            if not b > a:
                raise InvalidInput(f"upper: must be greater than lower on axis {axis}, got {a!r} to {b!r}.")
        if points not in POINTS:
            raise InvalidInput(f"points={points!r} is not known. Known: {', '.join(POINTS)}.")
        put = object.__setattr__  # the class is frozen
        put(self, "shape", sizes)
        put(self, "lower", starts)
        put(self, "upper", stops)
        put(self, "boundary", _boundary(boundary, len(sizes)))
        put(self, "points", points)
        for axis, size in enumerate(sizes):
            if self._intervals(axis) < 1:
                raise InvalidInput(f"shape: {size} points with boundary {self.boundary[axis]} make no axis.")

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def spacing(self) -> tuple[float, ...]:
        return tuple((b - a) / self._intervals(i) for i, (a, b) in enumerate(zip(self.lower, self.upper, strict=True)))

    def periodic(self, axis: int) -> bool:
        """Whether that axis closes on itself."""
        return self.boundary[axis][0] == "periodic"

    def coordinates(self, axis: int = 0, *, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        """``(shape[axis],)``: where the unknowns are along an axis."""
        first = 0.5 if self.points == "cells" else float(self.boundary[axis][0] == "dirichlet")
        return self.lower[axis] + self.spacing[axis] * (torch.arange(self.shape[axis], dtype=dtype) + first)

    def mesh(self, *, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
        """One tensor of ``shape`` an axis: the coordinates of every point."""
        axes = [self.coordinates(axis, dtype=dtype) for axis in range(self.ndim)]
        return tuple(torch.meshgrid(*axes, indexing="ij"))

    def _intervals(self, axis: int) -> int:
        """Spacings between the ends of an axis."""
        if self.points == "cells" or self.periodic(axis):
            return self.shape[axis]
        return self.shape[axis] - 1 + self.boundary[axis].count("dirichlet")


def check_on(name: str, u: torch.Tensor, grid: Grid) -> None:
    """Refuse a tensor whose last dimensions are not the grid's."""
    if not isinstance(u, torch.Tensor):
        raise InvalidInput(f"{name}: must be a torch tensor, got {type(u).__name__}.")
    if not isinstance(grid, Grid):
        raise InvalidInput(f"grid: must be an hsb.pde.Grid, got {type(grid).__name__}.")
    if tuple(u.shape[-grid.ndim :]) != grid.shape:
        raise InvalidInput(
            f"{name}: the last dimensions must be the grid's shape {grid.shape}, got shape {tuple(u.shape)}. "
            "A field on a grid is (*channels, *grid.shape)."
        )


def check_axis(grid: Grid, axis: int) -> None:
    """Refuse an axis that the grid does not have."""
    if isinstance(axis, bool) or not isinstance(axis, int) or not 0 <= axis < grid.ndim:
        raise InvalidInput(f"axis: must be from 0 to {grid.ndim - 1} on this grid, got {axis!r}.")


def _sizes(shape: int | Sequence[int]) -> tuple[int, ...]:
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if not 1 <= len(sizes) <= 3 or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes):
        raise InvalidInput(f"shape: must be one, two or three positive sizes, such as (64, 64); got {shape!r}.")
    return sizes


def _numbers(name: str, value: float | Sequence[float], count: int) -> tuple[float, ...]:
    try:
        numbers = (float(value),) * count if isinstance(value, (int, float)) else tuple(float(v) for v in value)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{name}: must be a number, or one number an axis; got {value!r}.") from error
    if len(numbers) != count or not all(math.isfinite(v) for v in numbers):
        raise InvalidInput(f"{name}: must be a finite number, or one an axis ({count}); got {value!r}.")
    return numbers


def _boundary(boundary: str | Sequence[str | Sequence[str]], count: int) -> tuple[Ends, ...]:
    entries = [boundary] * count if isinstance(boundary, str) else list(boundary)
    if len(entries) != count:
        hint = f' For the two ends of one axis write (("{entries[0]}", "{entries[1]}"),).' if count == 1 else ""
        raise InvalidInput(f"boundary: one name for all, or one entry an axis ({count}); got {boundary!r}.{hint}")
    out = []
    for axis, entry in enumerate(entries):
        ends = (entry, entry) if isinstance(entry, str) else tuple(entry)
        if len(ends) != 2 or any(end not in BOUNDARIES for end in ends):
            raise InvalidInput(
                f"boundary: on axis {axis} it must be one of {', '.join(BOUNDARIES)}, or a pair of them; got {entry!r}."
            )
        if ends.count("periodic") == 1:
            raise InvalidInput(f"boundary: axis {axis} is periodic at one end only, {ends!r}; both ends are, or none.")
        out.append((ends[0], ends[1]))
    return tuple(out)
