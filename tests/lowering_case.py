"""A right-hand side for the tests of the lowering."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from hybridsam_bridge.fields.plan import ParameterSpec, TorchPart

Body = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Case:
    """``body(y, p, t, c)`` -> (n,), with one parameter tensor ``p`` unless ``shapes`` says otherwise."""

    name: str
    body: Body
    n: int = 6
    nc: int = 2
    shapes: tuple[tuple[int, ...], ...] = ((6,),)
    low: float = -1.5
    high: float = 1.5

    def part(self) -> TorchPart:
        def fn(t: torch.Tensor, y: torch.Tensor, c: torch.Tensor, params: Sequence[torch.Tensor]) -> torch.Tensor:
            return self.body(y, params[0] if len(params) == 1 else list(params), t, c)

        specs = tuple(ParameterSpec(f"p{i}", shape) for i, shape in enumerate(self.shapes))
        return TorchPart(fn, specs, self.name)
