"""Derivatives in space: Laplacian, gradient and single derivatives by central differences."""

from __future__ import annotations

from typing import Any

import torch

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.pde.ghosts import EndValues, pad, spread_values
from hybridsam_bridge.pde.grid import Grid, check_axis, check_on

# Degree of the boundary polynomial at order 4: the ghosts' errors, divided by the spacing squared, are then of
# third order on a few points, which the inverse of the operator smooths to fourth.
DEGREE_4 = 4

# Weights of the second difference, from the outermost neighbour inwards; the centre's makes them sum to zero.
_SECOND = {2: (1.0,), 4: (-1 / 12, 4 / 3)}


def laplacian(u: torch.Tensor, grid: Grid, order: int = 2, values: Any = None) -> torch.Tensor:
    """The sum of second derivatives of ``u`` (*channels, *grid.shape), in units of u per space squared.

    Central differences of three points an axis (order 2) or five (order 4). At order 2 the matrix is symmetric and
    negative (on nodes with Neumann ends: in the inner product that counts the end points half), and on cells with
    homogeneous Neumann ends or periodic ones it conserves the sum. At order 4 periodic axes keep both properties;
    other ends are closed by one-sided polynomials, which keep order 4 for point values.

    Args:
        order: 2 or 4.
        values: what the boundary conditions prescribe: the field at Dirichlet ends, its derivative along the outward
            normal at Neumann ends; zero if None. One number or tensor for every end, or one entry an axis, each None,
            a number, a tensor or a pair (lower end, upper end); on a one-dimensional grid the pair itself will do.
            A tensor broadcasts to the field's shape without that axis: ``(channels,)`` in one dimension,
            ``(channels, 1)`` or ``(channels, n)`` in two. May depend on time and parameters.

    Raises:
        InvalidInput: shapes, order or values do not fit the grid.
    """
    check_on("u", u, grid)
    _check_order(order)
    given = spread_values(values, grid)
    rings: dict[float, torch.Tensor] = {}  # sums of neighbours, by their weight: few operators, few multiplications
    centre = 0.0
    for axis, h in enumerate(grid.spacing):
        near = _shifted(u, grid, axis, order, given[axis], compact=True)
        for side, weight in enumerate(_SECOND[order]):
            w = weight / (h * h)
            pair = near[side] + near[-1 - side]
            rings[w] = rings[w] + pair if w in rings else pair
            centre += 2 * w
    total = u * -centre
    for w, ring in rings.items():
        total = total + ring * w
    return total


def derivative(u: torch.Tensor, grid: Grid, axis: int = 0, order: int = 2, values: Any = None) -> torch.Tensor:
    """The first derivative of ``u`` (*channels, *grid.shape) along one axis by central differences.

    ``order`` is 2 or 4, up to the ends; ``values`` as for ``laplacian``. Not conservative near ends: ``advection``
    and ``transport`` are.
    """
    check_on("u", u, grid)
    check_axis(grid, axis)
    _check_order(order)
    near = _shifted(u, grid, axis, order, spread_values(values, grid)[axis], compact=False)
    h = grid.spacing[axis]
    if order == 2:
        return (near[1] - near[0]) * (1 / (2 * h))
    return (near[2] - near[1]) * (2 / (3 * h)) - (near[3] - near[0]) * (1 / (12 * h))


def gradient(u: torch.Tensor, grid: Grid, order: int = 2, values: Any = None) -> torch.Tensor:
    """The derivatives of ``u`` (*channels, *grid.shape) along every axis: ``(ndim, *channels, *grid.shape)``.

    Arguments as for ``laplacian``.
    """
    return torch.stack([derivative(u, grid, axis, order, values) for axis in range(grid.ndim)])


def _shifted(
    u: torch.Tensor, grid: Grid, axis: int, order: int, values: EndValues, compact: bool
) -> list[torch.Tensor]:
    """``u`` at the neighbours -1, 1 (order 2) or -2, -1, 1, 2 (order 4) of every point.

    ``compact`` takes the lowest boundary polynomials with which second differences stay of second order; they make
    the Laplacian symmetric.
    """
    dim, size = axis - grid.ndim, grid.shape[axis]
    width = order // 2
    offsets = [o for o in range(-width, width + 1) if o]
    if grid.periodic(axis):
        if size < 2 * width + 1:
            raise InvalidInput(f"grid: axis {axis} has {size} points; order {order} needs {2 * width + 1} or more.")
        return [torch.roll(u, -o, dim) for o in offsets]
    low, high = grid.boundary[axis]
    degrees = (_degree(low, grid, order, compact), _degree(high, grid, order, compact))
    padded = pad(u, grid, axis, width, degrees, values)
    return [padded.narrow(dim, width + o, size) for o in offsets]


def _degree(kind: str, grid: Grid, order: int, compact: bool) -> int:
    if order == 4:
        return DEGREE_4
    on_cells = grid.points == "cells"
    if kind == "neumann":
        return 1 if on_cells else 2
    return 1 if compact or not on_cells else 2


def _check_order(order: int) -> None:
    if order not in (2, 4):
        raise InvalidInput(f"order: must be 2 or 4, got {order!r}.")
