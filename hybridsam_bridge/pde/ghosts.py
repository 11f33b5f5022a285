"""Points beyond the ends of an axis, extrapolated so that a stencil can run up to them.

At an end the field is taken as the polynomial through its first points that meets the boundary condition; the ghost
points are its values. (LeVeque, Finite Difference Methods for Ordinary and Partial Differential Equations, 2007,
sections 2.12 and 10.3, for second order; the same by Hermite and Lagrange interpolation for more.)
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import torch

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.pde.grid import Grid

Value = float | torch.Tensor | None
EndValues = tuple[Value, Value]
Rows = tuple[tuple[float, ...], ...]


@cache
def weights(kind: str, points: str, width: int, degree: int) -> Rows:
    """Weights of ``width`` ghosts, nearest first: each a row (of the given value, of the first points inwards).

    The polynomial has that ``degree``. The value is the field's for "dirichlet", the spacing times the derivative
    along the outward normal for "neumann"; "free" has none and its weight is zero.
    """
    count = degree if kind != "free" else degree + 1
    first = {"cells": Fraction(1, 2), "nodes": Fraction(int(kind == "dirichlet"))}[points]
    inside = [first + i for i in range(count)]
    ghosts = [first - 1 - i for i in range(width)]
    powers = range(degree + 1)
    rows = [[float(s**k) for k in powers] for s in inside]
    if kind == "dirichlet":
        rows.insert(0, [float(k == 0) for k in powers])
    elif kind == "neumann":
        rows.insert(0, [-float(k == 1) for k in powers])  # s runs inwards
    basis = np.array([[float(s**k) for k in powers] for s in ghosts])
    solved = np.linalg.solve(np.array(rows).T, basis.T).T
    # The exact weights are rationals of small denominators: rounding to them makes reflections exact.
    exact = [[float(Fraction(w).limit_denominator(10_000)) for w in row] for row in solved]
    return tuple(tuple([0.0, *row] if kind == "free" else row) for row in exact)


def spread_values(values: Any, grid: Grid) -> tuple[EndValues, ...]:
    """``values`` as one pair an axis; see ``hsb.pde.laplacian`` for what it may be."""
    open_axes = [axis for axis in range(grid.ndim) if not grid.periodic(axis)]
    if values is None:
        return ((None, None),) * grid.ndim
    if not open_axes:
        raise InvalidInput("values: every axis of this grid is periodic, there is no end to give values for.")
    if _is_value(values):
        return tuple((values, values) if axis in open_axes else (None, None) for axis in range(grid.ndim))
    entries = list(values)
    if grid.ndim == 1 and len(entries) == 2:
        entries = [tuple(entries)]
    if len(entries) != grid.ndim:
        raise InvalidInput(f"values: one for all ends, or one entry an axis ({grid.ndim}); got {len(entries)} entries.")
    return tuple(_pair(entry, axis, axis in open_axes) for axis, entry in enumerate(entries))


def _pair(entry: Any, axis: int, is_open: bool) -> EndValues:
    pair = (entry, entry) if entry is None or _is_value(entry) else tuple(entry)
    if len(pair) != 2 or not all(v is None or _is_value(v) for v in pair):
        raise InvalidInput(f"values: on axis {axis} it must be a number, a tensor, or a pair (lower end, upper end).")
    if not is_open and any(v is not None for v in pair):
        raise InvalidInput(f"values: axis {axis} is periodic and has no ends; write None for it.")
    return pair


def _is_value(value: Any) -> bool:
    return isinstance(value, (int, float, torch.Tensor))


def pad(
    u: torch.Tensor, grid: Grid, axis: int, width: int, degrees: tuple[int, int], values: EndValues = (None, None)
) -> torch.Tensor:
    """``u`` with ``width`` ghosts at both ends of an axis that is not periodic, by polynomials of these degrees."""
    kinds = grid.boundary[axis]
    return _pad(u, grid, axis, width, (kinds[0], kinds[1]), degrees, values)


def pad_free(u: torch.Tensor, grid: Grid, axis: int, width: int, degree: int) -> torch.Tensor:
    """``u`` continued beyond both ends by polynomials through its points alone."""
    return _pad(u, grid, axis, width, ("free", "free"), (degree, degree), (None, None))


def _pad(
    u: torch.Tensor,
    grid: Grid,
    axis: int,
    width: int,
    kinds: tuple[str, str],
    degrees: tuple[int, int],
    values: EndValues,
) -> torch.Tensor:
    dim = axis - grid.ndim
    size = grid.shape[axis]
    sides = []
    for end in (0, 1):
        rows = weights(kinds[end], grid.points, width, degrees[end])
        used = len(rows[0]) - 1
        while used and all(row[used] == 0 for row in rows):
            used -= 1
        if used > size:
            raise InvalidInput(f"grid: axis {axis} has {size} points; its boundary needs {used} for this order.")
        given = values[end]
        if given is not None and kinds[end] == "neumann":
            given = given * grid.spacing[axis]
        sides.append(_ghosts(u, dim, size, end, [row[: used + 1] for row in rows], given))
    return torch.cat([sides[0], u, sides[1]], dim)


def _ghosts(
    u: torch.Tensor, dim: int, size: int, end: int, rows: Sequence[Sequence[float]], given: Value
) -> torch.Tensor:
    """The ghosts at one end, in the order of the axis."""
    used = len(rows[0]) - 1
    ordered = rows if end else rows[::-1]
    if len(rows) > 1 and used > 1:
        # Several ghosts of several points: one product with a constant matrix.
        inward = [list(row[1:]) if end == 0 else list(row[:0:-1]) for row in ordered]
        edge = u.narrow(dim, 0 if end == 0 else size - used, used)
        matrix = torch.tensor(inward, dtype=u.dtype, device=u.device)
        ghosts = (edge.movedim(dim, -1) @ matrix.T).movedim(-1, dim)
        if given is None:
            return ghosts
        return ghosts + torch.cat([_face(given, u, dim) * row[0] for row in ordered], dim)
    columns = [_ghost(u, dim, size, end, row, given) for row in ordered]
    return columns[0] if len(columns) == 1 else torch.cat(columns, dim)


def _ghost(u: torch.Tensor, dim: int, size: int, end: int, row: Sequence[float], given: Value) -> torch.Tensor:
    """One ghost, term by term."""
    total: torch.Tensor | None = None
    for i, w in enumerate(row[1:]):
        if w:
            point = u.narrow(dim, i if end == 0 else size - 1 - i, 1)
            point = point if w == 1 else w * point
            total = point if total is None else total + point
    if given is None or row[0] == 0:
        return torch.zeros_like(u.narrow(dim, 0, 1)) if total is None else total
    if isinstance(given, torch.Tensor) or total is None:
        face = _face(given, u, dim)
        face = face if row[0] == 1 else row[0] * face
        return face if total is None else total + face
    return total + row[0] * float(given)


def _face(value: float | torch.Tensor, u: torch.Tensor, dim: int) -> torch.Tensor:
    """A boundary value on the whole face of ``u``, kept as a slice of length one along ``dim``."""
    one = u.narrow(dim, 0, 1)
    if not isinstance(value, torch.Tensor):
        return torch.full_like(one, float(value))
    shape = u.shape[:dim] + (u.shape[dim + 1 :] if dim != -1 else ())
    try:
        return value.to(u.dtype).expand(shape).unsqueeze(dim)
    except RuntimeError as error:
        raise InvalidInput(
            f"values: a tensor of shape {tuple(value.shape)} does not fit the boundary of a field of shape "
            f"{tuple(u.shape)}; it must broadcast to {tuple(shape)}, the field's shape without the axis."
        ) from error
