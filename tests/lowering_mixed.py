"""Right-hand sides put together at random, to meet schedules and memory plans that nobody thought of."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from lowering_case import Case

Step = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

# (a, b, matrix, t) -> a tensor of the shape of a
STEPS: list[Step] = [
    lambda a, b, m, t: a * b,
    lambda a, b, m, t: a + b * t,
    lambda a, b, m, t: torch.tanh(a - b),
    lambda a, b, m, t: a.flip(-1) * 0.5,
    lambda a, b, m, t: a.roll(1, -1) - b.roll(-2, -1),
    lambda a, b, m, t: a * b.sum(-1, keepdim=True),
    lambda a, b, m, t: a - b.mean(),
    lambda a, b, m, t: torch.where(a > b, a, b * 0.3),
    lambda a, b, m, t: F.softmax(a, -1),
    lambda a, b, m, t: torch.sigmoid(a) * b,
    lambda a, b, m, t: (m @ a.reshape(-1)).view(a.shape) * 0.3,
    lambda a, b, m, t: torch.cat([a[..., 1:], b[..., :1]], -1),
    lambda a, b, m, t: F.layer_norm(a, (a.shape[-1],)),
    lambda a, b, m, t: torch.exp(-a * a),
    lambda a, b, m, t: a.amax(-1, keepdim=True) - b,
    lambda a, b, m, t: torch.outer(a.reshape(-1), b.reshape(-1)).mean(0).view(a.shape),
    lambda a, b, m, t: a.reshape(-1)[torch.arange(a.numel() - 1, -1, -1)].view(a.shape),
    lambda a, b, m, t: a.cumsum(-1) * 0.1,
    lambda a, b, m, t: F.pad(a[..., 1:] - a[..., :-1], (1, 0)),
    lambda a, b, m, t: torch.log1p(a * a) + b.reshape(-1)[0],
    lambda a, b, m, t: (a.reshape(-1) @ m @ b.reshape(-1)) * 0.1 * a,
    lambda a, b, m, t: a.reshape(2, -1).t().reshape(a.shape),
]


def _case(seed: int) -> Case:
    n = random.Random(seed).choice([4, 6, 12, 24, 30, 36])
    shape = random.Random(seed + 1).choice([(n,), (2, n // 2)])

    def body(y: torch.Tensor, p: list[torch.Tensor], t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        choose = random.Random(seed + 2)
        values = [y.view(shape), (p[0] * y).view(shape), torch.tanh(p[0] + y).view(shape) * c[0]]
        for _ in range(choose.randint(4, 14)):
            a, b = choose.choice(values), choose.choice(values)
            values.append(choose.choice(STEPS)(a, b, p[1], t))
        return (values[-1] + 0.3 * values[-2] + 0.1 * choose.choice(values)).reshape(-1)

    return Case(f"mixed{seed}", body, n=n, shapes=((n,), (n, n)), low=-1.0, high=1.0)


def mixed() -> list[Case]:
    return [_case(seed) for seed in range(12)]
