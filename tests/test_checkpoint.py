"""Checkpoint files: what goes in comes out, nothing is executed, nothing is half written."""

from __future__ import annotations

import math
import os
import pickle

import numpy as np
import pytest
import torch

import hybridsam_bridge as hsb
from hybridsam_bridge.train import checkpoint, randomness


def test_a_nest_of_everything_comes_back(tmp_path):
    shared = torch.arange(6.0)
    state = {
        "none": None,
        "numbers": [1, 2.5, True, math.inf, -0.0, 0.1 + 0.2, 2**70],
        "pair": (1, [2, (3,)]),
        "by index": {0: {"step": torch.tensor(3.0)}, 1: {}},
        "halves": [shared[:3], shared[3:], shared.reshape(2, 3).T],
        "kinds": [torch.tensor([1, 2]), torch.tensor([True]), torch.ones(2, dtype=torch.bfloat16), torch.zeros(0)],
        "array": np.arange(3, dtype=np.uint32),
        "scalar": np.float64(0.3),
        "text": 'quo"te\n',
    }
    checkpoint.save(tmp_path / "c.safetensors", state)
    back = checkpoint.load(tmp_path / "c.safetensors")
    assert back["numbers"] == state["numbers"]
    assert math.copysign(1, back["numbers"][4]) == -1
    assert back["pair"] == state["pair"]
    assert isinstance(back["pair"], tuple)
    assert torch.equal(back["by index"][0]["step"], torch.tensor(3.0))
    for key in ("halves", "kinds"):
        for a, b in zip(state[key], back[key], strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)
    assert back["array"].dtype == np.uint32
    assert (back["text"], back["none"], back["scalar"]) == (state["text"], None, 0.3)


def test_random_state_round_trip(tmp_path):
    randomness.seed_all(7)
    np.random.normal()  # leaves a cached second normal, part of the state
    checkpoint.save(tmp_path / "r", {"random": randomness.get_state()})

    def draw():
        return torch.rand(3).tolist(), np.random.normal(size=3).tolist(), __import__("random").random()

    first = draw()
    randomness.set_state(checkpoint.load(tmp_path / "r")["random"])
    assert draw() == first


def test_objects_are_refused_by_name(tmp_path):
    with pytest.raises(hsb.InvalidInput, match="scheduler/fn is of type function"):
        checkpoint.save(tmp_path / "c", {"scheduler": {"fn": draw_nothing}})
    assert not list(tmp_path.iterdir())


def draw_nothing():
    """A function, which no checkpoint can hold."""


def test_a_pickle_is_not_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    path = tmp_path / "evil.safetensors"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(hsb.InvalidInput, match="cannot be read"):
        checkpoint.load(path)
    torch.save({"x": Evil()}, path)
    with pytest.raises(hsb.InvalidInput, match="cannot be read"):
        checkpoint.load(path)
    assert not (tmp_path / "executed").exists()


def test_truncated_missing_and_foreign_files_are_named(tmp_path):
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, {"x": torch.ones(100)})
    data = path.read_bytes()
    for size in (0, 4, 50, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(hsb.InvalidInput, match=r"c\.safetensors cannot be read"):
            checkpoint.load(path)
    with pytest.raises(hsb.InvalidInput, match="is not there"):
        checkpoint.load(tmp_path / "other")
    from safetensors.torch import save_file

    save_file({"x": torch.ones(1)}, path)
    with pytest.raises(hsb.InvalidInput, match="not a checkpoint of this package"):
        checkpoint.load(path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, {"x": 1})

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(path, {"x": 2})
    assert checkpoint.load(path) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]
