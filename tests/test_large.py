"""Sparse and iterative linear algebra on the Julia backend: the same numbers as dense, and derivatives of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pde_reference import example
from problems import f64

import hybridsam_bridge as hsb
from hybridsam_bridge.backends import linear as systems
from hybridsam_bridge.config import settings
from hybridsam_bridge.errors import InvalidInput, UnsupportedOperation

Brusselator2D = example("brusselator_2d").Brusselator2D
Brusselator1D = example("brusselator_1d").Brusselator1D
TS = f64(0.0, 0.7, 1.5)


def gradients(field, linear, ts=TS, **options):
    options = {"rtol": 1e-5, "atol": 1e-8, "backend": "julia", "linear": linear} | options
    y0 = field.initial().requires_grad_()
    sol = hsb.solve(field, y0, ts, **options)
    weights = torch.linspace(0.5, 1.5, sol.ys[1:].numel(), dtype=torch.float64).view_as(sol.ys[1:])
    grads = torch.autograd.grad((weights * sol.ys[1:]).mean(), [y0, *field.parameters()])
    return sol, grads


def close(actual, expected, rtol):
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * b.abs().max().item())


@pytest.mark.julia
@pytest.mark.parametrize(
    ("linear", "method", "rtol"),
    [
        ("sparse", "Rodas5P", 1e-8),  # LU in another order rounds differently, which moves the steps a little
        ("sparse", "Rodas4", 1e-8),
        ("sparse", "Rosenbrock23", 1e-8),
        ("krylov", "Rodas5P", 1e-6),  # GMRES stops at 1e-3 of the steps' tolerance, steps differ a little
        ("sparse", "KenCarp4", 1e-6),  # Newton's iterations stop at a share of the tolerances
        ("krylov", "KenCarp4", 1e-6),
    ],
)
def test_sparse_and_iterative_agree_with_dense(linear, method, rtol):
    field = Brusselator2D(n=6)
    dense, expected = gradients(field, "dense", method=method)
    other, actual = gradients(field, linear, method=method)
    assert (dense.stats.linear, other.stats.linear) == ("dense", linear)
    torch.testing.assert_close(other.ys, dense.ys, rtol=rtol, atol=rtol)
    close(actual, expected, rtol)


@pytest.mark.julia
@pytest.mark.parametrize("linear", ["sparse", "krylov"])
def test_gradient_against_frozen_steps(linear):
    """Differences of the solve on the steps that it took; rounding of 1e-13 over a step of 1e-4."""
    field = Brusselator2D(n=8)
    recorded = hsb.solve(field, field.initial(), TS, rtol=1e-3, atol=1e-6, backend="julia", record_steps=True)
    options = {"steps": recorded.steps, "linear": linear}
    _, (grad_y0, grad_reaction, grad_alpha) = gradients(field, rtol=1e-7, **options)
    rng = np.random.default_rng(0)
    along = torch.from_numpy(rng.normal(size=grad_y0.shape))
    moved = {"y0": (grad_y0 * along).sum(), "alpha": grad_alpha, "reaction": grad_reaction[1]}

    def loss(h, name):
        other = Brusselator2D(n=8)
        y0 = other.initial() + (h * along if name == "y0" else 0.0)
        with torch.no_grad():
            if name == "alpha":
                other.alpha += h
            if name == "reaction":
                other.reaction[1] += h
        # Forced steps: the tolerance is GMRES's alone, whose residuals of 1e-11 are divided by h too.
        sol = hsb.solve(other, y0, TS, rtol=1e-7, atol=1e-8, backend="julia", **options)
        weights = torch.linspace(0.5, 1.5, sol.ys[1:].numel(), dtype=torch.float64).view_as(sol.ys[1:])
        return (weights * sol.ys[1:]).mean().item()

    for name, gradient in moved.items():
        h = 1e-4
        values = [loss(k * h, name) for k in (-2, -1, 1, 2)]
        difference = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
        assert gradient.item() == pytest.approx(difference, rel=1e-6, abs=1e-9), name


@pytest.mark.julia
def test_published_end_point_of_the_brusselator_in_one_dimension():
    """N = 500, t = 10, every seventh of the interleaved components (Hairer's test set); at rtol 1e-8 the printed digits
    are met to 1e-7."""
    field = Brusselator1D(n=500)
    with torch.no_grad():
        sol = hsb.solve(field, field.initial(), f64(0, 10), rtol=1e-8, atol=1e-8, backend="julia")
    assert sol.stats.linear == "sparse"
    interleaved = sol.ys[-1].T.reshape(-1)[[0, 7, 14, 21]]
    published = f64(0.9949197002317599, 3.0213845767604077, 0.9594350193986054, 3.0585989778165419)
    torch.testing.assert_close(interleaved, published, rtol=1e-7, atol=0)


class Chain(hsb.VectorField):
    """u_t = k u_xx on n points, with a dense coupling where asked."""

    def __init__(self, n, coupled=False):
        super().__init__()
        self.state_shape = (n,)
        self.k = torch.nn.Parameter(f64(1.0))
        self.coupled = coupled

    def forward(self, t, y, context=None):
        padded = torch.nn.functional.pad(y[None, None], (1, 1))[0, 0]
        out = self.k * (padded[2:] - 2 * y + padded[:-2])
        return out + 1e-3 * y.mean() if self.coupled else out


def plan(field):
    return field.plan(None)[0]


@pytest.mark.parametrize(
    ("field", "method", "adjoint", "asked", "expected"),
    [
        (Chain(100), "Rodas5P", "discrete", "auto", "dense"),
        (Chain(500), "Rodas5P", "discrete", "auto", "sparse"),
        (Chain(500), "Rodas5P", "discrete", "dense", "dense"),
        (Chain(500), "KenCarp4", "discrete", "auto", "sparse"),
        (Brusselator2D(n=12), "Rodas5P", "discrete", "auto", "krylov"),
        (Brusselator2D(n=12), "KenCarp4", "discrete", "auto", "krylov"),
        (Chain(500), "Rodas5P", "gauss", "auto", "dense"),
        (Chain(500), "FBDF", "gauss", "auto", "dense"),
        (Chain(500), "Tsit5", "discrete", "auto", "none"),
        (Chain(500, coupled=True), "Rodas5P", "discrete", "auto", "dense"),
        (Chain(20), "Rodas5P", "discrete", "krylov", "krylov"),
    ],
)
def test_choice_by_size_and_pattern(field, method, adjoint, asked, expected):
    assert systems.choose(plan(field), method, adjoint, asked)[0] == expected


@pytest.mark.parametrize(("wide", "expected"), [(False, "sparse"), (True, "krylov")])
def test_choice_by_the_width_of_the_reordered_jacobian(wide, expected):
    """The same graph, a strip of 4 x 225 or a square of 30 x 30 points, whatever the order of the unknowns."""
    field = Chain(900)
    other, across = plan(field), 30 if wide else 4
    shuffled = np.random.default_rng(0).permutation(900)
    neighbours = np.array([(i, j) for i in range(900) for j in (i, i + 1, i + across) if j < 900]).T
    pairs = np.concatenate([neighbours, neighbours[::-1]], axis=1)
    other.memo["jacobian entries"] = tuple(shuffled[pairs])
    assert systems.choose(other, "Rodas5P", "discrete", "auto")[0] == expected


class Transport(hsb.VectorField):
    """u_t + c u_x = d ∇²u - u³ on n^dimensions points, upwind, zero at the walls: neither symmetric nor linear."""

    def __init__(self, n, dimensions, drift, spread):
        super().__init__()
        self.n, self.state_shape = n, (n,) * dimensions
        self.rates = torch.nn.Parameter(f64(drift, spread))

    def forward(self, t, y, context=None):
        out = -(y**3)
        for d in range(y.dim()):
            zeros = torch.zeros_like(y.narrow(d, 0, 1))
            left = torch.cat([zeros, y.narrow(d, 0, self.n - 1)], d)
            right = torch.cat([y.narrow(d, 1, self.n - 1), zeros], d)
            out = out + self.rates[1] * self.n**2 * (left - 2 * y + right)
            if d == 0:
                out = out - self.rates[0] * self.n * (y - left)
        return out

    def initial(self):
        x = torch.linspace(0, 1, self.n, dtype=torch.float64)
        out = torch.ones((), dtype=torch.float64)
        for _ in self.state_shape:
            out = out[..., None] * torch.sin(3 * x)
        return 1 + out


@pytest.mark.julia
@pytest.mark.parametrize(
    "field",
    [Transport(20, 2, 30.0, 0.05), Transport(32, 2, 3.0, 2.0), Transport(9, 3, 1.0, 1.0)],
    ids=["drift", "diffusion", "cube"],
)
def test_multigrid_agrees_with_a_factorisation(field):
    """Also without symmetry and in three dimensions. GMRES stops at 1e-3 of rtol, and the loss is linear: 1e-7."""
    ts = f64(0, 0.01, 0.05)
    direct, expected = gradients(field, "sparse", ts=ts, rtol=1e-6)
    other, actual = gradients(field, "auto", ts=ts, rtol=1e-6)
    assert (direct.stats.linear, other.stats.linear) == ("sparse", "krylov")
    torch.testing.assert_close(other.ys, direct.ys, rtol=1e-7, atol=1e-7)
    close(actual, expected, 1e-7)


@pytest.mark.julia
def test_same_bits_whatever_was_solved_before_and_on_any_number_of_threads():
    field = Brusselator2D(n=12)
    y0 = torch.stack([field.initial(), 1.5 * field.initial(), 0.3 + field.initial()])

    def run():
        field.zero_grad()
        start = y0.clone().requires_grad_()
        sol = hsb.solve(field, start, TS, rtol=1e-5, atol=1e-8, backend="julia", linear="krylov")
        sol.ys[:, -1].square().mean().backward()
        return sol.ys.detach(), start.grad, field.alpha.grad.clone()

    threads = settings().threads
    try:
        hsb.configure(threads=1)
        first = run()
        hsb.configure(threads=0)
        again = run()
    finally:
        hsb.configure(threads=threads)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


class Network(hsb.VectorField):
    """u' = 1 - k Bᵀ(B u) with random sparse B: stiff, far from diagonally dominant, and no diffusion."""

    state_shape = (300,)

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(1)
        self.rows, self.columns = torch.arange(300).repeat(4), torch.from_numpy(rng.integers(0, 300, 1200))
        self.weights = torch.from_numpy(rng.normal(size=1200))
        self.k = torch.nn.Parameter(f64(1e4))

    def forward(self, t, y, context=None):
        flow = torch.zeros_like(y).index_add(0, self.rows, self.weights * y[self.columns])
        return 1 - self.k * torch.zeros_like(y).index_add(0, self.columns, self.weights * flow[self.rows])


@pytest.mark.julia
def test_a_sparse_lu_takes_over_and_says_so():
    field, y0, ts = Network(), torch.linspace(-1, 1, 300, dtype=torch.float64), f64(0, 1.0)
    options = {"rtol": 1e-3, "atol": 1e-3, "backend": "julia"}
    results = []
    for linear in ("dense", "krylov"):
        field.zero_grad()
        sol = hsb.solve(field, y0, ts, linear=linear, **options)
        sol.ys[-1].square().mean().backward()
        results.append((sol, field.k.grad.clone()))
    (dense, expected), (other, actual) = results
    assert other.stats.linear == "krylov, sparse"
    assert "a sparse LU took over" in other.stats.why
    torch.testing.assert_close(other.ys, dense.ys, rtol=1e-5, atol=1e-5)
    close([actual], [expected], 1e-5)


@pytest.mark.parametrize(
    ("method", "adjoint", "message"),
    [("FBDF", "gauss", "FBDF takes dense"), ("Rodas5P", "gauss", '"discrete" takes sparse')],
)
def test_what_cannot_be_sparse_is_refused(method, adjoint, message):
    with pytest.raises(UnsupportedOperation, match=message):
        systems.choose(plan(Chain(200)), method, adjoint, "sparse")


def test_dense_beyond_memory_is_refused():
    field = hsb.JuliaField("f!(du, u, p, t) = (du .= -u)", state_shape=(systems.MAX_DENSE + 1,))
    with pytest.raises(UnsupportedOperation, match=r"sparsity=\(rows, columns\)"):
        systems.choose(plan(field), "Rodas5P", "discrete", "auto")


def test_other_backends_are_dense():
    field = Chain(10)
    for backend in ("torch", "scipy"):
        with pytest.raises(UnsupportedOperation, match='linear="sparse"'):
            hsb.solve(field, torch.ones(10).double(), f64(0, 1), backend=backend, linear="sparse")
    with pytest.raises(InvalidInput, match="linear="):
        hsb.solve(field, torch.ones(10).double(), f64(0, 1), linear="lu")


DIFFUSION = """
function f!(du, u, p, t)
    n = length(u)
    for i in 1:n
        left = i == 1 ? zero(u[1]) : u[i-1]
        right = i == n ? zero(u[1]) : u[i+1]
        du[i] = p[1] * (left - 2u[i] + right) - u[i]^3
    end
end
"""


@pytest.mark.julia
def test_julia_source_with_a_sparsity_pattern():
    n = 200
    rows, columns = np.nonzero(np.abs(np.subtract.outer(np.arange(n), np.arange(n))) <= 1)
    y0 = torch.sin(torch.linspace(0, 3, n, dtype=torch.float64))
    results = []
    for sparsity in (None, (rows, columns)):
        field = hsb.JuliaField(DIFFUSION, "f!", (n,), f64(50.0), sparsity=sparsity)
        sol = hsb.solve(field, y0, f64(0, 1), backend="julia")
        (grad,) = torch.autograd.grad(sol.ys[-1].sum(), [field.p])
        results.append((sol.stats.linear, sol.ys, grad))
    assert [r[0] for r in results] == ["dense", "sparse"]
    torch.testing.assert_close(results[1][1:], results[0][1:], rtol=1e-10, atol=1e-10)  # rounding of two LU orders


@pytest.mark.parametrize("sparsity", [([0], [3]), ([0, 1], [0]), (["a"], [0]), 5, ([-1], [0])])
def test_bad_sparsity_is_refused(sparsity):
    with pytest.raises(InvalidInput, match="sparsity"):
        hsb.JuliaField(DIFFUSION, "f!", (3,), f64(1.0), sparsity=sparsity)
