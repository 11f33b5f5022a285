"""SAM with what surrounds an optimizer in torch: state dicts, schedulers, clipping, GradScaler, groups."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from sam_models import Quadratic, assert_same_bits, each_optimizer, network, regression, sgd, weights
from torch import nn

import hybridsam_bridge as hsb


@each_optimizer
def test_state_dict_round_trip_continues_identically(make, tmp_path):
    model = network(dtype=torch.float64)
    opt = make(torch.optim.Adam(model.parameters(), lr=1e-2))
    for _ in range(4):
        opt.step(regression(model))
    torch.save({"model": model.state_dict(), "opt": opt.state_dict()}, tmp_path / "state.pt")
    other = network(seed=9, dtype=torch.float64)
    again = make(torch.optim.Adam(other.parameters(), lr=7.0))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    other.load_state_dict(state["model"])
    again.load_state_dict(state["opt"])
    for _ in range(4):
        opt.step(regression(model))
        again.step(regression(other))
    assert_same_bits(weights(model), weights(other))
    assert again.param_groups[0]["lr"] == 1e-2
    assert again.param_groups is again.base.param_groups


def test_state_dict_of_the_base_loads_and_keeps_rho():
    model = network()
    base = torch.optim.Adam(model.parameters(), lr=1e-3)
    regression(model)()
    base.step()
    opt = hsb.SAM(torch.optim.Adam(model.parameters(), lr=1.0), rho=0.2)
    opt.load_state_dict(base.state_dict())
    assert opt.param_groups[0]["rho"] == 0.2
    assert opt.param_groups[0]["lr"] == 1e-3
    assert len(opt.state) == 4


def test_a_deep_copy_is_independent_and_whole():
    model = network()
    opt = hsb.SAM(torch.optim.Adam(model.parameters(), lr=1e-2), rho=0.1, perturb=[model[0].weight])
    torch.optim.lr_scheduler.StepLR(opt, 1)
    opt.step(regression(model))
    twin, clone = copy.deepcopy((model, opt))
    before = weights(model)
    clone.step(regression(twin))
    assert_same_bits(before, weights(model))
    opt.step(regression(model))
    assert_same_bits(weights(twin), weights(model))


@pytest.mark.filterwarnings("error")
def test_schedulers_drive_the_base():
    model = network()
    opt = hsb.SAM(torch.optim.SGD(model.parameters(), lr=1.0), rho=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(opt, gamma=0.5)
    for i in range(3):
        assert opt.base.param_groups[0]["lr"] == 0.5**i
        opt.step(regression(model))
        schedule.step()


def test_clipping_acts_on_the_gradient_that_the_base_sees():
    plain, clipped = Quadratic(), Quadratic()
    hsb.SAM(torch.optim.SGD(plain.parameters(), lr=1.0), rho=0.1).step(plain.closure)
    hsb.SAM(torch.optim.SGD(clipped.parameters(), lr=1.0), rho=0.1, clip_grad_norm=0.5).step(clipped.closure)
    start = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    full = torch.cat([plain.w, plain.v]).detach() - start
    short = torch.cat([clipped.w, clipped.v]).detach() - start
    # clip_grad_norm_ divides by norm + 1e-6; the norm here is about 12
    assert float(short.norm()) == pytest.approx(0.5, rel=1e-6)
    torch.testing.assert_close(short / short.norm(), full / full.norm(), rtol=1e-12, atol=0)


def test_a_hook_of_the_base_sees_the_final_gradient():
    model, seen = Quadratic(), []
    base = sgd(model)
    base.register_step_pre_hook(lambda *_: seen.append(model.w.grad.clone()))
    hsb.SAM(base, rho=0.3).step(model.closure)
    assert len(seen) == 1
    torch.testing.assert_close(torch.tensor([1.0, -2.0]).double() - 0.1 * seen[0], model.w.detach(), rtol=1e-14, atol=0)


def test_accumulation_inside_the_closure_equals_the_whole_batch():
    whole, parts = network(dtype=torch.float64), network(dtype=torch.float64)
    x = torch.randn(16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def closure(model, chunks):
        def run():
            losses = [(model(c) ** 2).sum() / len(x) for c in x.chunk(chunks)]
            for loss in losses:
                loss.backward()
            return sum(losses)

        return run

    hsb.SAM(torch.optim.SGD(whole.parameters(), lr=0.1), rho=0.3).step(closure(whole, 1))
    hsb.SAM(torch.optim.SGD(parts.parameters(), lr=0.1), rho=0.3).step(closure(parts, 4))
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-15)  # the sums are taken in another order


def test_stale_gradients_from_before_the_step_do_not_count():
    fresh, stale = Quadratic(), Quadratic()
    stale.w.grad = torch.full((2,), 7.0, dtype=torch.float64)
    for model in (fresh, stale):
        hsb.SAM(sgd(model), rho=0.3).step(model.closure)
    assert torch.equal(fresh.w, stale.w)


def test_grad_scaler_gives_the_unscaled_step():
    plain, scaled = network(dtype=torch.float64), network(dtype=torch.float64)
    hsb.SAM(torch.optim.SGD(plain.parameters(), lr=0.1), rho=0.3).step(regression(plain))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    opt = hsb.SAM(torch.optim.SGD(scaled.parameters(), lr=0.1), rho=0.3)
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(1)).double()
    target = x.sum(1, keepdim=True).sin()

    def closure():
        loss = ((scaled(x) - target) ** 2).mean()
        scaler.scale(loss).backward()
        return loss

    opt.step(closure, grad_scaler=scaler)
    scaler.update()
    assert_same_bits(weights(plain), weights(scaled))  # a power of two scales without rounding


@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_grad_scaler_overflow_skips_the_step_and_lowers_the_scale(rho):
    model = network()
    before = weights(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    opt = hsb.SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=rho)

    def closure():
        loss = model(torch.ones(2, 3)).sum() * 1e37
        scaler.scale(loss).backward()
        return loss

    opt.step(closure, grad_scaler=scaler)
    scaler.update()
    assert scaler.get_scale() == 512.0
    assert opt.skipped == 1
    assert_same_bits(before, weights(model))


def test_new_groups_get_the_defaults_and_are_checked():
    model, more = Quadratic(), nn.Parameter(torch.ones(1, dtype=torch.float64))
    opt = hsb.SAM(sgd(model), rho=0.3)
    opt.add_param_group({"params": [more], "lr": 0.5})
    assert opt.base.param_groups[1]["rho"] == 0.3
    assert opt.base.param_groups[1]["lr"] == 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: hsb.SAM(torch.optim.Adam), "instance, got Adam"),
        (lambda m: hsb.SAM(m.parameters()), "base_optimizer"),
        (lambda m: hsb.SAM(torch.optim.LBFGS(m.parameters())), "LBFGS"),
        (lambda m: hsb.SAM(hsb.SAM(sgd(m))), "SAM"),
        (lambda m: hsb.SAM(sgd(m), rho=-1.0), "rho"),
        (lambda m: hsb.SAM(sgd(m), rho=math.nan), "rho"),
        (lambda m: hsb.SAM(sgd(m), perturb=[]), "perturb: is empty"),
        (lambda m: hsb.SAM(sgd(m), perturb=[nn.Parameter(torch.ones(3))]), r"shape \(3,\), is not a parameter"),
        (lambda m: hsb.SAM(torch.optim.SGD([{"params": [m.w], "rho": -2.0}], lr=0.1)), "rho"),
        (lambda m: hsb.SAM(sgd(m)).step(), "closure"),
        (lambda m: hsb.LookSAM(sgd(m), every=0), "every"),
        (lambda m: hsb.ASAM(sgd(m), eta=-1), "eta"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(hsb.InvalidInput, match=message):
        make(Quadratic())
