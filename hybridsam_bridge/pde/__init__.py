"""Partial differential equations by the method of lines: grids, boundary conditions and finite differences.

Everything here is a pure function of tensors, so a right-hand side written with it is traced, differentiated and
compiled like any other.

    grid = pde.Grid((64, 64), upper=1.0, boundary="periodic")
    dy = kappa * pde.laplacian(y, grid) + pde.advection(y, (1.0, 0.5), grid)
"""

from hybridsam_bridge.pde.fluxes import advection, transport
from hybridsam_bridge.pde.grid import Grid
from hybridsam_bridge.pde.operators import derivative, gradient, laplacian

__all__ = ["Grid", "advection", "derivative", "gradient", "laplacian", "transport"]
