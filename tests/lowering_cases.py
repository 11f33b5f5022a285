"""Right-hand sides for the lowering's tests: every operator of the registry alone, and models made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

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


def _of_product(name: str, low: float, high: float) -> Case:
    function = getattr(torch, name)
    return Case(name, lambda y, p, t, c: function(y * p), low=low, high=high)


def _unary() -> list[Case]:
    """f(y * p), on the whole line or on the function's domain."""
    anywhere = (
        "abs exp expm1 sin cos tan atan sinh cosh tanh asinh sigmoid erf erfc neg square floor ceil round trunc "
        "sign exp2 relu"
    )
    cases = [_of_product(name, -1.5, 1.5) for name in anywhere.split()]
    cases += [_of_product(name, 0.3, 2.0) for name in ["log", "log1p", "log2", "log10", "sqrt", "rsqrt", "reciprocal"]]
    cases += [_of_product(name, -0.8, 0.8) for name in ["asin", "acos", "atanh"]]
    cases.append(Case("acosh", lambda y, p, t, c: torch.acosh(1 + y * p), low=0.3, high=2.0))
    return cases


def _activations() -> list[Case]:
    made: dict[str, Body] = {
        "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
        "elu": lambda x: F.elu(x, 1.3),
        "selu": F.selu,
        "celu": lambda x: F.celu(x, 0.7),
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "silu": F.silu,
        "mish": F.mish,
        "softplus": F.softplus,
        "softplus_beta": lambda x: F.softplus(x, beta=2.0, threshold=3.0),
        "logsigmoid": F.logsigmoid,
        "hardtanh": F.hardtanh,
        "relu6": F.relu6,
        "hardswish": F.hardswish,
        "softsign": F.softsign,
        "tanhshrink": F.tanhshrink,
        "softshrink": F.softshrink,
        "hardshrink": F.hardshrink,
        "threshold": lambda x: F.threshold(x, 0.1, -2.0),
    }
    return [Case(name, lambda y, p, t, c, f=f: f(3 * y * p)) for name, f in made.items()] + [
        Case("prelu", lambda y, p, t, c: F.prelu(y.reshape(1, 6), p[:1]).reshape(6)),
        Case("glu", lambda y, p, t, c: F.glu(torch.cat([y * p, y]))),
    ]


def _binary() -> list[Case]:
    made: dict[str, Body] = {
        "add": lambda a, b: a + b,
        "add_alpha": lambda a, b: torch.add(a, b * b, alpha=3),
        "sub": lambda a, b: torch.sub(a * b, b, alpha=2),
        "rsub": lambda a, b: 2.5 - a * b,
        "mul": lambda a, b: a * b * a,
        "maximum": torch.maximum,
        "minimum": torch.minimum,
        "max_two": torch.max,
        "atan2": torch.atan2,
        "hypot": torch.hypot,
        "fmod": lambda a, b: torch.fmod(3 * a, 0.7) + b,
        "remainder": lambda a, b: torch.remainder(3 * a, 0.7) * b,
        "where": lambda a, b: torch.where(a > b, a * a, b * a),
        "where_logic": lambda a, b: torch.where((a > 0) & ~(b > 0) | (a < -1), a, a * b),
        "compare": lambda a, b: a * (a >= b) + b * (a <= 0.3) + (a == b) * 2.0 + (a != 0.0) * b + (a < b),
        "logical": lambda a, b: a * torch.logical_xor(a > 0, b > 0) + b * torch.logical_not(a > b),
        "lerp": lambda a, b: torch.lerp(a, b, a * b) + torch.lerp(a, b, 0.3),
        "addcmul": lambda a, b: torch.addcmul(a, a, b, value=0.7),
        "clamp": lambda a, b: torch.clamp(a * b, -0.4, 0.5),
        "clamp_one_sided": lambda a, b: a.clamp(min=-0.2) * b.clamp(max=0.3),
        "clamp_tensor": lambda a, b: torch.clamp(a * 2, b - 0.3, b + 0.3),
        "masked_fill": lambda a, b: (a * b).masked_fill(a > 0.2, 3.0),
        "pow_two": lambda a, b: a**2 * b,
        "pow_three": lambda a, b: a**3 + b**4,
        "pow_int": lambda a, b: a**7 * b,
        "copysign": lambda a, b: torch.copysign(a * a, b),
        "nan_to_num": lambda a, b: torch.nan_to_num(a * b),
        "scalar_base": lambda a, b: 2.0 ** (a * b),
        "linalg_cross": lambda a, b: torch.linalg.cross(a.view(2, 3), (a * b).view(2, 3)).reshape(6),
    }
    positive: dict[str, Body] = {
        "div": lambda a, b: a / (b * b),
        "div_scalar": lambda a, b: a / 3.0 + 2.0 / b,
        "addcdiv": lambda a, b: torch.addcdiv(a, b, a, value=0.7),
        "pow_float": lambda a, b: a**2.5 * b**-1.5,
        "pow_sqrt": lambda a, b: a**0.5 * b**-1 + a**-2,
        "pow_tensor": lambda a, b: a**b,
        "xlogy": torch.xlogy,
        "logaddexp": torch.logaddexp,
        "floor_divide": lambda a, b: torch.div(5 * a, b, rounding_mode="floor") * a,
    }
    return [Case(name, lambda y, p, t, c, f=f: f(y, p * t)) for name, f in made.items()] + [
        Case(name, lambda y, p, t, c, f=f: f(y, p * t), low=0.4, high=2.0) for name, f in positive.items()
    ]


def _in_place(y: torch.Tensor, p: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(6, dtype=torch.float64)
    out[0] = y[1] * p[0]
    out[1:4] = y[2:5] ** 2
    out[4:] += c * y[:2]
    out *= 2
    return out


def _rearranging() -> list[Case]:
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


def _reductions() -> list[Case]:
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


def _products() -> list[Case]:
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


def _convolution(
    shape: tuple[int, ...], weights: tuple[tuple[int, ...], ...], body: Callable[..., torch.Tensor]
) -> Callable[[str], Case]:
    """``body(x, *weights)`` on a state of ``shape``, which may return any shape: its sums go back to the state."""
    n = int(torch.Size(shape).numel())

    def rhs(y: torch.Tensor, p: list[torch.Tensor] | torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        out = body(y.reshape(shape), *(p if isinstance(p, list) else [p])).reshape(-1)
        return F.pad(torch.tanh(out), (0, n - out.numel())) * y + out.sum()

    return lambda name: Case(name, rhs, n=n, shapes=weights)


def _convolutions() -> list[Case]:
    w3, w33 = (4, 2, 3), (4, 2, 3, 3)
    back = (2, 4, 3, 3)
    made = {
        "conv1d": _convolution((2, 9), (w3, (4,)), lambda x, w, b: F.conv1d(x, w, b)),
        "conv1d_stride": _convolution((2, 11), (w3,), lambda x, w: F.conv1d(x, w, stride=2, padding=1)),
        "conv1d_dilation": _convolution((2, 11), (w3,), lambda x, w: F.conv1d(x, w, dilation=2, padding=2)),
        "conv1d_transpose": _convolution(
            (4, 5), (w3,), lambda x, w: F.conv_transpose1d(x, w, stride=2, padding=1, output_padding=1)[:, :9]
        ),
        "conv2d": _convolution((2, 6, 7), (w33, (4,)), lambda x, w, b: F.conv2d(x, w, b)),
        "conv2d_zero": _convolution(
            (2, 6, 10),
            (w33, (4,), back),
            lambda x, w, b, v: F.conv2d(torch.tanh(F.conv2d(x, w, b, padding=1)), v, padding=1),
        ),
        "conv2d_groups": _convolution((4, 5, 6), ((4, 2, 3, 3),), lambda x, w: F.conv2d(x, w, padding=1, groups=2)),
        "conv2d_stride": _convolution((2, 7, 8), (w33,), lambda x, w: F.conv2d(x, w, stride=(2, 3), padding=(1, 2))),
        "conv2d_same": _convolution((2, 6, 7), ((2, 2, 2, 4),), lambda x, w: F.conv2d(x, w, padding="same")),
        "conv2d_batch": _convolution((3, 2, 4, 5), ((1, 2, 3, 3),), lambda x, w: F.conv2d(x, w, padding=1)),
        "conv3d": _convolution((1, 3, 4, 4), ((2, 1, 2, 2, 2),), lambda x, w: F.conv3d(x, w)),
        "pad_circular": _convolution(
            (2, 5, 8), (w33,), lambda x, w: F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), w)[:2]
        ),
        "pad_reflect": _convolution(
            (2, 5, 6), (w33,), lambda x, w: F.conv2d(F.pad(x, (1, 2, 1, 1), mode="reflect"), w)[:2, :, :6]
        ),
        "pad_replicate": _convolution(
            (2, 5, 6), (w33,), lambda x, w: F.conv2d(F.pad(x, (1, 1, 2, 1), mode="replicate"), w)[:2, :5]
        ),
        "pad_circular_1d": _convolution(
            (2, 12), (w3,), lambda x, w: F.conv1d(F.pad(x, (2, 2), mode="circular"), w, dilation=2)[:2]
        ),
        "avg_pool1d": _convolution((2, 9), ((1,),), lambda x, w: F.avg_pool1d(x * w, 3, 2, padding=1)),
        "avg_pool2d": _convolution((2, 6, 8), ((1,),), lambda x, w: F.avg_pool2d(x * x * w, 2)),
        "avg_pool2d_edges": _convolution(
            (2, 5, 6), ((1,),), lambda x, w: F.avg_pool2d(x * x * w, 3, 2, padding=1, count_include_pad=False)
        ),
        "max_pool1d": _convolution((2, 9), ((1,),), lambda x, w: F.max_pool1d(x * w, 3, 2, padding=1)),
        "max_pool2d": _convolution((2, 6, 8), ((1,),), lambda x, w: F.max_pool2d(x * x * w, 2)),
        "max_pool2d_overlap": _convolution((2, 6, 7), ((1,),), lambda x, w: F.max_pool2d(x * x * w, 3, 1, padding=1)),
        "adaptive_pool": _convolution((2, 6, 8), ((1,),), lambda x, w: F.adaptive_avg_pool2d(x * x * w, 1)),
        "conv_field": _convolution(
            (2, 12, 12),
            (w33, (4,), back),
            lambda x, w, b, v: F.conv2d(F.relu(F.conv2d(x, w, b, padding=1)), v, padding=1),
        ),
    }
    return [build(name) for name, build in made.items()]


def _robertson(y: torch.Tensor, p: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    y1, y2, y3 = y
    k1, k2, k3 = p
    first, second = -k1 * y1 + k3 * y2 * y3, k2 * y2**2
    return torch.stack([first, -first - second, second])


def _network(hidden: int, act: Callable[[torch.Tensor], torch.Tensor], norm: bool = False) -> Body:
    def body(y: torch.Tensor, p: list[torch.Tensor], t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        x = torch.cat([y, c, t.reshape(1)])
        x = act(F.linear(x, p[0], p[1]))
        if norm:
            x = F.layer_norm(x, (hidden,), p[2], p[3])
        x = act(F.linear(x, p[4], p[5]))
        return F.linear(x, p[6]) + torch.sin(t) * y

    return body


_BATCH_NORM = torch.nn.BatchNorm1d(3, affine=False).double().eval()
_BATCH_NORM.running_mean.copy_(torch.tensor([0.1, -0.2, 0.3]))


def _modules() -> list[Case]:
    made: dict[str, Case] = {
        "batch_norm": Case(
            "batch_norm",
            lambda y, p, t, c: (
                _BATCH_NORM(y.view(2, 3) * p[:3])
                * F.batch_norm(y.view(2, 3), _BATCH_NORM.running_mean, _BATCH_NORM.running_var, p[:3], p[3:])
            ).reshape(6),
        ),
        "group_norm": Case("group_norm", lambda y, p, t, c: F.group_norm((y * p).view(1, 6), 2, p, y)[0]),
        "bilinear": Case(
            "bilinear_module",
            lambda y, p, t, c: F.bilinear(y, y * y, p[0], p[1]),
            shapes=((6, 6, 6), (6,)),
        ),
        "gru": Case(
            "gru",
            lambda y, p, t, c: torch.gru_cell(y[None], (y * t)[None], p[0], p[1], p[2], p[3])[0],
            shapes=((18, 6), (18, 6), (18,), (18,)),
        ),
        "attention": Case(
            "attention",
            lambda y, p, t, c: F.scaled_dot_product_attention(*((y.view(1, 3, 2) @ w) for w in p))[0].reshape(6),
            shapes=((2, 2), (2, 2), (2, 2)),
        ),
        "bucketize": Case(
            "bucketize",
            lambda y, p, t, c: y * p[torch.bucketize(y, torch.tensor([-0.8, -0.1, 0.4, 0.9], dtype=y.dtype))],
        ),
        "searchsorted": Case(
            "searchsorted",
            lambda y, p, t, c: y * p[torch.searchsorted(torch.tensor([0.2, 0.5, 0.7], dtype=y.dtype), t, right=True)],
        ),
        "angles": Case("angles", lambda y, p, t, c: torch.deg2rad(y) * torch.rad2deg(p) + torch.frac(2 * y)),
        "trace": Case("trace", lambda y, p, t, c: torch.trace(torch.outer(y, p)) * y),
        "block_diag": Case(
            "block_diag", lambda y, p, t, c: torch.block_diag(torch.outer(y[:3], p[:3]), torch.outer(p[3:], y[3:])) @ y
        ),
        "own_gradient": Case("own_gradient", lambda y, p, t, c: _potential_gradient(y, p) * t),
        "vmap": Case("vmap", lambda y, p, t, c: torch.vmap(lambda a: a * a.sum())(y.view(2, 3)).reshape(6) * p),
    }
    return list(made.values())


def _potential_gradient(y: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """A right-hand side that is itself a gradient, as Hamiltonian and gradient-flow models are."""
    return torch.func.grad(lambda q: (torch.sin(q * p) ** 2).sum() + q[0] ** 3 * q[1])(y)


def _composites() -> list[Case]:
    def shapes(n: int, hidden: int) -> tuple[tuple[int, ...], ...]:
        return ((hidden, n + 3), (hidden,), (hidden,), (hidden,), (hidden, hidden), (hidden,), (n, hidden))

    return [
        Case("robertson", _robertson, n=3, shapes=((3,),), low=0.2, high=1.5),
        Case("network", _network(24, torch.tanh), n=4, shapes=shapes(4, 24)),
        Case("network_norm", _network(24, F.gelu, norm=True), n=4, shapes=shapes(4, 24)),
        Case("network_silu", _network(33, F.silu, norm=True), n=7, shapes=shapes(7, 33)),
        Case("network_tiny", _network(3, torch.sigmoid, norm=True), n=2, shapes=shapes(2, 3)),
        Case("network_wide_state", _network(20, F.softplus), n=30, shapes=shapes(30, 20)),
        Case("brusselator", _brusselator, n=32, shapes=((3,),), low=0.2, high=1.5),
        Case("constant_part", lambda y, p, t, c: torch.cat([y[:1] * 0 + 1, p[:2] * t, c, y[:1] * t]), n=6),
        Case("no_state", lambda y, p, t, c: p * t**2 + c.sum(), n=6),
        Case("no_parameters", lambda y, p, t, c: y * torch.exp(-t) + c[0], n=6, shapes=((0,),)),
    ]


def _brusselator(y: torch.Tensor, p: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    u, v = y.view(2, 16)
    a, b, alpha = p
    du = a + u**2 * v - (b + 1) * u + alpha * (u.roll(1) - 2 * u + u.roll(-1))
    dv = b * u - u**2 * v + alpha * (v.roll(1) - 2 * v + v.roll(-1))
    return torch.stack([du, dv]).reshape(-1)


GROUPS: dict[str, list[Case]] = {
    "unary": _unary(),
    "activations": _activations(),
    "binary": _binary(),
    "rearranging": _rearranging(),
    "reductions": _reductions(),
    "products": _products(),
    "convolutions": _convolutions(),
    "modules": _modules(),
    "composites": _composites(),
}
CASES = [case for group in GROUPS.values() for case in group]
