"""Operators that rearrange, reduce and multiply, each alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lowering_case import Body, Case


def _in_place(y: torch.Tensor, p: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(6, dtype=torch.float64)
    out[0] = y[1] * p[0]
    out[1:4] = y[2:5] ** 2
    out[4:] += c * y[:2]
    out *= 2
    return out


def rearranging() -> list[Case]:
    made: dict[str, Body] = {
        "select": lambda x, p: torch.stack([x[1] * p[0], x[0] * x[5], x[-1], p[2] * x[3], x[2] ** 2, x[4]]),
        "slice": lambda x, p: torch.cat([x[1:] * p[:-1], x[:1] * x[-1:]]),
        "slice_step": lambda x, p: torch.cat([x[::2] * p[1::2], x[1::2] ** 2]),
        "reshape": lambda x, p: (x.reshape(2, 3).t() * p.view(3, 2)).reshape(6),
        "permute": lambda x, p: (x.reshape(1, 2, 3).permute(2, 0, 1) * p.view(3, 1, 2)).flatten(),
        "transpose": lambda x, p: (x.view(2, 3).transpose(0, 1) * p.view(2, 3).mT).contiguous().view(-1),
        "expand": lambda x, p: (x[:2, None].expand(2, 3) * p[:3]).reshape(6),
        "squeeze": lambda x, p: (x.view(1, 6, 1).squeeze() * p.unsqueeze(0)).squeeze(0),
        "flip": lambda x, p: x.flip(0) * x * p.view(2, 3).flip(0, 1).reshape(6),
        "roll": lambda x, p: x.roll(1) * x.roll(-2) * p,
        "roll_2d": lambda x, p: (x.view(2, 3).roll((1, 1), (0, 1)) * p.view(2, 3)).reshape(6),
        "unbind": lambda x, p: torch.stack([a * b for a, b in zip(x.unbind(), p.unbind(), strict=True)]),
        "split": lambda x, p: torch.cat([a * a for a in x.split(4)][::-1]) * p,
        "chunk": lambda x, p: torch.cat([a * b for a, b in zip(x.chunk(3), p.chunk(3), strict=True)]),
        "repeat": lambda x, p: (x[:2].repeat(3) * p) * x.view(2, 3)[:1].repeat(1, 2)[0],
        "repeat_interleave": lambda x, p: x[:3].repeat_interleave(2) * p,
        "pad": lambda x, p: F.pad(x[1:4] * p[1:4], (1, 2), value=0.5) * x,
        "pad_negative": lambda x, p: F.pad(x * p, (-1, 1)) * x,
        "diagonal": lambda x, p: torch.outer(x, p * x).diagonal() + torch.outer(x, x).diagonal(1).sum(),
        "diag_embed": lambda x, p: (torch.diag_embed(x * p) @ x) + torch.diag(x[:6]).sum(0),
        "unfold": lambda x, p: F.pad(x.unfold(0, 3, 1).sum(-1) ** 2, (1, 1)) * p,
        "tril": lambda x, p: (torch.tril(torch.outer(x, x)) + torch.triu(torch.outer(x, p), 1)) @ p,
        "index": lambda x, p: x[torch.tensor([0, 0, 3, 5, 1, 2])] * x * p,
        "index_negative": lambda x, p: x[torch.tensor([-1, 0, -2, 1, 2, 0])] ** 2 * p,
        "index_2d": lambda x, p: (
            x.view(2, 3)[:, torch.tensor([2, 0, 2])] * p.view(2, 3)[torch.tensor([1, 0])]
        ).reshape(6),
        "index_pair": lambda x, p: torch.outer(x, p)[
            torch.tensor([0, 1, 2, 3, 3, 5]), torch.tensor([1, 1, 4, 0, 0, 2])
        ],
        "index_select": lambda x, p: torch.index_select(x.view(2, 3), 1, torch.tensor([1, 1, 0])).reshape(6) * p,
        "index_add": lambda x, p: torch.zeros(6, dtype=x.dtype).index_add(0, torch.tensor([0, 2, 2, 5, 1, 1]), x * p),
        "gather": lambda x, p: torch.gather(x.view(2, 3), 1, torch.tensor([[2, 0, 0], [1, 1, 2]])).reshape(6) * p,
        "scatter_add": lambda x, p: (
            torch.zeros(2, 3, dtype=x.dtype)
            .scatter_add(1, torch.tensor([[2, 0, 0], [1, 1, 2]]), (x * p).view(2, 3))
            .reshape(6)
            * x
        ),
        "index_put": lambda x, p: torch.index_put(x, (torch.tensor([1, 4]),), p[:2] * x[:2]),
    }
    long = [
        Case(
            f"{name}_long",
            lambda y, p, t, c, f=f: f(y, p),
            n=40,
            shapes=((40,),),
        )
        for name, f in {
            "roll": lambda x, p: x.roll(1) * x.roll(-3) * p,
            "slice": lambda x, p: F.pad((x[2:] - 2 * x[1:-1] + x[:-2]) * p[1:-1], (1, 1)),
            "index": lambda x, p: x[torch.arange(39, -1, -1)] * p,
            "index_repeat": lambda x, p: x[torch.arange(40) // 3] ** 2 * p,
            "stack": lambda x, p: torch.stack([x[:20] * p[20:], x[20:] ** 2], 1).reshape(40),
            "laplace_2d": lambda x, p: (
                (x.view(5, 8).roll(1, 0) + x.view(5, 8).roll(-1, 0) - 2 * x.view(5, 8)).reshape(40) * p
            ),
            "select": lambda x, p: torch.stack([x[(7 * i) % 40] * p[i] * x[i] for i in range(40)]),
            "cumsum": lambda x, p: torch.cumsum(x * p, 0),
            "flip": lambda x, p: x.view(5, 8).flip(1).t().reshape(40) * p,
            "tanh": lambda x, p: torch.tanh(x.flip(0) * p) + torch.exp(x) * torch.sigmoid(p * x),
        }.items()
    ]
    return (
        [Case(name, lambda y, p, t, c, f=f: f(y, p)) for name, f in made.items()] + long + [Case("in_place", _in_place)]
    )


def reductions() -> list[Case]:
    made: dict[str, Body] = {
        "sum": lambda x, p: x * p.sum() + (x * p).view(2, 3).sum(0, keepdim=True).expand(2, 3).reshape(6),
        "sum_last": lambda x, p: (x.view(2, 3) * p.view(2, 3).sum(1, keepdim=True)).reshape(6) * x.sum(),
        "mean": lambda x, p: (x - (x * x).mean()) * p.view(3, 2).mean(1).repeat(2),
        "prod": lambda x, p: x * x.prod() + p,
        "prod_dim": lambda x, p: (x.view(2, 3).prod(1, keepdim=True) * p.view(2, 3)).reshape(6),
        "amax": lambda x, p: x * x.amax() + (x * p).view(2, 3).amax(1, keepdim=True).expand(2, 3).reshape(6),
        "amin": lambda x, p: x * x.amin() + (x * p).view(2, 3).amin(0).repeat(2),
        "max_dim": lambda x, p: (x.view(2, 3).max(1).values[:, None] * p.view(2, 3)).reshape(6),
        "min_dim": lambda x, p: (x.view(2, 3).min(0).values * p.view(2, 3)).reshape(6),
        "max_all": lambda x, p: x * x.max() * p.min(),
        "any_all": lambda x, p: torch.where((x > 9).any(), p, x * p) + torch.where((x > -9).all(), x, p),
        "var": lambda x, p: x * torch.var(x) + p * x.view(2, 3).var(1, unbiased=False).sum(),
        "std": lambda x, p: x * torch.std(x * p),
        "norm": lambda x, p: x * torch.linalg.vector_norm(x * p) + x.norm(1) + x.norm(3) * p,
        "norm_inf": lambda x, p: x * torch.linalg.vector_norm(x * p, float("inf")),
        "cumsum": lambda x, p: x.cumsum(0) * p + x.view(2, 3).cumsum(0).reshape(6) * x,
        "cumprod": lambda x, p: x.cumprod(0) * p,
        "logsumexp": lambda x, p: x * torch.logsumexp(x * p, 0) + x.view(2, 3).logsumexp(1).sum(),
        "softmax": lambda x, p: F.softmax(x * p, 0) * x + F.softmax(x.view(2, 3), 1).reshape(6),
        "log_softmax": lambda x, p: F.log_softmax(x.view(2, 3) * p.view(2, 3), -1).reshape(6),
        "layer_norm": lambda x, p: F.layer_norm(x * p, (6,)) + F.layer_norm(x.view(2, 3), (3,)).reshape(6),
    }
    long: dict[str, Body] = {
        "sum_long": lambda x, p: x * (x * p).sum() + (x.view(5, 8) * p.view(5, 8).sum(0)).reshape(40),
        "sum_rows_long": lambda x, p: ((x * p).view(5, 8).sum(1)[:, None] * x.view(5, 8)).reshape(40),
        "softmax_long": lambda x, p: F.softmax((x * p).view(5, 8), 1).reshape(40) * x,
        "layer_norm_long": lambda x, p: F.layer_norm(x * p, (40,), p, x),
        "max_long": lambda x, p: (x.view(5, 8).max(1, keepdim=True).values * p.view(5, 8)).reshape(40),
        "amax_long": lambda x, p: (x.view(5, 8).amax(0) * p.view(5, 8)).reshape(40),
        "prod_long": lambda x, p: ((1 + 0.1 * x).view(5, 8).prod(0) * p.view(5, 8)).reshape(40),
        "var_long": lambda x, p: (x.view(5, 8).var(1, keepdim=True) * p.view(5, 8)).reshape(40),
        "cumsum_long": lambda x, p: (x.view(5, 8).cumsum(0) * p.view(5, 8)).reshape(40),
    }
    return [Case(name, lambda y, p, t, c, f=f: f(y, p)) for name, f in made.items()] + [
        Case(name, lambda y, p, t, c, f=f: f(y, p), n=40, shapes=((40,),)) for name, f in long.items()
    ]


def products() -> list[Case]:
    """y (6,) and two matrices (6, 20), (20, 6), so that small and large paths are taken."""
    shapes = ((20, 6), (6, 20), (20,))
    made: dict[str, Body] = {
        "mv": lambda x, a, b, q: b @ torch.mv(a, x),
        "vector_matrix": lambda x, a, b, q: (x @ b) @ b.t() + b @ q,
        "mm": lambda x, a, b, q: (b @ a) @ x + (b[:, :6] @ a[:6]) @ (x * x),
        "addmm": lambda x, a, b, q: torch.addmm(torch.outer(x, x), b, a, beta=0.5, alpha=2.0) @ x,
        "addmv": lambda x, a, b, q: b @ torch.addmv(q, a, x, alpha=0.3),
        "dot": lambda x, a, b, q: x * torch.dot(q, a @ x) + torch.dot(x, x),
        "outer": lambda x, a, b, q: torch.outer(x, q) @ q + torch.outer(q, x).sum(0),
        "linear": lambda x, a, b, q: F.linear(torch.tanh(F.linear(x, a, q)), b),
        "linear_rows": lambda x, a, b, q: F.linear(torch.tanh(F.linear(torch.stack([x, x * x]), a, q)), b).sum(0),
        "bmm": lambda x, a, b, q: torch.bmm(torch.stack([b, b * 2]), torch.stack([a, a * a]) * x).sum(0) @ x,
        "baddbmm": lambda x, a, b, q: torch.baddbmm(
            torch.eye(6, dtype=x.dtype).expand(2, 6, 6), torch.stack([b, b * 2]), torch.stack([a, a * a]) * x
        ).sum((0, 2)),
        "einsum": lambda x, a, b, q: torch.einsum("ij,jk,k,j->i", b, a, x, q),
        "einsum_cubic": lambda x, a, b, q: torch.einsum("ij,j,j->i", b, a @ x, a @ x),
        "bilinear": lambda x, a, b, q: torch.einsum("oij,i,j->o", torch.stack([a, a * a, a + 1]), q, x).repeat(2),
        "matmul_broadcast": lambda x, a, b, q: (torch.stack([b, b]) @ (a @ x).unsqueeze(-1)).sum((0, 2)),
        "constant_matrix": lambda x, a, b, q: (
            torch.linspace(0, 1, 36, dtype=x.dtype).view(6, 6) @ x * torch.arange(6) + b @ q
        ),
    }
    return [Case(name, lambda y, p, t, c, f=f: f(y, *p), shapes=shapes) for name, f in made.items()]
