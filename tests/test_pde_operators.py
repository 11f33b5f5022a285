"""Finite differences: orders, boundary conditions, symmetry, spectra, gradients and refusals."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch
from problems import f64

import hybridsam_bridge as hsb
from hybridsam_bridge import pde

DIRICHLET, NEUMANN = "dirichlet", "neumann"
ONE_D = [
    ("cells", (DIRICHLET, DIRICHLET)),
    ("cells", (NEUMANN, DIRICHLET)),
    ("nodes", (DIRICHLET, DIRICHLET)),
    ("nodes", (DIRICHLET, NEUMANN)),
]


def matrix(operator, grid):
    """The operator's matrix, one column a unit vector."""
    n = math.prod(grid.shape)
    return torch.stack([operator(e.reshape(grid.shape)).reshape(-1) for e in torch.eye(n).double()], 1).numpy()


def orders(errors):
    """Observed orders of errors on grids halved each time."""
    e = np.array(errors)
    return np.log2(e[:-1] / e[1:])


def wave(x):
    """A function with no symmetry at 0 or 1, and its first two derivatives."""
    u = torch.sin(3 * x + 0.4) * torch.exp(x)
    v = torch.cos(3 * x + 0.4) * torch.exp(x)
    return u, 3 * v + u, -8 * u + 6 * v


def end_values(ends):
    """What ``wave`` prescribes at 0 and 1: its value, or its derivative along the outward normal."""
    out = []
    for kind, x, sign in zip(ends, (0.0, 1.0), (-1, 1), strict=True):
        value, slope, _ = wave(f64(x)[0])
        out.append(value if kind == DIRICHLET else sign * slope)
    return tuple(out)


@pytest.mark.parametrize("order", [2, 4])
@pytest.mark.parametrize("points", ["cells", "nodes"])
def test_eigenvalues_of_periodic_waves(order, points):
    """Every Fourier mode is an eigenvector; the eigenvalue is the stencil's symbol, known in closed form."""
    grid = pde.Grid((12, 9), upper=(2.0, 1.5), points=points)
    x, y = grid.mesh()
    u = torch.sin(2 * math.pi * (3 * x / 2.0 + 2 * y / 1.5))
    symbol = 0.0
    for k, h, length in zip((3, 2), grid.spacing, (2.0, 1.5), strict=True):
        c1, c2 = math.cos(2 * math.pi * k * h / length), math.cos(4 * math.pi * k * h / length)
        symbol += (2 * c1 - 2) / h**2 if order == 2 else (-30 + 32 * c1 - 2 * c2) / (12 * h**2)
    # Rounding: values of size 1/h² ~ 40, so a few 1e-14 of them.
    torch.testing.assert_close(pde.laplacian(u, grid, order), symbol * u, rtol=0, atol=1e-11)


@pytest.mark.parametrize("order", [2, 4])
@pytest.mark.parametrize(("points", "ends"), ONE_D)
def test_order_of_a_boundary_value_problem(points, ends, order):
    """u'' = f solved with the discrete Laplacian: the error falls with the stated order in the maximum norm."""
    errors = []
    for n in (40, 80, 160):
        grid = pde.Grid(n, boundary=(ends,), points=points)
        x = grid.coordinates()
        u, _, second = wave(x)
        inhomogeneous = pde.laplacian(torch.zeros_like(x), grid, order, values=end_values(ends))
        solution = np.linalg.solve(
            matrix(lambda w, g=grid: pde.laplacian(w, g, order), grid), (second - inhomogeneous).numpy()
        )
        errors.append(np.abs(solution - u.numpy()).max())
    # Observed orders wander by some tenths before the asymptotic range; an order less would show as one.
    assert (orders(errors) > order - 0.35).all(), errors


@pytest.mark.parametrize("order", [2, 4])
@pytest.mark.parametrize(("points", "ends"), [*ONE_D, ("cells", ("periodic", "periodic"))])
def test_order_of_the_derivative(points, ends, order):
    """Up to and including the points at the ends."""
    errors = []
    for n in (40, 80, 160):
        grid = pde.Grid(n, boundary=(ends,), points=points)
        x = grid.coordinates()
        if ends[0] == "periodic":
            u, slope, values = torch.exp(torch.sin(2 * math.pi * x)), None, None
            slope = 2 * math.pi * torch.cos(2 * math.pi * x) * u
        else:
            (u, slope, _), values = wave(x), end_values(ends)
        errors.append((pde.derivative(u, grid, 0, order, values) - slope).abs().max().item())
    assert (orders(errors) > order - 0.35).all(), errors


@pytest.mark.parametrize(("points", "ends"), [*ONE_D, ("cells", ("periodic", "periodic"))])
def test_second_order_is_symmetric_and_negative(points, ends):
    grid = pde.Grid(12, boundary=(ends,), points=points)
    a = matrix(lambda w: pde.laplacian(w, grid), grid)
    weight = np.ones(12)
    for end, kind in zip((0, -1), ends, strict=True):
        if points == "nodes" and kind == NEUMANN:
            weight[end] = 0.5  # the point on the end has half a cell
    a = weight[:, None] * a
    np.testing.assert_array_equal(a, a.T)
    spectrum = np.linalg.eigvalsh(a)
    assert spectrum[-1] < 1e-10  # rounding of entries of size 300
    if DIRICHLET in ends:
        assert spectrum[-1] < -1  # the lowest mode decays at least as cos(πx/2), at a rate near π²/4


@pytest.mark.parametrize(("points", "ends"), [*ONE_D, ("cells", (NEUMANN, NEUMANN)), ("nodes", (NEUMANN, NEUMANN))])
def test_fourth_order_closures_are_stable(points, ends):
    """The spectrum is real and not positive, so the semi-discrete heat equation cannot grow."""
    for n in (8, 25):
        grid = pde.Grid(n, boundary=(ends,), points=points)
        spectrum = np.linalg.eigvals(matrix(lambda w, g=grid: pde.laplacian(w, g, 4), grid)) * grid.spacing[0] ** 2
        assert spectrum.real.max() < 1e-12
        assert np.abs(spectrum.imag).max() < 1e-6  # double eigenvalues split by the root of rounding


def test_laplacian_of_a_product_in_two_and_three_dimensions():
    """∇²(f g h) = f'' g h + ..., the axes being independent; ends of every kind, a value given at one."""
    sizes, kinds = (7, 6, 8), ("periodic", NEUMANN, (NEUMANN, DIRICHLET))
    torch.manual_seed(0)
    factors = [torch.rand(n).double() for n in sizes]
    for dim in (2, 3):
        grid = pde.Grid(sizes[:dim], upper=(1.0, 2.0, 3.0)[:dim], boundary=kinds[:dim])
        lines = [pde.Grid(n, upper=b, boundary=(k,)) for n, b, k in zip(sizes, (1.0, 2.0, 3.0), kinds, strict=True)]
        letters = "ijk"[:dim]
        expected = 0
        for axis in range(dim):
            f = list(factors[:dim])
            f[axis] = pde.laplacian(f[axis], lines[axis])
            expected = expected + torch.einsum(",".join(letters) + "->" + letters, *f)
        u = torch.einsum(",".join(letters) + "->" + letters, *factors[:dim])
        torch.testing.assert_close(pde.laplacian(u, grid), expected, rtol=1e-12, atol=1e-11)
        slopes = pde.gradient(u, grid)
        assert slopes.shape == (dim, *grid.shape)
        f = list(factors[:dim])
        f[1] = pde.derivative(f[1], lines[1])
        torch.testing.assert_close(slopes[1], torch.einsum(",".join(letters) + "->" + letters, *f), rtol=1e-12, atol=0)


def test_values_by_channel_along_a_face_and_in_time():
    grid = pde.Grid((5, 4), boundary=DIRICHLET)
    u = torch.rand(2, 5, 4).double()
    south = torch.rand(2, 5).double()  # one value a channel and point of the face y = 0
    both = pde.laplacian(u, grid, values=(None, (south, 3.0)))
    for c in range(2):
        for i in range(5):
            # A Dirichlet value g adds 2 g / h² at the point half a spacing from it.
            extra = (both - pde.laplacian(u, grid))[c, i] / (2 * 16)
            torch.testing.assert_close(extra, torch.stack([south[c, i], f64(0)[0], f64(0)[0], f64(3)[0]]))
    line = pde.Grid(6, boundary=(("neumann", "dirichlet"),))
    per_channel = f64(1.0, -2.0)
    a = pde.laplacian(u[:, 0].repeat(1, 2)[:, :6], line, values=(per_channel, 5.0))
    b = torch.stack([pde.laplacian(u[c, 0].repeat(2)[:6], line, values=(float(per_channel[c]), 5.0)) for c in (0, 1)])
    torch.testing.assert_close(a, b)


def test_neumann_values_are_the_inflow():
    """What flows in through the ends is what the sum over cells gains, to rounding."""
    grid = pde.Grid((6, 5), upper=(1.2, 2.0), boundary=NEUMANN)
    u = torch.randn(6, 5).double()
    gain = pde.laplacian(u, grid, values=((2.0, -0.5), (0.25, None))).sum() * math.prod(grid.spacing)
    assert gain.item() == pytest.approx((2.0 - 0.5) * 2.0 + 0.25 * 1.2, abs=1e-12)


@pytest.mark.parametrize("order", [2, 4])
@pytest.mark.parametrize("kind", ["periodic", DIRICHLET, NEUMANN])
def test_gradients(order, kind):
    """Against central differences: the operators are affine in the field and in the values given."""
    grid = pde.Grid((6, 7), boundary=kind)
    u, value = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((2, 6, 7), (2, 1)))

    def both(u, value):
        values = None if kind == "periodic" else ((value, 0.3), value)
        return pde.laplacian(u, grid, order, values), pde.gradient(u, grid, order, values)

    assert torch.autograd.gradcheck(both, (u, value))


def test_float32_is_kept():
    grid = pde.Grid(8, boundary=DIRICHLET)
    for order in (2, 4):
        assert pde.laplacian(torch.rand(8), grid, order, values=1.0).dtype == torch.float32


def test_grid_points():
    assert pde.Grid(4).coordinates().tolist() == [0.125, 0.375, 0.625, 0.875]
    assert pde.Grid(4, points="nodes").coordinates().tolist() == [0, 0.25, 0.5, 0.75]
    assert pde.Grid(3, boundary=DIRICHLET, points="nodes").coordinates().tolist() == [0.25, 0.5, 0.75]
    assert pde.Grid(5, boundary=NEUMANN, points="nodes").coordinates().tolist() == [0, 0.25, 0.5, 0.75, 1]
    mixed = pde.Grid(4, 1.0, 3.0, boundary=((DIRICHLET, NEUMANN),), points="nodes")
    assert mixed.coordinates().tolist() == [1.5, 2, 2.5, 3]
    assert mixed.spacing == (0.5,)


def test_a_grid_is_a_value():
    grid = pde.Grid((4, 5), boundary=("neumann", "periodic"))
    assert pickle.loads(pickle.dumps(grid)) == copy.deepcopy(grid) == grid
    assert dataclasses.replace(grid, points="nodes") != grid
    with pytest.raises(dataclasses.FrozenInstanceError):
        grid.points = "nodes"


def test_another_grid_is_another_plan():
    """A field whose grid was replaced is not solved with the program of the old one."""

    class Heat(hsb.VectorField):
        state_shape = (6,)
        grid = None

        def forward(self, t, y, context=None):
            return pde.laplacian(y, self.grid)

    field = Heat()
    plans = []
    for boundary in (DIRICHLET, NEUMANN, NEUMANN):
        field.grid = pde.Grid(6, boundary=boundary)
        plans.append(field.plan(None)[0])
    assert plans[0] is not plans[1]
    assert plans[1] is plans[2]


U = torch.zeros(8, dtype=torch.float64)
OPEN = pde.Grid(8, boundary=DIRICHLET)
REFUSED = [
    (lambda: pde.Grid((8, 0)), "shape"),
    (lambda: pde.Grid((2, 2, 2, 2)), "shape"),
    (lambda: pde.Grid(8, 1.0, 1.0), "upper"),
    (lambda: pde.Grid(8, math.nan), "lower"),
    (lambda: pde.Grid((8, 8), upper=(1.0, 1.0, 1.0)), "upper"),
    (lambda: pde.Grid(8, boundary="robin"), "periodic, dirichlet, neumann"),
    (lambda: pde.Grid(8, boundary=("neumann", "dirichlet")), "two ends"),
    (lambda: pde.Grid(8, boundary=(("periodic", "dirichlet"),)), "periodic at one end only"),
    (lambda: pde.Grid(8, points="corners"), "cells, nodes"),
    (lambda: pde.Grid(1, boundary=NEUMANN, points="nodes"), "make no axis"),
    (lambda: pde.laplacian(U[:5], OPEN), "shape"),
    (lambda: pde.laplacian([0.0] * 8, OPEN), "tensor"),
    (lambda: pde.laplacian(U, (8,)), "hsb.pde.Grid"),
    (lambda: pde.laplacian(U, OPEN, 3), "2 or 4"),
    (lambda: pde.laplacian(U, pde.Grid(8), values=1.0), "periodic"),
    (lambda: pde.laplacian(U, OPEN, values=(1.0, 2.0, 3.0)), "one entry an axis"),
    (lambda: pde.laplacian(U, OPEN, values=(torch.zeros(3), 0.0)), "broadcast"),
    (lambda: pde.laplacian(U.reshape(2, 4), pde.Grid((2, 4), boundary=("periodic", NEUMANN)), values=(1, 2)), "None"),
    (lambda: pde.laplacian(U[:3], pde.Grid(3, boundary=DIRICHLET), 4), "needs 4"),
    (lambda: pde.laplacian(U[:4], pde.Grid(4), 4), "5 or more"),
    (lambda: pde.derivative(U, OPEN, axis=1), "axis"),
    (lambda: pde.advection(U, (1.0, 2.0), OPEN), "velocity"),
    (lambda: pde.advection(U, torch.ones(3), OPEN), "velocity"),
    (lambda: pde.advection(U, 1.0, OPEN, 5), "1, 2, 3 or 4"),
    (lambda: pde.advection(U, 1.0, pde.Grid(8, boundary=DIRICHLET, points="nodes")), "cells"),
    (lambda: pde.transport(U, torch.sin, OPEN, 1), "speed"),
    (lambda: pde.transport(U, torch.sum, OPEN), "keep the shape"),
]


@pytest.mark.parametrize(("call", "words"), REFUSED)
def test_refusals(call, words):
    with pytest.raises(hsb.InvalidInput, match=words):
        call()
