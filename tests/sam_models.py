"""Small models and the optimizers that the SAM tests share."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hybridsam_bridge as hsb


class Quadratic(nn.Module):
    """L = 1/2 sum a w² + 3 w_0 v_0: gradients known in closed form, coupled so that ε on w changes v's."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, -2.0], dtype=dtype))
        self.v = nn.Parameter(torch.tensor([0.5], dtype=dtype))
        self.a = torch.tensor([2.0, 5.0], dtype=dtype)
        self.calls = 0

    def loss(self):
        return 0.5 * (self.a * self.w**2).sum() + 3.0 * self.w[0] * self.v[0]

    def closure(self):
        self.calls += 1
        loss = self.loss()
        loss.backward()
        return loss


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


OPTIMIZERS = {
    "SAM": lambda base, **kw: hsb.SAM(base, **{"rho": 0.1, **kw}),
    "ASAM": lambda base, **kw: hsb.ASAM(base, **{"rho": 0.5, **kw}),
    "LookSAM": lambda base, **kw: hsb.LookSAM(base, **{"rho": 0.1, "every": 3, **kw}),
}
each_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def network(seed=0, dropout=0.0, dtype=torch.float32):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1)).to(dtype)


def regression(model, seed=1):
    generator = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    x = torch.randn(16, 3, generator=generator).to(dtype)
    target = x.sum(1, keepdim=True).sin()

    def closure():
        loss = ((model(x) - target) ** 2).mean()
        loss.backward()
        return loss

    return closure


def weights(model):
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def assert_same_bits(left, right):
    assert left.keys() == right.keys()
    for key in left:
        assert torch.equal(left[key], right[key]), key
