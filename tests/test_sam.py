"""SAM against steps worked out by hand, and every promise of its docstring."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from sam_models import Quadratic, assert_same_bits, each_optimizer, network, regression, sgd, weights
from torch import nn

import hybridsam_bridge as hsb

# Hand-computed steps are in float64 and repeat the same few operations: only the order of roundings differs.
EXACT = {"rtol": 1e-14, "atol": 1e-15}


def gradients(w, v, a):
    """By hand: dL/dw = a w + 3 v e_0, dL/dv = 3 w_0."""
    return np.array([a[0] * w[0] + 3.0 * v, a[1] * w[1]]), 3.0 * w[0]


def test_step_by_hand_with_all_parameters_perturbed():
    model = Quadratic()
    opt = hsb.SAM(sgd(model), rho=0.3)
    clean = opt.step(model.closure)
    gw, gv = gradients([1.0, -2.0], 0.5, [2.0, 5.0])
    norm = math.sqrt(gw @ gw + gv**2)
    w, v = np.array([1.0, -2.0]) + 0.3 * gw / norm, 0.5 + 0.3 * gv / norm
    gw2, gv2 = gradients(w, v, [2.0, 5.0])
    np.testing.assert_allclose(model.w.detach(), np.array([1.0, -2.0]) - 0.1 * gw2, **EXACT)
    np.testing.assert_allclose(model.v.detach(), [0.5 - 0.1 * gv2], **EXACT)
    assert clean.item() == 0.5 * (2.0 + 20.0) + 1.5, "the clean loss is returned"
    perturbed = 0.5 * (2 * w[0] ** 2 + 5 * w[1] ** 2) + 3 * w[0] * v
    assert opt.gap == pytest.approx(perturbed - clean.item(), rel=1e-13)
    assert model.calls == 2


@pytest.mark.parametrize("how", ["perturb", "group"])
def test_norm_is_taken_over_the_perturbed_subset_alone(how):
    model = Quadratic()
    if how == "perturb":
        opt = hsb.SAM(sgd(model), rho=0.3, perturb=[model.w])
    else:
        groups = [{"params": [model.w]}, {"params": [model.v], "rho": 0.0}]
        opt = hsb.SAM(torch.optim.SGD(groups, lr=0.1), rho=0.3)
    opt.step(model.closure)
    gw, _ = gradients([1.0, -2.0], 0.5, [2.0, 5.0])
    w = np.array([1.0, -2.0]) + 0.3 * gw / np.linalg.norm(gw)
    gw2, gv2 = gradients(w, 0.5, [2.0, 5.0])
    np.testing.assert_allclose(model.w.detach(), np.array([1.0, -2.0]) - 0.1 * gw2, **EXACT)
    # v is not perturbed, yet its gradient is the one at the perturbed point.
    np.testing.assert_allclose(model.v.detach(), [0.5 - 0.1 * gv2], **EXACT)


def test_groups_with_their_own_rho_and_adaptive_by_hand():
    model = Quadratic()
    groups = [{"params": [model.w], "rho": 0.2, "adaptive": True}, {"params": [model.v]}]
    opt = hsb.SAM(torch.optim.SGD(groups, lr=0.1), rho=0.5)
    opt.step(model.closure)
    w, v = np.array([1.0, -2.0]), 0.5
    gw, gv = gradients(w, v, [2.0, 5.0])
    u = np.abs(w) * gw
    norm = math.sqrt(u @ u + gv**2)
    w1, v1 = w + 0.2 * np.abs(w) * u / norm, v + 0.5 * gv / norm
    gw2, gv2 = gradients(w1, v1, [2.0, 5.0])
    np.testing.assert_allclose(model.w.detach(), w - 0.1 * gw2, **EXACT)
    np.testing.assert_allclose(model.v.detach(), [v - 0.1 * gv2], **EXACT)


def test_asam_step_by_hand():
    model = Quadratic()
    opt = hsb.ASAM(sgd(model), rho=0.5, eta=0.01)
    opt.step(model.closure)
    w, v = np.array([1.0, -2.0]), 0.5
    gw, gv = gradients(w, v, [2.0, 5.0])
    tw, tv = np.abs(w) + 0.01, abs(v) + 0.01
    norm = math.sqrt(((tw * gw) ** 2).sum() + (tv * gv) ** 2)
    gw2, gv2 = gradients(w + 0.5 * tw**2 * gw / norm, v + 0.5 * tv**2 * gv / norm, [2.0, 5.0])
    np.testing.assert_allclose(model.w.detach(), w - 0.1 * gw2, **EXACT)
    np.testing.assert_allclose(model.v.detach(), [v - 0.1 * gv2], **EXACT)


def test_looksam_reuses_the_orthogonal_part_by_hand():
    model = Quadratic()
    opt = hsb.LookSAM(sgd(model), rho=0.3, every=2, alpha=0.7)
    opt.step(model.closure)
    x = np.array([1.0, -2.0, 0.5])

    def grad(x):
        gw, gv = gradients(x[:2], x[2], [2.0, 5.0])
        return np.append(gw, gv)

    g = grad(x)
    gs = grad(x + 0.3 * g / np.linalg.norm(g))
    gv = gs - (g @ gs) / (g @ g) * g
    x = x - 0.1 * gs
    np.testing.assert_allclose(torch.cat([model.w, model.v]).detach(), x, **EXACT)
    assert model.calls == 2
    opt.step(model.closure)
    g = grad(x)
    x = x - 0.1 * (g + 0.7 * np.linalg.norm(g) / np.linalg.norm(gv) * gv)
    # gv comes out of a subtraction that cancels all but a tenth of gs: one digit is lost.
    np.testing.assert_allclose(torch.cat([model.w, model.v]).detach(), x, rtol=1e-12)
    assert model.calls == 3, "the second step costs one pass"
    opt.step(model.closure)
    assert model.calls == 5, "and the third two again"


def test_looksam_with_every_one_is_sam():
    one, two = Quadratic(), Quadratic()
    look, sam = hsb.LookSAM(sgd(one), rho=0.1, every=1), hsb.SAM(sgd(two), rho=0.1)
    for _ in range(3):
        look.step(one.closure)
        sam.step(two.closure)
    assert torch.equal(one.w, two.w)
    assert torch.equal(one.v, two.v)


@each_optimizer
@pytest.mark.parametrize("base", [torch.optim.Adam, torch.optim.SGD, torch.optim.AdamW])
def test_rho_zero_is_bit_equal_to_the_base_in_one_pass(make, base):
    plain, wrapped = network(dropout=0.3), network(dropout=0.3)
    opt, ref = make(base(wrapped.parameters(), lr=1e-2), rho=0.0), base(plain.parameters(), lr=1e-2)
    calls = 0
    for step in range(5):
        torch.manual_seed(step)
        ref.zero_grad()
        regression(plain)()
        ref.step()
        torch.manual_seed(step)
        closure = regression(wrapped)

        def counted(closure=closure):
            nonlocal calls
            calls += 1
            return closure()

        opt.step(counted)
    assert_same_bits(weights(plain), weights(wrapped))
    assert calls == 5


@each_optimizer
@pytest.mark.parametrize("failing_pass", [1, 2])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_weights_are_restored_bit_for_bit_when_a_pass_raises(make, failing_pass, error):
    model = network()
    with torch.no_grad():
        model[0].weight[0, 0] = -0.0  # lost by w + e - e
        model[0].weight[0, 1] = 1e-30  # absorbed by w + e - e
    before = weights(model)
    opt = make(torch.optim.SGD(model.parameters(), lr=0.1))
    closure, calls = regression(model), 0

    def failing():
        nonlocal calls
        calls += 1
        if calls == failing_pass:
            raise error("solver gave up")
        return closure()

    with pytest.raises(error):
        opt.step(failing)
    after = weights(model)
    assert_same_bits(before, after)
    assert math.copysign(1.0, float(after["0.weight"][0, 0])) == -1.0
    opt.step(closure)  # and it goes on


def test_lr_zero_leaves_the_weights_bit_equal():
    model = network()
    before = weights(model)
    hsb.SAM(torch.optim.SGD(model.parameters(), lr=0.0), rho=0.3).step(regression(model))
    assert_same_bits(before, weights(model))


def test_cost_of_a_step_over_a_plain_one(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("hybridsam_bridge.optim.sam.time.perf_counter", lambda: clock[0])
    model = Quadratic()

    def closure():
        clock[0] += 3.0 if model.calls == 0 else 4.0
        return model.closure()

    opt = hsb.SAM(sgd(model), rho=0.3)
    opt.base.register_step_pre_hook(lambda *_: clock.__setitem__(0, clock[0] + 1.0))
    opt.step(closure)
    assert opt.cost == 8.0 / 4.0  # passes of 3 and 4 s and a descent of 1 s, over the first pass and the descent
    opt.param_groups[0]["rho"] = 0.0
    opt.step(closure)
    assert math.isnan(opt.cost)


def test_zero_gradient_of_the_subset_means_no_perturbation():
    model = Quadratic()
    opt = hsb.SAM(sgd(model), rho=0.3, perturb=[model.w])

    def closure():
        loss = (model.v**2).sum() + 0.0 * model.w.sum()
        loss.backward()
        return loss

    before = model.w.detach().clone()
    opt.step(closure)
    assert torch.equal(model.w, before)
    assert model.v.item() == pytest.approx(0.5 - 0.1 * 1.0)
    assert opt.flat == 1
    assert math.isnan(opt.gap)
    assert math.isnan(opt.cost)


@each_optimizer
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("bad_pass", [1, 2])
def test_non_finite_gradients_skip_the_step_and_are_counted(make, bad, bad_pass):
    model = Quadratic()
    opt = make(torch.optim.Adam(model.parameters(), lr=0.1))
    before = weights(model)
    calls = 0

    def closure():
        nonlocal calls
        calls += 1
        loss = model.loss()
        loss.backward()
        if calls == bad_pass:
            model.w.grad[0] = bad
        return loss

    opt.step(closure)
    assert_same_bits(before, weights(model))
    assert opt.skipped == 1
    assert not opt.state, "the base optimizer's moments did not see the bad gradient"


@pytest.mark.parametrize("scale", [1e-200, 1e-300, 1e200])
def test_extreme_gradients_neither_vanish_nor_overflow(scale):
    model = Quadratic()
    seen = []

    def closure():
        seen.append(model.w.detach().clone())
        loss = model.loss() * scale
        loss.backward()
        return loss

    hsb.SAM(torch.optim.SGD(model.parameters(), lr=0.0), rho=0.3, perturb=[model.w]).step(closure)
    gw, _ = gradients([1.0, -2.0], 0.5, [2.0, 5.0])
    np.testing.assert_allclose(seen[1] - seen[0], 0.3 * gw / np.linalg.norm(gw), rtol=1e-13)


def test_gradient_that_vanishes_in_the_second_pass_does_no_harm():
    model = Quadratic()
    calls = 0

    def closure():
        nonlocal calls
        calls += 1
        loss = (model.w**2).sum() if calls == 2 else model.loss()
        loss.backward()
        return loss

    opt = hsb.SAM(torch.optim.Adam(model.parameters(), lr=0.1), rho=0.3)
    opt.step(closure)
    assert model.v.item() == 0.5, "no gradient at the perturbed point: not moved"
    assert not torch.equal(model.w.detach(), torch.tensor([1.0, -2.0], dtype=torch.float64))


def test_both_passes_see_the_same_random_numbers():
    model = network(dropout=0.5)
    seen = []

    def closure():
        noise = (torch.rand(3), random.random(), np.random.rand())
        seen.append([*noise[0].tolist(), *noise[1:]])
        loss = (model(torch.ones(4, 3)) ** 2).mean()
        loss.backward()
        return loss

    opt = hsb.SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.1)
    opt.step(closure)
    opt.step(closure)
    assert seen[0] == seen[1]
    assert seen[2] == seen[3]
    assert seen[0] != seen[2], "a new step draws new numbers"


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("fail", [False, True])
def test_batch_norm_statistics_move_only_in_the_first_pass(momentum, fail):
    def make():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=momentum), nn.Linear(4, 1))

    plain, model = make(), make()
    regression(plain)()
    opt, calls = hsb.SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.5), 0
    closure = regression(model)

    def maybe_failing():
        nonlocal calls
        calls += 1
        loss = closure()
        if fail and calls == 2:
            raise RuntimeError("late")
        return loss

    if fail:
        with pytest.raises(RuntimeError, match="late"):
            opt.step(maybe_failing)
    else:
        opt.step(maybe_failing)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(getattr(plain[1], name), getattr(model[1], name)), name
