"""Every operator and some whole models through emitted Julia, against torch's autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lowering_cases import CASES, GROUPS, Case
from lowering_reference import expected, inputs

from hybridsam_bridge.backends.julia_backend import JuliaBackend
from hybridsam_bridge.lowering import derive
from hybridsam_bridge.lowering.program import lower

pytestmark = pytest.mark.julia

# vjpu! and tgrad! of a lone operator repeat what vjp! says; whole models check all.
FOR_OPERATORS = ("f!", "jac!", "vjp!", "hvp!")


def check(case: Case, names: tuple[str, ...]) -> None:
    backend = JuliaBackend()
    part, values = case.part(), inputs(case)
    program = lower(part, case.n, case.nc)
    wanted = expected(part, values)
    for name in names:
        got = backend.evaluate(program, name.removesuffix("!"), values)
        for output, value in wanted[name].items():
            # Functions of one number are within a few units in the last place of torch's; sums of a few
            # hundred terms in another order stay below 1e-12 of the larger of 1 and the value.
            np.testing.assert_allclose(got[output], value, rtol=1e-12, atol=1e-12, err_msg=f"{name} {output}")
        assert got["allocated"] == 0, f"{name} allocates"


WHOLE = GROUPS["composites"] + GROUPS["mixed"]


@pytest.mark.parametrize("case", [c for c in CASES if c not in WHOLE], ids=lambda c: c.name)
def test_operator(case: Case) -> None:
    check(case, FOR_OPERATORS)


@pytest.mark.parametrize("case", WHOLE, ids=lambda c: c.name)
def test_model(case: Case) -> None:
    check(case, ("f!", "jac!", "tgrad!", "vjpu!", "vjp!", "hvp!"))


@pytest.mark.parametrize("name", ["network_norm", "brusselator", "in_place"])
def test_jacobian_by_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derive, "MAX_BATCHED", 0)
    check(next(c for c in CASES if c.name == name), ("jac!",))


def test_small_tensors_in_loops_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing unrolled: the code that very long models fall back to.
    from hybridsam_bridge.lowering import program

    monkeypatch.setattr(program, "MAX_LINES", 0)
    for name in ("network_norm", "brusselator", "robertson", "layer_norm", "gather", "softmax", "mm"):
        check(next(c for c in CASES if c.name == name), FOR_OPERATORS)


EDGES = [0.0, -0.0, 1.0, -1.0, 1e-300, -1e-9, 0.3466, -20.5, 36.8, 200.0, -708.3, 709.7, -745.0, 1e300, -1e300]
UNARY = [
    *("exp", "tanh", "sigmoid", "erf", "erfc", "expm1", "log", "log1p", "sqrt"),
    *("sin", "cos", "atan", "asinh", "abs", "sign", "relu", "floor"),
]


@pytest.mark.parametrize("n", [6, 40], ids=["locals", "kernels"])
@pytest.mark.parametrize("name", UNARY)
def test_edges_of_functions(name: str, n: int) -> None:
    function = getattr(torch, name)
    case = Case(name, lambda y, p, t, c: function(y), n=n, nc=0, shapes=((1,),))
    program = lower(case.part(), n, 0)
    edges = np.array([*EDGES, np.inf, -np.inf, np.nan])
    for start in range(0, len(edges), n):
        y = np.resize(edges[start : start + n], n)
        values = {**inputs(case), "u": y}
        got = JuliaBackend().evaluate(program, "f", values)["du"]
        # Four units in the last place: what torch and our exp, tanh, sigmoid and erf are off together at most;
        # subnormal results within a hundred of their spacings.
        np.testing.assert_allclose(got, function(torch.tensor(y)).numpy(), rtol=9e-16, atol=5e-322, equal_nan=True)
