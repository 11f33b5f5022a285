"""The benchmarks measure what they say: turns, ratios, and the same problem in every tool."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from hybridsam_bridge.bench import command, fitzhugh, fitzhugh_diffrax, robertson, robertson_diffrax, sparse, timing
from hybridsam_bridge.bench.tables import Table
from hybridsam_bridge.errors import InvalidInput


def test_turns_and_ratios(monkeypatch):
    clock = [0.0]
    calls = []

    def takes(name, seconds):
        def run():
            calls.append(name)
            clock[0] += seconds
            return name

        return run

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    found = timing.interleaved({"a": takes("a", 1.0), "b": takes("b", 10.0)}, rounds=4, budget=25.0)
    # One call each, then turns; b has used up its 25 s after three of them.
    assert "".join(calls) == "ab" + "ab" * 3 + "a"
    assert found["a"].rounds == [1.0] * 4
    assert found["b"].rounds == [10.0] * 3
    assert timing.ratio(found["b"], found["a"]) == 10.0


def test_a_ratio_holds_when_the_machine_slows_down():
    slow, fast = timing.Timing(0.0, [2.0, 20.0, 4.0]), timing.Timing(0.0, [1.0, 10.0, 2.0])
    assert timing.ratio(slow, fast) == 2.0


def test_command(monkeypatch, tmp_path):
    def table(rounds):
        out = Table("W1", "two tools", ("tool", "ms"))
        out.add("a", 1.23456)
        out.add("b", None)
        out.figures["rounds"] = rounds
        return out

    monkeypatch.setattr(command, "TABLES", {"W1": table})
    said = []
    command.bench_command([], 3, tmp_path / "out.json", said.append)
    assert said[0].splitlines()[:4] == ["W1: two tools", "  tool  ms", "  a     1.23", "  b     -"]
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["tables"][0]["rows"] == [["a", 1.23456], ["b", None]]
    assert report["tables"][0]["figures"] == {"rounds": 3}
    assert report["versions"]["torch"] == torch.__version__
    with pytest.raises(InvalidInput, match=r"no table 'W9'. Known: W1"):
        command.bench_command(["W9"], 3, None, said.append)
    with pytest.raises(InvalidInput, match="--rounds must be positive"):
        command.bench_command(["W1"], 0, None, said.append)


def test_diffrax_solves_the_same_kinetics():
    pytest.importorskip("diffrax")
    work = robertson.w2(batch=2)
    ours, theirs = work.gradient("torch")(), robertson_diffrax.gradient(work)()
    # Two methods at rtol 1e-6, and gradients that are exact for what each computed: a few digits less.
    np.testing.assert_allclose(theirs["k"], ours["k"], rtol=1e-3)
    np.testing.assert_allclose(theirs["y0"], ours["y0"], rtol=1e-3)


def test_other_tools_solve_the_same_reaction_diffusion():
    pytest.importorskip("torchdiffeq")
    pytest.importorskip("diffrax")
    work = fitzhugh.w3(batch=2, n=6)
    reference = work.torchdiffeq(rtol=1e-9, atol=1e-11)()
    for run in (work.torchdiffeq(method="rk4", options={"step_size": 0.05}), fitzhugh_diffrax.gradient(work, 1e-6)):
        y, gradient = run().errors(reference)
        # On 6 x 6 points rk4 with 30 steps, and Tsit5 at 1e-6, are far inside this; another problem is not.
        assert y < 1e-5
        assert gradient < 1e-5


@pytest.mark.julia
def test_this_package_solves_that_reaction_diffusion_too():
    pytest.importorskip("torchdiffeq")
    work = fitzhugh.w3(batch=2, n=6)
    y, gradient = work.run(1e-6)().errors(work.torchdiffeq(rtol=1e-9, atol=1e-11)())
    assert y < 1e-5
    assert gradient < 1e-5


def test_scipy_solves_the_same_brusselator():
    model = sparse.Brusselator(4)
    ts = torch.tensor(sparse.TIMES, dtype=torch.float64)
    _, theirs = sparse.on_scipy(model, model.initial(), ts)

    def rhs(t, y):
        with torch.no_grad():
            return model(torch.tensor(t), torch.tensor(y).reshape(model.state_shape)).reshape(-1).numpy()

    ours = solve_ivp(rhs, (0.0, 1.0), model.initial().reshape(-1).numpy(), "LSODA", ts.numpy(), rtol=1e-9, atol=1e-11)
    # BDF at rtol 1e-5 commonly loses one to two digits to the sum of its errors.
    np.testing.assert_allclose(theirs.numpy(), ours.y.T, rtol=2e-3, atol=1e-5)
