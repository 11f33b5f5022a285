"""Sharpness against Hessians known in closed form, and through solves by both kinds of products."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import hybridsam_bridge as hsb
from hybridsam_bridge.diagnostics.sharpness import DIFFERENCES, DOUBLE


class Quadratic(nn.Module):
    """L = 1/2 wᵀ A w + bᵀ w with a given spectrum; w is split between two modules."""

    def __init__(self, eigenvalues, seed=0):
        super().__init__()
        rng = np.random.default_rng(seed)
        n = len(eigenvalues)
        q, _ = np.linalg.qr(rng.standard_normal((n, n)))
        self.a = torch.from_numpy(q @ np.diag(eigenvalues) @ q.T)
        self.b = torch.from_numpy(rng.standard_normal(n))
        self.net = nn.Linear(n - 2, 1, bias=False).double()
        self.k = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def flat(self):
        return torch.cat([self.net.weight.reshape(-1), self.k])


def loss_of(model, batch):
    w = model.flat()
    return 0.5 * w @ model.a @ w + model.b @ w


@pytest.mark.parametrize("n", [6, 40])
@pytest.mark.parametrize("products", ["double", "differences"])
def test_top_eigenvalue_is_the_one_that_was_put_in(n, products):
    eigenvalues = np.linspace(-3.0, 5.0, n)
    eigenvalues[-1] = 7.0
    model = Quadratic(eigenvalues)
    before = model.flat().detach().clone()
    found = hsb.sharpness(model, loss_of, None, products=products, parts=["all"], tolerance=1e-8).parts["all"]
    # a quadratic has no error of differences but rounding over the step: 1e-16 * |g| / 1e-3
    assert found.top_eigenvalue == pytest.approx(7.0, rel=1e-8)
    assert found.how == (DOUBLE if products == "double" else DIFFERENCES)
    assert torch.equal(model.flat(), before), "weights are left as they were"


def test_parts_and_gap_by_hand():
    model = Quadratic(np.linspace(1.0, 2.0, 12))
    result = hsb.sharpness(model, loss_of, None, rho=0.3)
    w = model.flat().detach()
    grad = model.a @ w + model.b
    for name, index in (("neural", slice(0, 10)), ("science", slice(10, 12)), ("all", slice(0, 12))):
        part = result.parts[name]
        g = torch.zeros(12, dtype=torch.float64)
        g[index] = grad[index]
        e = 0.3 * g / g.norm()
        assert part.slope == pytest.approx(float(g.norm()), rel=1e-13)
        assert part.gap == pytest.approx(float(grad @ e + 0.5 * e @ model.a @ e), rel=1e-11)
        block = model.a[index, index].numpy()
        assert part.top_eigenvalue == pytest.approx(np.linalg.eigvalsh(block)[-1], rel=1e-3)


class Decay(hsb.VectorField):
    state_shape = (1,)

    def __init__(self):
        super().__init__()
        self.k = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(self, t, y, context=None):
        return -self.k * y


@pytest.mark.parametrize(("backend", "how"), [("scipy", DIFFERENCES), ("torch", DOUBLE)])
def test_curvature_through_a_solve(backend, how):
    field = Decay()
    ts = torch.tensor([0.0, 2.0], dtype=torch.float64)

    def loss(f, batch):
        return hsb.solve(f, torch.ones(1).double(), ts, backend=backend, rtol=1e-9, atol=1e-11).ys[-1, 0]

    found = hsb.sharpness(field, loss, None, parts=["science"], rho=0.1).parts["science"]
    assert found.how == how
    # d²/dk² exp(-2k) = 4 exp(-1). Differences over h = 1e-3: h²/6 * 16 = 3e-6 relative, and the solver's
    # 1e-9 over h; second derivatives of the solve carry its tolerance.
    assert found.top_eigenvalue == pytest.approx(4 * math.exp(-1), rel=2e-5)
    assert found.gap == pytest.approx(math.exp(-0.8) - math.exp(-1), rel=1e-6)
    assert field.k.item() == 0.5
    assert field.k.grad is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": 0.0}, "rho"),
        ({"parts": ["network"]}, "'network' is not known"),
        ({"parts": {"none": []}}, "no parameters"),
        ({"products": "exact"}, "products"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(hsb.InvalidInput, match=message):
        hsb.sharpness(Quadratic(np.ones(4)), loss_of, None, **options)


def test_asking_for_second_derivatives_where_there_are_none():
    def loss(f, batch):
        return hsb.solve(f, torch.ones(1).double(), torch.tensor([0.0, 1.0]).double(), backend="scipy").ys.sum()

    with pytest.raises(hsb.InvalidInput, match="no second derivatives"):
        hsb.sharpness(Decay(), loss, None, products="double", parts=["all"])


def test_a_penalty_beside_the_solve_does_not_hide_that_second_derivatives_end_there():
    field = Decay()

    def loss(f, batch):
        ts = torch.tensor([0.0, 2.0], dtype=torch.float64)
        ys = hsb.solve(f, torch.ones(1).double(), ts, backend="scipy", rtol=1e-9, atol=1e-11).ys
        return ys[-1, 0] + 3.0 * f.k**2

    found = hsb.sharpness(field, loss, None, parts=["science"]).parts["science"]
    assert found.how == DIFFERENCES
    assert found.top_eigenvalue == pytest.approx(4 * math.exp(-1) + 6.0, rel=2e-5)
