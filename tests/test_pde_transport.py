"""Transport in flux form: conservation, orders, upwinding, stability at open ends, gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from test_pde_operators import DIRICHLET, NEUMANN, end_values, matrix, orders, wave

from hybridsam_bridge import pde


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_sums_are_conserved(order):
    """Periodic axes and walls lose nothing, whatever the velocity; the fluxes cancel to rounding."""
    torch.manual_seed(order)
    u, v = torch.rand(2, 9, 8).double(), torch.randn(9, 8).double()
    for boundary, closed in ((("periodic", "periodic"), False), (("periodic", NEUMANN), True), (DIRICHLET, True)):
        grid = pde.Grid((9, 8), upper=(1.0, 2.0), boundary=boundary)
        change = pde.advection(u, (v, -0.7), grid, order, closed=closed)
        burgers = pde.transport(u, lambda w: w * w / 2, grid, order, closed=closed, speed=torch.abs)
        for out in (change, burgers):
            assert out.abs().max() > 1  # something moves
            assert out.sum((-2, -1)).abs().max() < 1e-12  # 72 terms of size 10, rounding 1e-15 each


@pytest.mark.parametrize("order", [1, 2])
def test_what_enters_and_leaves_through_open_ends(order):
    """At Dirichlet ends of cells the flux is the velocity times the given value, at order 2 and for inflow at 1."""
    grid = pde.Grid(10, boundary=((DIRICHLET, NEUMANN),))
    u = torch.rand(10).double()
    gain = pde.advection(u, 2.0, grid, order, values=(3.0, 0.0)).sum().item() * 0.1
    inflow = 2.0 * (3.0 if order == 2 else (2 * 3.0 - u[0].item()))  # order 1 takes the ghost itself, 2g - u
    assert gain == pytest.approx(inflow - 2.0 * u[-1].item(), abs=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_order_with_variable_velocity(order):
    """-(v u)' of smooth periodic functions, in the maximum norm."""
    errors = []
    for n in (32, 64, 128):
        grid = pde.Grid(n, upper=2 * math.pi)
        x = grid.coordinates()
        u, v = torch.exp(torch.sin(x)), 2 + torch.cos(x)
        exact = torch.sin(x) * u - v * u * torch.cos(x)
        errors.append((pde.advection(u, v, grid, order) - exact).abs().max().item())
    assert (orders(errors) > order - 0.2).all(), errors


@pytest.mark.parametrize(("order", "stated"), [(1, 1), (2, 2), (3, 3), (4, 3)])
def test_order_with_open_ends(order, stated):
    """-u' = f with an inflow value and an outflow slope: the stated order of the solution."""
    ends, errors = (DIRICHLET, NEUMANN), []
    for n in (40, 80, 160):
        grid = pde.Grid(n, boundary=(ends,))
        x = grid.coordinates()
        u, slope, _ = wave(x)
        known = pde.advection(torch.zeros_like(x), 1.0, grid, order, values=end_values(ends))
        solution = np.linalg.solve(
            matrix(lambda w, g=grid: pde.advection(w, 1.0, g, order), grid), (-slope - known).numpy()
        )
        errors.append(np.abs(solution - u.numpy()).max())
    assert (orders(errors) > stated - 0.2).all(), errors


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("velocity", [1.0, -1.0])
def test_nothing_grows(order, velocity):
    """The spectrum stays in the left half plane, with inflow and outflow and on a ring; upwind orders damp."""
    ends = (DIRICHLET, NEUMANN) if velocity > 0 else (NEUMANN, DIRICHLET)
    for n in (8, 30):
        for boundary in ((ends,), "periodic"):
            grid = pde.Grid(n, boundary=boundary)
            a = matrix(lambda w, g=grid: pde.advection(w, velocity, g, order), grid) * grid.spacing[0]
            # Rounding of a defective or normal matrix; an unstable closure grows at 1e-2 to 1 in these units.
            assert np.linalg.eigvals(a).real.max() < 1e-12
            if boundary == "periodic" and order in (2, 4):
                np.testing.assert_allclose(a, -a.T, atol=1e-15)  # central: no damping at all


def test_first_order_is_the_upwind_scheme():
    """Both signs, against the textbook formula: -v (u_i - u_{i-1}) / h for v > 0."""
    grid = pde.Grid(7)
    u = torch.rand(7).double()
    rising = -2.0 * (u - torch.roll(u, 1)) * 7
    falling = 2.0 * (torch.roll(u, -1) - u) * 7
    torch.testing.assert_close(pde.advection(u, 2.0, grid, 1), rising, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(pde.advection(u, torch.tensor(-2.0), grid, 1), falling, rtol=1e-13, atol=1e-13)


def test_third_order_is_upwind_biased():
    """-v (2 u_{i+1} + 3 u_i - 6 u_{i-1} + u_{i-2}) / 6h for v > 0."""
    grid = pde.Grid(7)
    u = torch.rand(7).double()
    biased = -(2 * torch.roll(u, -1) + 3 * u - 6 * torch.roll(u, 1) + torch.roll(u, 2)) * 7 / 6
    torch.testing.assert_close(pde.advection(u, 1.0, grid, 3), biased, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("boundary", ["periodic", DIRICHLET, NEUMANN])
def test_gradients(order, boundary):
    """Against central differences, for the field, the velocity and the values given."""
    grid = pde.Grid((6, 5), boundary=boundary)
    torch.manual_seed(3)
    u = torch.rand(6, 5, dtype=torch.float64, requires_grad=True)
    v = (0.5 + torch.rand(6, 5, dtype=torch.float64)).requires_grad_()  # away from the kink of |v|
    g = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)

    def both(u, v, g):
        values = None if boundary == "periodic" else g
        carried = pde.advection(u, (v, g), grid, order, values)
        return carried, pde.transport(u, lambda w: w**3, grid, order, values, speed=lambda w: 3 * w * w)

    # max(speed, speed) kinks only where neighbours are equal, which random numbers are not.
    assert torch.autograd.gradcheck(both, (u, v, g))
