"""The embedded torch backend at its edges: arrays, mixed batches, caches, memory, precision, devices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import Decay, HybridRobertson, Ring, Robertson, f64

import hybridsam_bridge as hsb
from hybridsam_bridge.backends import get
from hybridsam_bridge.backends.base import Options, Request
from hybridsam_bridge.backends.embedded import functions
from hybridsam_bridge.config import settings


def solve(field, y0, ts, **options):
    return hsb.solve(field, y0, ts, backend="torch", **options)


# ---------------------------------------------------------------------- the boundary of arrays


def test_arrays_in_and_out():
    """``solve`` and ``vjp`` of the common contract give what the tensors give."""
    field, y0, ts = Robertson(), f64(1, 0, 0)[None].requires_grad_(), f64(0, 0.3, 40)
    weights = torch.arange(9, dtype=torch.float64).reshape(1, 3, 3)
    (solve(field, y0, ts, method="Rodas5P").ys * weights).sum().backward()
    plan, p = field.plan(None)
    engine = get("torch")
    request = Request(y0.detach().numpy(), ts.numpy(), np.zeros((1, 0)), p.detach().numpy())
    options = Options("Rodas5P", "discrete", 1e-6, np.full(3, 1e-9), 100_000)
    result = engine.solve(plan, request, options)
    grads = engine.vjp(result.tape, weights.numpy())
    np.testing.assert_allclose(grads.y0, y0.grad.numpy(), rtol=1e-12)
    np.testing.assert_allclose(grads.p, field.k.grad.numpy(), rtol=1e-12)
    result.tape.release()
    with pytest.raises(RuntimeError, match="freed"):
        engine.vjp(result.tape, weights.numpy())


def test_stiff_samples_do_not_change_the_others():
    """In a batch that "auto" splits, each sample gets the method and the numbers it would get alone."""
    y0, rates, ts = f64(1.0, 1.0)[:, None], f64(1.0, 1e5)[:, None].requires_grad_(), f64(0, 0.5, 1.0)
    both = solve(Decay(), y0, ts, context=rates)
    assert "1 of 2 samples" in both.stats.why
    both.ys.sum().backward()
    for i in range(2):
        rate = rates.detach()[i].clone().requires_grad_()
        alone = solve(Decay(), y0[i], ts, context=rate)
        assert alone.stats.method == ("Tsit5", "Rodas5P")[i]
        alone.ys.sum().backward()
        torch.testing.assert_close(both.ys[i], alone.ys, rtol=1e-13, atol=1e-20)
        torch.testing.assert_close(rates.grad[i], rate.grad, rtol=1e-12, atol=1e-20)


# ---------------------------------------------------------------------- limits


def test_dense_jacobians_have_a_limit():
    before = settings().tape_memory
    hsb.configure(tape_memory=10_000)
    try:
        with pytest.raises(hsb.UnsupportedOperation, match=r"dense Jacobians.*julia.*Krylov.*Tsit5"):
            solve(Ring(20), torch.zeros(4, 20, dtype=torch.float64), f64(0, 1), method="Rodas5P")
        assert solve(Ring(20), torch.zeros(4, 20, dtype=torch.float64), f64(0, 0.1), method="Tsit5").success.all()
    finally:
        hsb.configure(tape_memory=before)


def test_tolerance_below_float32_warns():
    with pytest.warns(UserWarning, match="float32"):
        solve(Decay(), torch.ones(1), torch.tensor([0.0, 1.0]), context=torch.ones(1), rtol=1e-9)


def test_branching_on_values_is_refused():
    class Branching(hsb.VectorField):
        state_shape = (1,)

        def forward(self, t, y, context=None):
            return -y if float(y) > 0 else y

    with pytest.raises(hsb.UnsupportedOperation, match=r"Branching.*torch\.where.*scipy"):
        solve(Branching(), f64(1.0), f64(0, 1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_tensors_stay_on_their_device():
    field, host = HybridRobertson(6).cuda(), HybridRobertson(6)
    y0, ts = f64(1, 0, 0).repeat(2, 1), f64(0, 0.1, 10)
    leaf = y0.cuda().requires_grad_()
    sol = solve(field, leaf, ts.cuda(), method="Rodas5P")
    sol.ys[..., 2].sum().backward()
    assert sol.ys.is_cuda
    solve(host, y0, ts, method="Rodas5P").ys[..., 2].sum().backward()
    torch.testing.assert_close(field.k.grad.cpu(), host.k.grad, rtol=1e-8, atol=0)


# ---------------------------------------------------------------------- caches


def test_models_of_one_kind_share_their_programs():
    """Other weights, the same programs; another constant in the model, other ones."""
    y0, ts = f64(1, 0, 0), f64(0, 1)
    functions._programs.clear()  # other tests may have filled it to its limit
    solve(HybridRobertson(5), y0, ts)
    count = len(functions._programs)
    first = solve(HybridRobertson(5, seed=0), y0, ts).ys[-1]
    second = solve(HybridRobertson(5, seed=1), y0, ts).ys[-1]
    assert len(functions._programs) == count
    assert not torch.equal(first, second)
    changed = HybridRobertson(5, seed=0)
    changed.out.mul_(3)
    third = solve(changed, y0, ts).ys[-1]
    assert len(functions._programs) == count + 1
    assert not torch.equal(first, third)
