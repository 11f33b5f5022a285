"""Resumed runs are bit-equal to uninterrupted ones, wherever they were stopped and however they died."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
import torch
from train_models import DATA, FORKSERVER, OPTIMIZERS, assert_same_bits, points, squares, trainer, weights

from hybridsam_bridge.train import checkpoint
from hybridsam_bridge.train.runs import read_metrics

STEPS = 11


def metrics(folder):
    timings = ("seconds", "cost")
    return [{k: v for k, v in row.items() if k not in timings} for row in read_metrics(folder / "metrics.csv")]


class Cut(Exception):
    """A run that ends in the middle."""


def cut_after(step):
    """A monitor that ends the run right after a step, as a crash would: nothing is saved then."""
    seen = 0

    def monitor(model):
        nonlocal seen
        seen += 1
        if seen > step:
            raise Cut
        return {}

    return monitor


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("stop", [3, 4, 7])
def test_resume_is_bit_equal(tmp_path, data, optimizer, stop):
    batches, options = DATA[data]()
    whole = trainer(tmp_path / "whole", optimizer)
    validation = points(7)
    first = whole.fit(batches, validation, steps=STEPS, **options)
    batches, options = DATA[data]()
    cut = trainer(tmp_path / "cut", optimizer, checkpoint_every=1, monitor=cut_after(stop))
    with pytest.raises(Cut):
        cut.fit(batches, validation, steps=STEPS, **options)
    batches, options = DATA[data]()
    again = trainer(tmp_path / "cut", optimizer, seed=99, monitor=lambda _: {})
    second = again.fit(batches, validation, steps=STEPS, resume=True, **options)
    assert_same_bits(weights(whole.model), weights(again.model))
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "cut")
    assert (first.best, first.best_step) == (second.best, second.best_step)


def test_resume_without_a_checkpoint_starts_afresh(tmp_path):
    one, two = trainer(tmp_path / "one"), trainer(tmp_path / "two")
    one.fit(points(), steps=3)
    two.fit(points(), steps=3, resume=True)
    assert_same_bits(weights(one.model), weights(two.model))


def test_a_finished_run_can_be_made_longer(tmp_path):
    whole = trainer()
    whole.fit(points(), steps=6)
    trainer(tmp_path).fit(points(), steps=4)
    longer = trainer(tmp_path)
    longer.fit(points(), steps=6, resume=True)
    assert_same_bits(weights(whole.model), weights(longer.model))


def child(folder, pause, steps, pipe):
    torch.set_num_threads(1)

    def slow(model, batch):
        time.sleep(pause)
        return squares(model, batch)

    t = trainer(folder, checkpoint_every=1, loss_fn=slow)
    data, options = DATA["dataset"]()
    pipe.send("started")
    result = t.fit(data, steps=steps, resume=True, **options)
    pipe.send((result.reason, result.steps))


def start(folder, pause=0.01, steps=40):
    ours, theirs = FORKSERVER.Pipe()
    process = FORKSERVER.Process(target=child, args=(folder, pause, steps, theirs), daemon=True)
    process.start()
    theirs.close()
    assert ours.poll(60)
    assert ours.recv() == "started"
    return process, ours


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_leaves(tmp_path, number):
    process, pipe = start(tmp_path, pause=0.05, steps=10_000)
    deadline = time.monotonic() + 30
    while not (tmp_path / "last.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, number)
    assert pipe.poll(30)
    reason, steps = pipe.recv()
    process.join(30)
    assert reason == number.name
    assert process.exitcode == 0
    state = checkpoint.load(tmp_path / "last.safetensors")
    assert state["counters"]["step"] == steps == len(metrics(tmp_path))


def kill_and_resume(folder, kills, rng):
    """Kill -9 at random moments, then let it finish. Returns the final weights."""
    for _ in range(kills):
        process, _ = start(folder)
        time.sleep(rng.uniform(0.0, 0.6))
        process.kill()
        process.join()
        if (folder / "last.safetensors").exists():
            checkpoint.load(folder / "last.safetensors")
    process, pipe = start(folder, pause=0.0)
    assert pipe.poll(60)
    assert pipe.recv() == ("finished", 40)
    process.join()
    return checkpoint.load(folder / "last.safetensors")["model"]


def expected(folder):
    data, options = DATA["dataset"]()
    t = trainer(folder)
    t.fit(data, steps=40, **options)
    return t


def test_killed_runs_end_at_the_same_weights(tmp_path):
    whole = expected(tmp_path / "whole")
    rng = random.Random(0)
    assert_same_bits(weights(whole.model), kill_and_resume(tmp_path / "killed", 3, rng))
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fifty_killed_runs_end_at_the_same_weights(tmp_path):
    whole = expected(tmp_path / "whole")
    rng = random.Random(1)
    for i in range(50):
        assert_same_bits(weights(whole.model), kill_and_resume(tmp_path / str(i), 1, rng))
        assert metrics(tmp_path / "whole") == metrics(tmp_path / str(i))
