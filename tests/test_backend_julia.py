"""The Julia backend keeps the contract of all backends."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from contracts import BackendContract
from problems import HybridRobertson, Relaxation, Robertson, f64

import hybridsam_bridge as hsb

pytestmark = pytest.mark.julia


class TestJulia(BackendContract):
    backend = "julia"
    stiff_methods = ("auto", "Rodas4P", "FBDF", "QNDF", "KenCarp4", "RadauIIA5")
    explicit_method = "Tsit5"
    adjoints = ("discrete", "gauss", "forward")
    gradient_digits = 6
    forces_steps = True
    lacking_method = ("Radau", "RadauIIA5")
    # OrdinaryDiffEq 7.0.0 itself, without this package: FBDF stops at t = 1.61, KenCarp4 is off by 3e-3.
    weak_methods = ("vdpol", ("FBDF", "KenCarp4"))
    # Each sample is computed alone, in the same order whatever its neighbours: only sums over samples differ.
    batch_tolerance = 1e-12


SPREAD = f64(1.0, 1e4, 1.0)


def _gradients(field, y0, ts, **options):
    leaf = y0.clone().requires_grad_()
    sol = hsb.solve(field, leaf, ts, backend="julia", **options)
    grads = torch.autograd.grad((sol.ys * SPREAD).sum(), [leaf, *field.parameters()])
    return sol, grads


@pytest.mark.parametrize("method", ["Rosenbrock23", "Rodas3", "Rodas4", "Rodas4P", "Rodas5", "Rodas5P", "Rodas5Pe"])
def test_every_rosenbrock_method_is_its_own_adjoint(method):
    """Discrete adjoint and forward sensitivities differentiate the same numbers in opposite orders: they agree
    to rounding, which stiffness amplifies to some 1e-10."""
    field, y0 = HybridRobertson(width=4), f64(1, 0, 0)[None]
    ts = torch.logspace(-4, 1, 7, dtype=torch.float64)
    _, discrete = _gradients(field, y0, ts, method=method, rtol=1e-4, atol=1e-8, adjoint="discrete")
    _, forward = _gradients(field, y0, ts, method=method, rtol=1e-4, atol=1e-8, adjoint="forward")
    for a, b in zip(discrete, forward, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8 * b.abs().max().item())


@pytest.mark.parametrize(
    ("method", "rtol"),
    [
        *((name, 1e-7) for name in ("FBDF", "QNDF", "KenCarp4", "RadauIIA5", "Tsit5", "Vern7")),
        ("TRBDF2", 1e-10),  # of order 2, and so is its interpolant
    ],
)
def test_gauss_after_any_method(method, rtol):
    """Against the discrete adjoint of Rodas5P at rtol 1e-9: what remains is the error of the solve and of its
    interpolant, a thousand times rtol at most."""
    field, y0, context = Relaxation(), f64(0.2, 0.9).requires_grad_(), f64(1.0, 0.4).requires_grad_()
    ts = f64(0.0, 0.07, 0.33, 1.5)

    def gradients(**options):
        sol = hsb.solve(field, y0, ts, context=context, backend="julia", **options)
        return torch.autograd.grad((sol.ys**2).sum(), [y0, context, *field.parameters()])

    exact = gradients(rtol=1e-9, atol=1e-11)
    got = gradients(method=method, rtol=rtol, atol=rtol / 100, adjoint="gauss")
    for a, b in zip(got, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * b.abs().max().item())


def test_stages_that_were_not_kept_are_computed_again():
    """With no memory for stages the adjoint recomputes them; rounding is all that may differ."""
    field, y0, ts = HybridRobertson(width=4), f64(1, 0, 0)[None], f64(0, 1e-3, 1.0, 40.0)
    kept, with_stages = _gradients(field, y0, ts, rtol=1e-6, atol=1e-9)
    before = hsb.configure().tape_memory
    try:
        hsb.configure(tape_memory=0)
        bare, without = _gradients(field, y0, ts, rtol=1e-6, atol=1e-9)
    finally:
        hsb.configure(tape_memory=before)
    assert bare.stats.tape_bytes < kept.stats.tape_bytes / 2
    for a, b in zip(without, with_stages, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * b.abs().max().item())


def test_new_weights_tolerances_and_batches_compile_nothing():
    from hybridsam_bridge.backends import parts

    field = HybridRobertson(width=4)
    plan, _ = field.plan(None)
    keys = [part["key"] for part in parts.describe(plan)]
    with torch.no_grad():
        for p in field.parameters():
            p.mul_(1.01)
    assert field.plan(None)[0] is plan
    other, _ = HybridRobertson(width=4).plan(None)
    assert [part["key"] for part in parts.describe(other)] == keys
    seconds = []
    for batch, rtol in ((1, 1e-5), (1, 1e-5), (5, 1e-4), (3, 1e-7)):
        leaf = f64(1, 0, 0).repeat(batch, 1).requires_grad_()
        sol = hsb.solve(field, leaf, f64(0, 1e-3), backend="julia", rtol=rtol)
        sol.ys.sum().backward()
        seconds.append(sol.stats.seconds)
    # Compiling anything takes tens of milliseconds; a solve of a few steps under five.
    assert max(seconds[1:]) < 0.05, seconds


def test_released_tape_is_refused():
    from hybridsam_bridge import backends
    from hybridsam_bridge.backends.base import Options, Request

    engine, field = backends.get("julia"), Robertson()
    plan, p = field.plan(None)
    request = Request(np.array([[1.0, 0, 0]]), np.array([0.0, 1]), np.zeros((1, 0)), p.detach().numpy())
    forward = engine.solve(plan, request, Options("Rodas5P", "discrete", 1e-6, np.full(3, 1e-9), 1000))
    assert engine.vjp(forward.tape, np.ones((1, 2, 3))).status.tolist() == [0]
    forward.tape.release()
    forward.tape.release()
    with pytest.raises(hsb.BackendCrashed, match="tape is gone"):
        engine.vjp(forward.tape, np.ones((1, 2, 3)))


def test_second_derivative_is_refused_clearly():
    """Also where a naive backward would pass the gradient off as a constant."""
    y0 = f64(1, 0, 0).requires_grad_()
    end = hsb.solve(Robertson(), y0, f64(0, 1), backend="julia").ys[-1].sum()
    grad = torch.autograd.grad(end, y0, create_graph=True)[0]
    with pytest.raises(hsb.UnsupportedOperation, match='backend="torch"'):
        (grad.sum() + y0.sum()).backward()


def test_result_does_not_depend_on_threads(tmp_path):
    """Bit for bit: each sample is computed alone and gradients are summed in a fixed order."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "import torch, hybridsam_bridge as hsb; from problems import HybridRobertson, f64;"
        "hsb.configure(threads=int(sys.argv[2])); field = HybridRobertson(width=8);"
        "y0 = f64(1, 0, 0).repeat(7, 1); y0[:, 1] = torch.linspace(0, 2e-5, 7); y0.requires_grad_();"
        "sol = hsb.solve(field, y0, f64(0, 1e-2, 5), backend='julia'); sol.ys.sum().backward();"
        "torch.save([sol.ys.detach(), y0.grad, *[p.grad for p in field.parameters()]], sys.argv[3])"
    )
    results = []
    for threads in ("1", "2"):
        path = str(tmp_path / threads)
        here = os.path.dirname(__file__)
        subprocess.run([sys.executable, "-c", code, here, threads, path], check=True, timeout=250)
        results.append(torch.load(path, weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
