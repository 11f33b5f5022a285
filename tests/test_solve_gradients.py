"""Gradients reach every tensor that enters a solve, in its own shape and dtype, against a closed form."""

from __future__ import annotations

import pytest
import torch

import hybridsam_bridge as hsb


class Rates(hsb.VectorField):
    """dy/dt = -(a b + fixed + context) y, so y = y0 exp(-rate t): parameters of two dtypes, a frozen one, a scalar."""

    state_shape = (2, 3)

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.linspace(0.2, 0.7, 6).reshape(2, 3).float())
        self.fixed = torch.nn.Parameter(torch.tensor([0.1, 0.2, 0.3]).double(), requires_grad=False)
        self.b = torch.nn.Parameter(torch.tensor(0.5).double())

    def rate(self, context: torch.Tensor) -> torch.Tensor:
        return self.a * self.b + self.fixed + context

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        return -self.rate(torch.zeros(3).double() if context is None else context) * y


@pytest.mark.parametrize("backend", ["torch", "scipy", pytest.param("julia", marks=pytest.mark.julia)])
@pytest.mark.parametrize("with_context", [True, False])
def test_each_tensor_gets_its_gradient(backend, with_context):
    field = Rates()
    # A batch of (2, 4), laid out in memory the other way round.
    y0 = torch.linspace(1, 2, 48).double().reshape(3, 2, 4, 2).permute(3, 2, 1, 0).requires_grad_()
    context = torch.linspace(0, 0.2, 24).reshape(2, 4, 3).requires_grad_() if with_context else None
    ts = torch.tensor([0.0, 0.4, 1.0]).double().requires_grad_()
    weights = torch.linspace(-1, 1, 2 * 4 * 3 * 6).double().reshape(2, 4, 3, 2, 3)
    wanted = [x for x in (y0, ts, context, field.a, field.b) if x is not None]

    sol = hsb.solve(field, y0, ts, context, backend=backend, rtol=1e-9, atol=1e-12)
    found = torch.autograd.grad((sol.ys * weights).sum(), wanted)

    rate = field.rate(torch.zeros(2, 4, 1, 3).double() if context is None else context[:, :, None])[:, :, None]
    ys = y0[:, :, None] * torch.exp(-rate * (ts - ts[0])[:, None, None])
    expected = torch.autograd.grad((ys * weights).sum(), wanted)
    assert sol.ys.shape == (2, 4, 3, 2, 3)
    for tensor, gradient, exact in zip(wanted, found, expected, strict=True):
        assert gradient.shape == tensor.shape
        assert gradient.dtype == tensor.dtype
        # A hundred times the rtol of the solve and of SciPy's adjoint; float32 gradients hold seven digits.
        tolerance = 1e-5 if tensor.dtype == torch.float32 else 1e-7
        torch.testing.assert_close(gradient, exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", ["scipy", pytest.param("julia", marks=pytest.mark.julia)])
def test_arguments_may_change_before_the_backward_pass(backend):
    """A buffer that the caller fills anew for the next batch: gradients belong to what was solved."""
    field = Rates()
    y0, context, ts = torch.ones(2, 3).double(), torch.full((3,), 0.1).double(), torch.tensor([0.0, 1.0]).double()

    def gradients(change: bool) -> tuple[torch.Tensor, ...]:
        start, given, times = y0.clone(), context.clone(), ts.clone()
        sol = hsb.solve(field, start, times, given, backend=backend, rtol=1e-8, atol=1e-10)
        if change:
            start.fill_(7.0), given.fill_(3.0), times.mul_(2.0)
        return torch.autograd.grad(sol.ys.sum(), [field.a, field.b])

    for found, expected in zip(gradients(True), gradients(False), strict=True):
        assert torch.equal(found, expected)
