"""Sparsity of the Jacobian against Jacobians by torch's autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lowering_cases import CASES, Case
from lowering_reference import expected, inputs

from hybridsam_bridge.fields.plan import TorchPart
from hybridsam_bridge.lowering.sparsity import sparsity

# Where no entry of the Jacobian is zero by accident of the numbers, the pattern is exact.
EXACT = [
    *(
        "robertson",
        "brusselator",
        "roll_long",
        "slice_long",
        "laplace_2d_long",
        "index_long",
        "flip_long",
        "softmax_long",
    ),
    *("tanh_long", "stack_long", "sum_rows_long", "cumsum", "select_long", "network", "mm", "index_add", "in_place"),
]


def dense(case: Case) -> np.ndarray:
    rows, cols = sparsity(case.part(), case.n, case.nc)
    pattern = np.zeros((case.n, case.n), dtype=bool)
    pattern[rows, cols] = True
    assert pattern.sum() == len(rows), "no entry is named twice"
    return pattern


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_every_nonzero_is_in_the_pattern(case: Case) -> None:
    pattern = dense(case)
    for seed in range(2):
        jacobian = expected(case.part(), inputs(case, seed))["jac!"]["J"]
        assert not (jacobian[~pattern] != 0.0).any()


@pytest.mark.parametrize("name", EXACT)
def test_pattern_is_exact(name: str) -> None:
    case = next(c for c in CASES if c.name == name)
    seen = np.zeros((case.n, case.n), dtype=bool)
    for seed in range(3):
        seen |= expected(case.part(), inputs(case, seed))["jac!"]["J"] != 0.0
    np.testing.assert_array_equal(dense(case), seen)


def field(body: object) -> TorchPart:
    return TorchPart(lambda t, y, c, p: body(y), (), "field")  # type: ignore[operator]


def test_convolution_has_the_width_of_its_kernel() -> None:
    weights = torch.ones(1, 1, 3, 3, dtype=torch.float64)

    def body(y: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(y.view(1, 1, 20, 30), weights, padding=1).reshape(-1)

    rows, _ = sparsity(field(body), 600, 0)
    assert len(rows) == (3 * 20 - 2) * (3 * 30 - 2), "nine neighbours, fewer at the edges"


def test_constant_matrix_gives_its_own_stencil() -> None:
    matrix = torch.diag(torch.ones(9, dtype=torch.float64), 1) - torch.eye(10, dtype=torch.float64)
    rows, cols = sparsity(field(lambda y: matrix @ y + (y**2).sum() * 0), 10, 0)
    assert sorted(zip(rows, cols, strict=True)) == sorted([(i, i) for i in range(10)] + [(i, i + 1) for i in range(9)])


def test_large_reaction_diffusion_is_quick() -> None:
    def body(y: torch.Tensor) -> torch.Tensor:
        u, v = y.view(2, 128, 128)
        spread = [x.roll(1, 0) + x.roll(-1, 0) + x.roll(1, 1) + x.roll(-1, 1) - 4 * x for x in (u, v)]
        return torch.stack([spread[0] + u * u * v - u, spread[1] - u * u * v]).reshape(-1)

    rows, _ = sparsity(field(body), 2 * 128 * 128, 0)
    assert len(rows) == 2 * 128 * 128 * 6, "itself, four neighbours and the other species"


def test_comparisons_and_rounding_carry_no_derivative() -> None:
    rows, _ = sparsity(field(lambda y: torch.where(y.roll(1) > 0, 1.0, 2.0) + torch.floor(y) * 1.0), 8, 0)
    assert len(rows) == 0
