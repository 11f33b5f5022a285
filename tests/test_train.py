"""The trainer: lengths, validation, early stopping, failures, logs."""

from __future__ import annotations

import math

import pytest
import torch
from train_models import assert_same_bits, network, points, squares, trainer, weights

import hybridsam_bridge as hsb
from hybridsam_bridge.train.runs import read_metrics


def solve_failed():
    return hsb.SolveFailed("The solve broke.", status=hsb.Status.MAX_STEPS, sample=(), time=1.0, hint="Try.")


def test_plain_loop_gives_the_same_weights():
    t = trainer(optimizer="Adam", scheduler=None, seed=4)
    model = network(4)
    t.fit(points(), steps=5)
    torch.manual_seed(0)  # as the trainer seeds a fresh fit
    opt = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(5):
        opt.zero_grad()
        squares(model, points()).backward()
        opt.step()
    assert_same_bits(weights(model), weights(t.model))


def test_epochs_count_batches():
    data = torch.utils.data.TensorDataset(*points(20))
    t = trainer()
    result = t.fit(data, epochs=3, batch_size=6)
    assert result.steps == 12
    assert [row["epoch"] for row in result.rows] == [0] * 4 + [1] * 4 + [2] * 4


def test_every_sample_is_seen_once_an_epoch_in_an_order_of_its_own():
    seen = []

    def loss(model, batch):
        seen.extend(batch[0][:, 0].tolist())
        return squares(model, batch)

    x, y = points(20)
    t = trainer(optimizer="Adam", loss_fn=loss)
    t.fit(torch.utils.data.TensorDataset(x, y), epochs=2, batch_size=6)
    first, second = seen[:20], seen[20:]
    assert sorted(first) == sorted(second) == sorted(x[:, 0].tolist())
    assert first != second


def test_early_stopping_and_the_best_checkpoint(tmp_path):
    values = iter([5.0, 3.0, 4.0, 4.0, 4.0, 1.0])
    kept = []

    def loss(model, batch):
        if batch is VALIDATION:
            kept.append(weights(model))
            return torch.tensor(next(values))
        return squares(model, batch)

    VALIDATION = object()
    t = trainer(tmp_path, loss_fn=loss)
    result = t.fit(points(), VALIDATION, steps=100, patience=3)
    assert result.reason == "early stopping"
    assert (result.steps, result.best, result.best_step) == (5, 3.0, 2)
    t.load_best()
    assert_same_bits(weights(t.model), kept[1])


def test_validation_draws_no_dropout_and_leaves_the_mode():
    modes = []

    def loss(model, batch):
        modes.append((model.training, torch.is_grad_enabled()))
        return squares(model, batch)

    t = trainer(optimizer="Adam", loss_fn=loss)
    t.fit(points(), points(), steps=2, validate_every=1)
    assert modes == [(True, True), (False, False)] * 2
    assert t.model.training


def failing(at, how):
    calls = 0

    def loss(model, batch):
        nonlocal calls
        calls += 1
        value = squares(model, batch)
        if calls not in at:
            return value
        if how == "raises":
            raise solve_failed()
        if how == "nan loss":
            return value * math.nan
        model[0].weight.register_hook(lambda g: g * math.inf) if how == "bad gradient" else None
        return value

    return loss


@pytest.mark.parametrize("optimizer", ["Adam", "SAM", "LookSAM"])
@pytest.mark.parametrize("how", ["raises", "nan loss"])
@pytest.mark.parametrize("at", [3, 4])
def test_a_failed_step_is_skipped_and_counted(optimizer, how, at):
    t = trainer(optimizer=optimizer, loss_fn=failing({at}, how), scheduler=None)
    result = t.fit(points(), steps=6)
    assert result.skipped == 1
    assert result.steps == 6
    losses = [row["loss"] for row in result.rows]
    assert sum(math.isnan(x) for x in losses) == 1
    assert all(bool(torch.isfinite(v).all()) for v in weights(t.model).values())


@pytest.mark.parametrize("optimizer", ["Adam", "SAM"])
def test_a_skipped_step_changes_nothing(optimizer):
    t = trainer(optimizer=optimizer, loss_fn=failing({1}, "raises"))
    before = weights(t.model)
    t.fit(points(), steps=1)
    assert_same_bits(before, weights(t.model))


def test_a_gradient_that_is_not_finite_never_reaches_the_weights():
    t = trainer(optimizer="Adam", loss_fn=failing({2}, "bad gradient"), max_failures=4)
    with pytest.raises(hsb.InvalidInput, match="4 failed steps in a row: a gradient is not finite"):
        t.fit(points(), steps=50)  # the hook stays: from step 2 on every gradient is infinite
    assert all(bool(torch.isfinite(v).all()) for v in weights(t.model).values())


def test_stop_raises_the_solve_error():
    t = trainer(loss_fn=failing({3}, "raises"), on_failure="stop")
    with pytest.raises(hsb.SolveFailed, match="Training stopped at step 1") as caught:
        t.fit(points(), steps=6)
    assert caught.value.status == hsb.Status.MAX_STEPS


def test_too_many_failures_in_a_row_end_the_training():
    t = trainer(loss_fn=failing(set(range(1, 99)), "raises"), max_failures=3)
    with pytest.raises(hsb.SolveFailed, match="after 3 failed steps in a row: The solve broke"):
        t.fit(points(), steps=60)


def test_drop_counts_the_samples_that_the_loss_left_out():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
            self.solver = {}

        def forward(self, ts):
            y = self.a * torch.ones(3, len(ts), 1, dtype=torch.float64)
            return torch.cat([y[:2], torch.full_like(y[2:], math.nan)]) if self.solver.get("on_failure") == "nan" else y

    model = Model()
    ts = torch.arange(4.0).double()
    data = hsb.Trajectories(ts, torch.zeros(3, 4, 1, dtype=torch.float64))
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    t = hsb.Trainer(model, opt, hsb.DataLoss(), on_failure="drop", progress=False)
    result = t.fit(data, steps=2)
    assert result.dropped == 2, "one of three samples in each of two steps"
    assert result.skipped == 0
    # d(a²/2)/da = a on the two good samples: two steps of lr 0.1
    assert model.a.item() == pytest.approx(0.81, rel=1e-14)


def test_metrics_file_has_a_row_a_step_and_the_physical_parameters(tmp_path):
    model = hsb.ParameterSet(k=hsb.Param(2.0, transform="log", unit="1/s"))
    opt = hsb.SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.01)
    t = hsb.Trainer(
        model,
        opt,
        lambda m, b: (m.k - b) ** 2,
        run_folder=tmp_path,
        progress=False,
        monitor=lambda m: {"twice": 2 * m.k.item()},
    )
    result = t.fit(torch.tensor(3.0).double(), steps=4)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [int(r["step"]) for r in rows] == [1, 2, 3, 4]
    assert float(rows[-1]["k"]) == result.rows[-1]["k"] == model.k.item()
    assert float(rows[-1]["twice"]) == 2 * float(rows[-1]["k"])
    assert float(rows[0]["loss"]) == pytest.approx(1.0, rel=1e-15)
    assert float(rows[0]["gap"]) > 0
    assert float(rows[0]["cost"]) > 1  # the second pass takes time


def test_zero_steps_leave_the_model_alone(tmp_path):
    t = trainer(tmp_path)
    before = weights(t.model)
    assert t.fit(points(), steps=0).steps == 0
    assert_same_bits(before, weights(t.model))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: trainer(on_failure="ignore"), "on_failure='ignore'"),
        (lambda: trainer().fit(points()), "one of steps and epochs"),
        (lambda: trainer().fit(points(), steps=1, epochs=1), "one of steps and epochs"),
        (lambda: trainer().fit(points(), steps=-1), "steps: must be"),
        (lambda: trainer().fit(points(), steps=1, batch_size=4), "batch_size"),
        (lambda: trainer().fit(torch.utils.data.TensorDataset(torch.zeros(0, 2)), steps=1), "data: is empty"),
        (lambda: trainer().fit(points(), steps=1, resume=True), "no run_folder"),
        (lambda: trainer().fit(points(), steps=1, resume="nowhere.safetensors"), "is not there"),
        (lambda: trainer().load_best(), "no run_folder"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(hsb.InvalidInput, match=message):
        call()
