"""Elementwise operators and activations, each alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lowering_case import Body, Case


def _of_product(name: str, low: float, high: float) -> Case:
    function = getattr(torch, name)
    return Case(name, lambda y, p, t, c: function(y * p), low=low, high=high)


def unary() -> list[Case]:
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


def activations() -> list[Case]:
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


def binary() -> list[Case]:
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
