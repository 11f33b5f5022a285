"""The embedded torch backend: the contract, and what only it does."""

from __future__ import annotations

import math

import pytest
import torch
from contracts import BackendContract
from problems import Decay, HybridRobertson, Relaxation, Ring, Robertson, f64

import hybridsam_bridge as hsb
from hybridsam_bridge.backends.embedded import adjoint
from hybridsam_bridge.config import settings

ROSENBROCK = ("Rodas5P", "Rodas4", "Rodas4P", "Rosenbrock23")


class TestTorch(BackendContract):
    backend = "torch"
    stiff_methods = ("auto",)
    explicit_method = "Tsit5"
    adjoints = ("discrete",)
    end_point_rtol = 1e-7  # Rodas5P is more accurate than asked for
    lacking_method = ("Radau", "Rodas5P")
    lacking_adjoint = "gauss"


def solve(field, y0, ts, **options):
    return hsb.solve(field, y0, ts, backend="torch", **options)


class Logistic(hsb.VectorField):
    """y' = a (1 + cos t) y (1 - y), y = 1 / (1 + (1/y0 - 1) exp(-a (t + sin t)))."""

    state_shape = (1,)

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(f64(1.0))

    def forward(self, t, y, context=None):
        return self.a * (1 + torch.cos(t)) * y * (1 - y)

    @staticmethod
    def exact(t, y0=0.2):
        return 1 / (1 + (1 / y0 - 1) * torch.exp(-(t + torch.sin(t))))


# ---------------------------------------------------------------------- methods


@pytest.mark.parametrize(
    ("method", "order"), [("Rodas5P", 5), ("Rodas4", 4), ("Rodas4P", 4), ("Rosenbrock23", 2), ("Tsit5", 5)]
)
def test_order_of_convergence(method, order):
    """Steps halved twice on a smooth problem with explicit time; the last halving is near the asymptote."""
    errors = []
    for count in (32, 64, 128):
        steps = torch.linspace(0, 4, count + 1, dtype=torch.float64)
        end = solve(Logistic(), f64(0.2), f64(0, 4), method=method, steps=steps.tolist()).ys[-1]
        errors.append((end - Logistic.exact(f64(4))).abs().item())
    observed = math.log2(errors[1] / errors[2])
    assert order - 0.35 < observed < order + 1.2, errors


@pytest.mark.parametrize(
    ("method", "order"), [("Rodas5P", 4), ("Rodas4", 3), ("Rodas4P", 3), ("Rosenbrock23", 2), ("Tsit5", 4)]
)
def test_order_of_the_interpolant(method, order):
    """Outputs between steps, whose interpolant is one order below the method (but for Rosenbrock23)."""
    ts = torch.linspace(0, 4, 96, dtype=torch.float64)  # no output but the ends falls on a step
    errors = []
    for count in (20, 40):
        steps = torch.linspace(0, 4, count + 1, dtype=torch.float64)
        ys = solve(Logistic(), f64(0.2), ts, method=method, steps=steps.tolist()).ys[:, 0]
        errors.append((ys - Logistic.exact(ts)).abs().max().item())
    assert math.log2(errors[0] / errors[1]) > order - 0.35, errors


@pytest.mark.parametrize("method", ROSENBROCK)
def test_mass_is_conserved(method):
    """Rosenbrock methods keep linear invariants: a + b + c = 1 up to the round-off of some hundred solves with
    matrices of condition 1e4, far below the tolerance."""
    sol = solve(Robertson(), f64(1, 0, 0), torch.logspace(-5, 5, 11, dtype=torch.float64), method=method, rtol=1e-4)
    assert (sol.ys.sum(-1) - 1).abs().max() < 1e-11


def test_auto_says_what_it_took():
    mild = solve(Decay(), f64(1.0), f64(0, 1), context=f64(1.0)).stats
    assert (mild.method, mild.adjoint) == ("Tsit5", "none")
    assert "no stiffness" in mild.why
    field = Robertson()
    for _ in range(2):
        stiff = solve(field, f64(1, 0, 0), f64(0, 40)).stats
        assert (stiff.method, stiff.adjoint) == ("Rodas5P", "discrete")
        assert "stiffness" in stiff.why


# ---------------------------------------------------------------------- gradients


def frozen_hybrid():
    """A stiff hybrid, some steps to force, and outputs between them."""
    y0 = f64(1, 0, 0).repeat(2, 1)
    y0[1, 1] = 1e-5
    ts = torch.cat([f64(0), torch.logspace(-3, 1, 5, dtype=torch.float64)])
    steps = solve(HybridRobertson(6), y0, ts, rtol=1e-4, atol=1e-7, method="Rodas5P", record_steps=True).steps
    return y0, ts, [s.tolist() for s in steps]


@pytest.mark.parametrize("method", ["Rodas5P", "Tsit5"])
def test_hessian_vector_products(method):
    """With forced steps the computed loss is a smooth function: central differences of its gradient (1e-5 apart,
    truncation and round-off below 1e-8) give the Hessian-vector product."""
    field = Relaxation()
    y0, context = f64(0.2, 0.9).requires_grad_(), f64(1.0, 0.4).requires_grad_()
    ts, steps = f64(0, 0.07, 0.33, 0.6), [0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    leaves = [y0, context, *field.parameters()]
    directions = [
        torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(i))
        for i, x in enumerate(leaves)
    ]

    def gradient(create_graph):
        sol = solve(field, y0, ts, context=context, method=method, steps=steps)
        return torch.autograd.grad((sol.ys**2).sum(), leaves, create_graph=create_graph)

    grads = gradient(True)
    for plain, graphed in zip(gradient(False), grads, strict=True):
        torch.testing.assert_close(plain, graphed, rtol=1e-11, atol=1e-13)
    products = torch.autograd.grad(sum((g * d).sum() for g, d in zip(grads, directions, strict=True)), leaves)
    h, sides = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            for x, d in zip(leaves, directions, strict=True):
                x += sign * h * d
        sides.append(gradient(False))
        with torch.no_grad():
            for x, d in zip(leaves, directions, strict=True):
                x -= sign * h * d
    for product, up, down in zip(products, *sides, strict=True):
        torch.testing.assert_close(product, (up - down) / (2 * h), rtol=1e-6, atol=1e-6)


def test_gradgradcheck():
    """States, times and a rate, adaptively: differences of 1e-4 at rtol 1e-10, as for the first derivatives."""
    y0, ts, c = f64(0.7).requires_grad_(), f64(0.1, 0.5, 0.9).requires_grad_(), f64(1.3).requires_grad_()

    def run(y0, ts, c):
        return solve(Decay(), y0, ts, context=c, method="Rodas5P", rtol=1e-10, atol=1e-12).ys

    assert torch.autograd.gradgradcheck(run, (y0, ts, c), eps=1e-4, rtol=1e-3, atol=1e-4)


def test_second_derivatives_in_closed_form():
    """y(T) = y0 exp(-c (T - t0)): all second derivatives, those of the times too, to the interpolant's error."""
    leaves = [f64(0.7), f64(1.3), f64(0.2, 0.9)]
    leaves = [x.requires_grad_() for x in leaves]

    def numeric(y0, c, ts):
        return solve(Decay(), y0, ts, context=c, method="Rodas5P", rtol=1e-9, atol=1e-12).ys[-1, 0]

    def exact(y0, c, ts):
        return (y0 * torch.exp(-c * (ts[1] - ts[0])))[0]

    got = torch.autograd.functional.hessian(numeric, tuple(leaves))
    wanted = torch.autograd.functional.hessian(exact, tuple(leaves))
    for row, other in zip(got, wanted, strict=True):
        for a, b in zip(row, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_tape_beyond_the_limit_is_recomputed():
    """The same gradients to round-off with the stages dropped."""
    y0, ts, steps = frozen_hybrid()
    grads, sizes = [], []
    before = settings().tape_memory
    for limit in (before, 3000):
        field, leaf = HybridRobertson(6), y0.clone().requires_grad_()
        hsb.configure(tape_memory=limit)
        try:
            sol = solve(field, leaf, ts, method="Rodas5P", steps=steps)
            (sol.ys * f64(1, 1e4, 1)).sum().backward()
        finally:
            hsb.configure(tape_memory=before)
        sizes.append(sol.stats.tape_bytes)
        grads.append([leaf.grad, *[p.grad for p in field.parameters()]])
    assert sizes[1] < 0.5 * sizes[0]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12 * b.abs().max().item())


@pytest.mark.parametrize("method", ["Rodas5P", "Tsit5"])
def test_large_states_go_step_by_step(method, monkeypatch):
    """Both ways of the adjoint agree to round-off."""
    y0 = torch.rand(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ts, grads = f64(0, 0.05, 0.11, 0.3), []
    for dense in (16, 0):
        monkeypatch.setattr(adjoint, "_DENSE", dense)
        field, leaf = Ring(7), y0.clone().requires_grad_()
        (solve(field, leaf, ts, method=method).ys ** 2).sum().backward()
        grads.append((leaf.grad, field.w.grad))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


def test_blocks_of_the_adjoint_join(monkeypatch):
    """Steps handled in many blocks give what one block gives, also with samples of different lengths."""
    y0, ts, _ = frozen_hybrid()
    grads = []
    for rows in (16384, 40):
        monkeypatch.setattr(adjoint, "_ROWS", rows)
        field, leaf = HybridRobertson(6), y0.clone().requires_grad_()
        (solve(field, leaf, ts, method="Rodas5P").ys * f64(1, 1e4, 1)).sum().backward()
        grads.append([leaf.grad, *[p.grad for p in field.parameters()]])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12 * b.abs().max().item())


def test_several_fields_at_once():
    """Solves and backwards of different fields, interleaved: no state is shared."""
    first, second = Logistic(), Robertson()
    y, z = f64(0.2).requires_grad_(), f64(1, 0, 0).requires_grad_()
    a, b = solve(first, y, f64(0, 2)), solve(second, z, f64(0, 40))
    b.ys[-1, 2].backward()
    a.ys[-1].sum().backward()
    assert first.a.grad.item() == pytest.approx(
        (Logistic.exact(f64(2)) * (1 - Logistic.exact(f64(2)))).item() * (2 + math.sin(2)), rel=1e-4
    )
    assert second.k.grad[0].item() == pytest.approx(4.2475, rel=1e-4)


def test_threads_change_nothing():
    """States bit for bit; gradients to the order of summation over some thousand rows."""
    y0, ts, _ = frozen_hybrid()
    before, results = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            field = HybridRobertson(6)
            sol = solve(field, y0, ts, method="Rodas5P")
            (sol.ys * f64(1, 1e4, 1)).sum().backward()
        finally:
            torch.set_num_threads(before)
        results.append((sol.ys.detach(), field.k.grad))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-12, atol=0)


@pytest.mark.julia
@pytest.mark.parametrize("method", ROSENBROCK)
def test_agrees_with_julia_on_forced_steps(method):
    """The same method on the same steps: 1e-12 relative, forward and gradient, of each quantity's largest entry."""
    y0, ts, steps = frozen_hybrid()
    results = []
    for backend in ("torch", "julia"):
        field, leaf = HybridRobertson(6), y0.clone().requires_grad_()
        sol = hsb.solve(field, leaf, ts, method=method, adjoint="discrete", steps=steps, backend=backend)
        (sol.ys * f64(1, 1e4, 1)).sum().backward()
        results.append([sol.ys.detach() * f64(1, 1e4, 1), leaf.grad, *[p.grad for p in field.parameters()]])
    for a, b in zip(*results, strict=True):
        assert ((a - b).abs().max() / b.abs().max()).item() < 1e-12
    assert torch.isfinite(results[0][0]).all()
