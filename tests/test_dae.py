"""Mass matrices and differential-algebraic equations, on the Julia backend."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import Robertson, f64

import hybridsam_bridge as hsb
from hybridsam_bridge.errors import InvalidInput, SolveFailed, UnsupportedOperation


class RobertsonDAE(Robertson):
    """Robertson's reaction with the conservation of mass in place of its third equation."""

    mass_matrix = (1.0, 1.0, 0.0)

    def forward(self, t, y, context=None):
        return torch.cat([super().forward(t, y)[:2], y.sum()[None] - 1])


class AkzoNobel(hsb.VectorField):
    """The chemical Akzo Nobel problem (Mazzia and Magherini, Test Set for IVP Solvers): six species, one algebraic."""

    state_shape = (6,)
    mass_matrix = (1.0, 1.0, 1.0, 1.0, 1.0, 0.0)

    def __init__(self):
        super().__init__()
        self.k = torch.nn.Parameter(f64(18.7, 0.58, 0.09, 0.42))
        self.Ks = torch.nn.Parameter(f64(115.83)[0])

    def forward(self, t, y, context=None):
        y1, y2, y3, y4, y5, y6 = y
        k1, k2, k3, k4 = self.k
        root = torch.sqrt(y2)
        r1, r2, r3, r4, r5 = k1 * y1**4 * root, k2 * y3 * y4, k2 / 34.4 * y1 * y5, k3 * y1 * y4**2, k4 * y6**2 * root
        inflow = 3.3 * (0.9 / 737 - y2)
        return torch.stack(
            [
                -2 * r1 + r2 - r3 - r4,
                -0.5 * r1 - r4 - 0.5 * r5 + inflow,
                r1 - r2 + r3,
                -r2 + r3 - 2 * r4,
                r2 - r3 + r5,
                self.Ks * y1 * y4 - y6,
            ]
        )

    def initial(self):
        return torch.stack([*f64(0.444, 0.00123, 0, 0.007, 0), self.Ks * 0.444 * 0.007])


@pytest.mark.julia
@pytest.mark.parametrize("method", ["Rodas5P", "Rodas4", "Rodas4P"])
def test_robertson_as_a_dae_has_the_published_end_points(method):
    """The end point's printed digits at rtol 1e-8, to 1e-6."""
    sol = hsb.solve(RobertsonDAE(), f64(1, 0, 0), f64(0, 40), method=method, rtol=1e-8, atol=1e-12, backend="julia")
    torch.testing.assert_close(sol.ys[-1], f64(0.7158270687194, 9.185534764558e-6, 0.2841637457458), rtol=1e-6, atol=0)


@pytest.mark.julia
@pytest.mark.parametrize("end", [40.0, 1e5])
def test_robertson_as_a_dae_has_the_published_gradients(end):
    """dy3/dk of the ODE: the DAE has the same solution. Printed digits, to 1e-6 at rtol 1e-9."""
    published = {
        40.0: f64(4.2475128597432, 2.2884688948566e-9, -1.3730572254235e-5),
        1e5: f64(0.79304859700886, 5.2818252605929e-10, -3.1690816983876e-6),
    }
    field = RobertsonDAE()
    sol = hsb.solve(field, f64(1, 0, 0), f64(0, end), rtol=1e-9, atol=1e-13, backend="julia")
    (grad,) = torch.autograd.grad(sol.ys[-1, 2], [field.k])
    torch.testing.assert_close(grad, published[end], rtol=1e-6, atol=0)


@pytest.mark.julia
def test_akzo_nobel_has_the_published_end_point():
    """All printed digits are right; rtol 1e-9 gives them to 1e-7."""
    field = AkzoNobel()
    with torch.no_grad():
        sol = hsb.solve(field, field.initial(), f64(0, 180), rtol=1e-9, atol=1e-12, backend="julia")
    published = f64(
        0.1150794920661702,
        0.1203831471567715e-2,
        0.1611562887407974,
        0.3656156421249283e-3,
        0.1708010885264404e-1,
        0.4873531310307455e-2,
    )
    torch.testing.assert_close(sol.ys[-1], published, rtol=1e-7, atol=0)


class Coupled(hsb.VectorField):
    """A mass matrix with entries off the diagonal, one algebraic equation, and explicit time."""

    state_shape = (3,)
    mass_matrix = ((2.0, 0.5, 0.0), (0.0, 1.0, 0.3), (0.0, 0.0, 0.0))

    def __init__(self):
        super().__init__()
        self.k = torch.nn.Parameter(f64(30.0, 1.0))

    def forward(self, t, y, context=None):
        a, b, c = y
        return torch.stack([-self.k[0] * a + b * c, torch.sin(3 * t) - self.k[1] * b, a + torch.exp(-b) - c - c**3])


START = f64(0.5, 0.2)


def consistent(start):
    """c of a + exp(-b) = c + c³ by Newton's method; the derivative follows the last iteration."""
    target = start[0] + torch.exp(-start[1])
    c = f64(0.7)[0]
    for _ in range(8):
        c = c - (c + c**3 - target) / (1 + 3 * c**2)
    return torch.stack([start[0], start[1], c])


@pytest.mark.julia
@pytest.mark.parametrize("linear", ["dense", "sparse", "krylov"])
def test_gradient_against_frozen_steps(linear):
    """Fourth-order differences on the recorded steps at a loose tolerance: the discrete adjoint's own function."""
    ts, field = f64(0, 0.3, 1.0, 2.2), Coupled()
    options = {"rtol": 1e-3, "atol": 1e-5, "backend": "julia", "linear": linear}
    recorded = hsb.solve(field, consistent(START), ts, record_steps=True, **options)
    weights = torch.arange(12, dtype=torch.float64).view(4, 3).sin()

    def loss(start, field):
        sol = hsb.solve(field, consistent(start), ts, steps=recorded.steps, **options)
        return (weights * sol.ys).sum()

    start = START.clone().requires_grad_()
    grads = torch.autograd.grad(loss(start, field), [start, field.k])
    h = 1e-4
    for which, gradient in zip(("start", "k"), grads, strict=True):
        for i in range(2):
            values = []
            for step in (-2, -1, 1, 2):
                other, moved = Coupled(), START.clone()
                with torch.no_grad():
                    (moved if which == "start" else other.k)[i] += step * h
                    values.append(loss(moved, other).item())
            difference = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
            # Truncation 1e-12; rounding and GMRES's residual of 1e-11 over h.
            assert gradient[i].item() == pytest.approx(difference, rel=1e-7, abs=1e-7), (which, i)


@pytest.mark.julia
def test_dae_against_the_reduced_ode():
    """c solved for inside a torch right-hand side by Newton's method, M inverted: SciPy on the ODE of (a, b)."""
    from scipy.integrate import solve_ivp

    def reduced(t, y):
        a, b = y
        c = 0.7
        for _ in range(30):
            c -= (c + c**3 - a - np.exp(-b)) / (1 + 3 * c**2)
        f1, f2 = -30 * a + b * c, np.sin(3 * t) - b
        # c' from the algebraic equation; then M (a', b', c') = f.
        slope = 1 + 3 * c**2
        matrix = np.array([[2.0, 0.5, 0.0], [0.0, 1.0, 0.3], [1.0, -np.exp(-b), -slope]])
        return np.linalg.solve(matrix, [f1, f2, 0.0])[:2]

    reference = solve_ivp(reduced, (0, 2), [0.5, 0.2], rtol=1e-10, atol=1e-12, method="DOP853").y[:, -1]
    with torch.no_grad():
        sol = hsb.solve(Coupled(), consistent(START), f64(0, 2), rtol=1e-8, atol=1e-10, backend="julia")
    np.testing.assert_allclose(sol.ys[-1, :2], reference, rtol=1e-6)  # both at 1e-8 or better


@pytest.mark.julia
def test_a_hybrid_keeps_the_mass_matrix():
    network = torch.nn.Linear(3, 3).double()
    field = hsb.Additive(RobertsonDAE(), network, mask=[True, True, False], scale=1e-3)
    sol = hsb.solve(field, f64(1, 0, 0), f64(0, 1, 40), backend="julia")
    torch.testing.assert_close(sol.ys.sum(-1), torch.ones(3).double(), rtol=0, atol=1e-9)
    sol.ys[-1, 0].backward()
    assert all(bool(p.grad.isfinite().all()) for p in field.parameters())


@pytest.mark.julia
def test_an_inconsistent_start_is_a_clear_error():
    with pytest.raises(SolveFailed, match="does not satisfy the algebraic equations") as failure:
        hsb.solve(RobertsonDAE(), f64(1, 0, 0.01), f64(0, 40), backend="julia")
    assert "algebraic unknowns of y0" in str(failure.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "Rosenbrock23"}, "Rodas5P"),
        ({"method": "FBDF"}, "Rodas5P"),
        ({"adjoint": "gauss"}, 'adjoint="discrete"'),
    ],
)
@pytest.mark.julia
def test_methods_without_mass_matrices_are_refused(options, message):
    with pytest.raises(UnsupportedOperation, match=message):
        hsb.solve(RobertsonDAE(), f64(1, 0, 0), f64(0, 1), backend="julia", **options)


@pytest.mark.julia
def test_gradient_for_output_times_is_refused():
    with pytest.raises(UnsupportedOperation, match="detach ts"):
        hsb.solve(RobertsonDAE(), f64(1, 0, 0), f64(0, 1).requires_grad_(), backend="julia")


@pytest.mark.parametrize("backend", ["torch", "scipy"])
def test_other_backends_refuse(backend):
    with pytest.raises(UnsupportedOperation, match="mass_matrix"):
        hsb.solve(RobertsonDAE(), f64(1, 0, 0), f64(0, 1), backend=backend)


@pytest.mark.parametrize(
    "mass", [(1.0, 1.0), (0.0, 0.0, 0.0), (1.0, float("nan"), 0.0), torch.ones(3).requires_grad_()]
)
def test_bad_mass_matrices_are_refused(mass):
    field = Robertson()
    field.mass_matrix = mass
    with pytest.raises(InvalidInput, match="mass_matrix"):
        hsb.solve(field, f64(1, 0, 0), f64(0, 1))


def test_the_identity_is_no_mass_matrix():
    field = Robertson()
    field.mass_matrix = torch.eye(3)
    assert field.plan(None)[0].mass is None
