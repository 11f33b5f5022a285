"""Bad input is refused before any solve, with an error that names the argument and the fix."""

from __future__ import annotations

import multiprocessing
import threading

import numpy as np
import pytest
import torch
from problems import Decay, Robertson, f64

import hybridsam_bridge as hsb

Y0 = f64(1, 0, 0)
TS = f64(0, 40)


class WrongShape(hsb.VectorField):
    state_shape = (3,)

    def forward(self, t, y, context=None):
        return y[:2]


class NotATensor(hsb.VectorField):
    state_shape = (3,)

    def forward(self, t, y, context=None):
        return [y[0], y[1], y[2]]


class NoShape(hsb.VectorField):
    def forward(self, t, y, context=None):
        return y


class PlainInteger(hsb.VectorField):
    state_shape = 3

    def forward(self, t, y, context=None):
        return y


CASES = {
    # what is passed instead: (changed arguments, words of the message)
    "field not a field": ({"field": torch.nn.Linear(3, 3)}, ["field", "VectorField"]),
    "field without state_shape": ({"field": NoShape()}, ["state_shape", "NoShape"]),
    "field with a plain integer": ({"field": PlainInteger()}, ["state_shape", "(3,)"]),
    "field of another output shape": ({"field": WrongShape()}, ["field", "WrongShape", "(3,)", "(2,)"]),
    "field that returns a list": ({"field": NotATensor()}, ["field", "NotATensor", "list"]),
    "y0 of the wrong shape": ({"y0": f64(1, 0)}, ["y0", "(3,)", "(2,)"]),
    "y0 without dimensions": ({"y0": torch.tensor(1.0)}, ["y0", "(3,)"]),
    "y0 of integers": ({"y0": torch.tensor([1, 0, 0])}, ["y0", "int64", "double()"]),
    "y0 of half precision": ({"y0": Y0.half()}, ["y0", "float16", "double()"]),
    "y0 complex": ({"y0": Y0.to(torch.complex128)}, ["y0", "complex128"]),
    "y0 an array": ({"y0": np.array([1.0, 0, 0])}, ["y0", "as_tensor"]),
    "y0 with NaN": ({"y0": f64(1, float("nan"), 0)}, ["y0", "(1,)", "nan"]),
    "y0 infinite": ({"y0": f64(float("inf"), 0, 0)}, ["y0", "(0,)", "inf"]),
    "an empty batch": ({"y0": torch.zeros(0, 3, dtype=torch.float64)}, ["y0", "empty"]),
    "ts unsorted": ({"ts": f64(0, 2, 1)}, ["ts", "increase", "ts[1]", "ts[2]"]),
    "ts decreasing": ({"ts": f64(1, 0)}, ["ts", "increase"]),
    "ts repeated": ({"ts": f64(0, 1, 1)}, ["ts", "increase", "unique"]),
    "one time only": ({"ts": f64(0)}, ["ts", "at least two"]),
    "no time": ({"ts": torch.zeros(0, dtype=torch.float64)}, ["ts", "at least two"]),
    "ts with two dimensions": ({"ts": f64(0, 1).reshape(1, 2)}, ["ts", "one dimension"]),
    "ts with NaN": ({"ts": f64(0, float("nan"))}, ["ts", "nan"]),
    "ts infinite": ({"ts": f64(0, float("inf"))}, ["ts", "inf"]),
    "ts a list": ({"ts": [0.0, 1.0]}, ["ts", "as_tensor"]),
    "ts of integers": ({"ts": torch.tensor([0, 1])}, ["ts", "int64"]),
    "context of another batch": (
        {"field": Decay(), "y0": f64(1, 2)[:, None], "context": f64(1)[:, None]},
        ["context", "(2,)"],
    ),
    "context with NaN": ({"field": Decay(), "y0": f64(1), "context": f64(float("nan"))}, ["context", "nan"]),
    "context of integers": ({"field": Decay(), "y0": f64(1), "context": torch.tensor([1])}, ["context", "int64"]),
    "rtol negative": ({"rtol": -1e-6}, ["rtol", "positive"]),
    "rtol zero": ({"rtol": 0}, ["rtol", "positive"]),
    "rtol NaN": ({"rtol": float("nan")}, ["rtol", "finite"]),
    "rtol text": ({"rtol": "1e-6"}, ["rtol", "number"]),
    "atol negative": ({"atol": -1e-9}, ["atol", "negative"]),
    "atol of the wrong shape": ({"atol": f64(1e-6, 1e-6)}, ["atol", "(3,)"]),
    "atol with a negative entry": ({"atol": f64(1e-6, -1e-6, 0)}, ["atol", "negative"]),
    "method unknown": ({"method": "Rodas5p"}, ["method", "Rodas5P", "Known methods", "Tsit5", "Radau"]),
    "method not a name": ({"method": 5}, ["method", "string"]),
    "adjoint unknown": ({"adjoint": "backprop"}, ["adjoint", "discrete", "gauss"]),
    "backend unknown": ({"backend": "matlab"}, ["backend", "julia", "torch", "scipy"]),
    "max_steps zero": ({"max_steps": 0}, ["max_steps", "positive"]),
    "max_steps not an integer": ({"max_steps": 10.5}, ["max_steps", "integer"]),
    "on_failure unknown": ({"on_failure": "ignore"}, ["on_failure", "raise", "nan"]),
    "time_limit negative": ({"time_limit": -1}, ["time_limit", "positive"]),
    "steps that end early": ({"steps": [0, 1, 2]}, ["steps", "ts[-1]"]),
    "steps that start late": ({"steps": [1, 40]}, ["steps", "ts[0]"]),
    "steps unsorted": ({"steps": [0, 5, 3, 40]}, ["steps", "increase"]),
    "steps for another batch": ({"steps": [[0, 40], [0, 40]]}, ["steps", "one sequence a sample"]),
    "steps a number": ({"steps": 3}, ["steps", "sequence"]),
}


@pytest.mark.parametrize("name", CASES)
def test_refused(name):
    changes, words = CASES[name]
    arguments = {"field": Robertson(), "y0": Y0, "ts": TS, "backend": "scipy"} | changes
    threads, children = threading.active_count(), len(multiprocessing.active_children())
    with pytest.raises(hsb.InvalidInput) as info:
        hsb.solve(arguments.pop("field"), arguments.pop("y0"), arguments.pop("ts"), **arguments)
    for word in words:
        assert word in str(info.value), str(info.value)
    assert isinstance(info.value, ValueError)
    assert (threading.active_count(), len(multiprocessing.active_children())) == (threads, children)


def test_refusal_leaves_the_field_usable():
    field = Robertson()
    before = {k: v.clone() for k, v in field.state_dict().items()}
    with pytest.raises(hsb.InvalidInput):
        hsb.solve(field, Y0[:2], TS, backend="scipy")
    assert all(torch.equal(v, before[k]) for k, v in field.state_dict().items())
    assert hsb.solve(field, Y0, TS, backend="scipy").ys[-1, 0].item() == pytest.approx(0.71583, abs=1e-4)


@pytest.mark.parametrize("name", ["runtime", "threads", "time_limit", "tape_memory", "speed"])
def test_settings_refused(name):
    before = hsb.config.settings()
    with pytest.raises(hsb.InvalidInput, match=r"configure|runtime"):
        hsb.configure(**{name: {"runtime": "cloud"}.get(name, -1)})
    assert hsb.config.settings() == before
