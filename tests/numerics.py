"""Helpers of the gradient tests."""

from __future__ import annotations

import torch


class SolveModule(torch.nn.Module):
    """A solve as a module, so that functional_call can put parameters in."""

    def __init__(self, contract, field, options):
        super().__init__()
        self.contract, self.field, self.options = contract, field, options

    def forward(self, y0, ts, context):
        return self.contract.solve(self.field, y0, ts, context=context, **self.options).ys


def directional(loss, leaf, direction, h=2e-4):
    """Fourth-order central difference of the loss along a direction: truncation 1e-14, round-off 1e-12."""
    start, values = leaf.detach().clone(), []
    with torch.no_grad():
        for k in (-2, -1, 1, 2):
            leaf.copy_(start + k * h * direction)
            values.append(loss().item())
        leaf.copy_(start)
    return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
