"""Transport in flux form: what leaves a cell enters its neighbour, so sums change only through the ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.pde.ghosts import pad, pad_free, spread_values
from hybridsam_bridge.pde.grid import Grid, check_on

Flux = Callable[[torch.Tensor], torch.Tensor]
Velocity = float | torch.Tensor


def advection(
    u: torch.Tensor,
    velocity: Velocity | Sequence[Velocity],
    grid: Grid,
    order: int = 2,
    values: Any = None,
    closed: bool = False,
) -> torch.Tensor:
    """-∇·(v u), the change of ``u`` (*channels, *grid.shape) carried with ``velocity``, in flux form.

    Args:
        velocity: one entry an axis (one alone serves every axis): a number, or a tensor that broadcasts to ``u`` with
            the velocity at the points. Beyond an end a tensor is continued by a polynomial.
        order: 2 and 4 are central; 1 and 3 are upwind (3: upwind-biased), which damp what the grid cannot resolve.
        values: at the ends, as for ``laplacian``: the inflow at a Dirichlet end (at orders 1 and 2 the flux there is v
            times the value), and outflow through a Neumann one. Axes with ends need a grid of cells.
        closed: walls, no flux through any end; the values then matter only from order 3 on.

    The sum over cells changes only by the fluxes at the ends, to rounding. The solution is of the stated order; with
    a Dirichlet end order 4 falls to 3, the most whose boundary closure is stable. Fluxes after C.-W. Shu, ICASE
    report 97-65 (1997), section 2.

    Raises:
        InvalidInput: shapes, order, velocity or values do not fit the grid.
    """
    check_on("u", u, grid)
    entries = _per_axis("velocity", velocity, grid)

    def along(axis: int, w: torch.Tensor) -> tuple[torch.Tensor, Velocity]:
        v = _continued(entries[axis], u, grid, axis, order)
        return v * w, v.abs() if isinstance(v, torch.Tensor) else abs(v)

    return _advance(u, grid, order, values, closed, along)


def transport(
    u: torch.Tensor,
    flux: Flux | Sequence[Flux],
    grid: Grid,
    order: int = 2,
    values: Any = None,
    closed: bool = False,
    speed: Flux | Sequence[Flux] | None = None,
) -> torch.Tensor:
    """-∇·f(u) for a flux that is a function of the field, such as u²/2 for Burgers.

    Args:
        flux: ``f(u)``, pointwise, of the shape of u; one an axis, or one for all.
        speed: the largest speed of waves |df/du|, pointwise; orders 1 and 3 need it for their dissipation, half of it
            times the jump over a face (Lax and Friedrichs, local).
        order, values, closed: as for ``advection``.
    """
    check_on("u", u, grid)
    fluxes = _per_axis("flux", flux, grid)
    if speed is None and order in (1, 3):
        raise InvalidInput(f"speed: order {order} is upwind and needs the speed of waves; or take order 2 or 4.")
    speeds = None if speed is None else _per_axis("speed", speed, grid)

    def along(axis: int, w: torch.Tensor) -> tuple[torch.Tensor, Velocity]:
        through = fluxes[axis](w)
        if through.shape != w.shape:
            raise InvalidInput(f"flux: must keep the shape {tuple(w.shape)}, it returned {tuple(through.shape)}.")
        return through, 0.0 if speeds is None else speeds[axis](w)

    return _advance(u, grid, order, values, closed, along)


def _advance(
    u: torch.Tensor,
    grid: Grid,
    order: int,
    values: Any,
    closed: bool,
    along: Callable[[int, torch.Tensor], tuple[torch.Tensor, Velocity]],
) -> torch.Tensor:
    """The sum over the axes of differences of fluxes; ``along`` gives flux and speed at points with ghosts."""
    if order not in (1, 2, 3, 4):
        raise InvalidInput(f"order: must be 1, 2, 3 or 4, got {order!r}.")
    if grid.points != "cells" and not all(grid.periodic(axis) for axis in range(grid.ndim)):
        raise InvalidInput(
            'grid: transport with ends is in terms of cells, whose ends are faces; make the grid with points="cells", '
            "or use hsb.pde.derivative, which does not conserve."
        )
    given = spread_values(values, grid)
    total: torch.Tensor | None = None
    for axis, h in enumerate(grid.spacing):
        dim, size = axis - grid.ndim, grid.shape[axis]
        if grid.periodic(axis):
            flux, a = along(axis, u)
            through = _face_flux(flux, u, a, order, partial(_roll, dim))  # faces in the order of the cells below them
            out = torch.roll(through, 1, dim) - through
        else:
            width = _width(order)
            w = pad(u, grid, axis, width, _degrees(grid, axis, order), given[axis])
            flux, a = along(axis, w)
            through = _face_flux(flux, w, a, order, partial(_cut, dim, width - 1, size + 1))
            if closed:
                wall = torch.zeros_like(u.narrow(dim, 0, 1))
                through = torch.cat([wall, through.narrow(dim, 1, size - 1), wall], dim)
            out = through.narrow(dim, 0, size) - through.narrow(dim, 1, size)
        out = out * (1 / h)
        total = out if total is None else total + out
    assert total is not None, "a grid has at least one axis"
    return total


def _roll(dim: int, x: torch.Tensor, offset: int) -> torch.Tensor:
    return torch.roll(x, -offset, dim) if offset else x


def _cut(dim: int, start: int, length: int, x: torch.Tensor, offset: int) -> torch.Tensor:
    return x.narrow(dim, start + offset, length)


def _face_flux(
    f: torch.Tensor, u: torch.Tensor, speed: Velocity, order: int, at: Callable[[torch.Tensor, int], torch.Tensor]
) -> torch.Tensor:
    """Flux through every face, from the points around it; ``at(x, o)`` is x at the o-th point above the lower one."""
    if order <= 2:
        central = (at(f, 0) + at(f, 1)) * 0.5
    else:
        central = (at(f, 0) + at(f, 1)) * (7 / 12) - (at(f, -1) + at(f, 2)) * (1 / 12)
    if order in (2, 4):
        return central
    if isinstance(speed, torch.Tensor) and speed.ndim:
        speed = torch.maximum(at(speed, 0), at(speed, 1))
    if order == 1:
        return central - (0.5 * speed) * (at(u, 1) - at(u, 0))
    return central + (speed * (1 / 12)) * (at(u, 2) - at(u, -1) - 3 * (at(u, 1) - at(u, 0)))


def _width(order: int) -> int:
    return 1 if order <= 2 else 2


def _degrees(grid: Grid, axis: int, order: int) -> tuple[int, int]:
    """Of the boundary polynomials. At orders 1 and 2 the flux through a Dirichlet end is that of its value; beyond,
    they are the highest with which the spectrum stays in the left half plane, found by computing it.
    """
    by_kind = {"dirichlet": 2, "neumann": 3} if order > 2 else {"dirichlet": 1, "neumann": 1}
    low, high = (by_kind[kind] for kind in grid.boundary[axis])
    return low, high


def _continued(v: Velocity, u: torch.Tensor, grid: Grid, axis: int, order: int) -> Velocity:
    """The velocity at the points and, on an axis with ends, at the ghosts."""
    if not isinstance(v, torch.Tensor) or not v.ndim:
        return v
    try:
        v = v.expand(torch.broadcast_shapes(v.shape, grid.shape))
        fits = torch.broadcast_shapes(v.shape, u.shape) == u.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise InvalidInput(
            f"velocity: shape {tuple(v.shape)} on axis {axis} does not broadcast to the field's {tuple(u.shape)}."
        )
    return v if grid.periodic(axis) else pad_free(v, grid, axis, _width(order), 1 if order <= 2 else 3)


def _per_axis(name: str, value: Any, grid: Grid) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        return [value] * grid.ndim
    if len(value) != grid.ndim:
        raise InvalidInput(f"{name}: one for all axes, or one an axis ({grid.ndim}); got {len(value)}.")
    return value
