"""Entries of activations and normalisations, with their backward operators.

Formulas are torch's (derivatives.yaml and the native kernels). The backward operators have derivatives of
their own by torch's autograd, in terms of simpler operators.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from hybridsam_bridge.lowering.ir import Graph, Node
from hybridsam_bridge.lowering.registry import composite, entry


@entry("relu")
def _relu(g: Graph, out: Any, x: Node) -> Node:
    return g.ew("where", g.ew("le", x, 0.0), 0.0, x)  # NaN stays NaN


@entry("threshold")
def _threshold(g: Graph, out: Any, x: Node, threshold: float, value: float) -> Node:
    return g.ew("where", g.ew("le", x, float(threshold)), float(value), x)


@entry("threshold_backward")
def _threshold_backward(g: Graph, out: Any, grad: Node, x: Node, threshold: float) -> Node:
    return g.ew("where", g.ew("le", x, float(threshold)), 0.0, grad)


@entry("tanh_backward")
def _tanh_backward(g: Graph, out: Any, grad: Node, y: Node) -> Node:
    return g.ew("mul", grad, g.ew("sub", 1.0, g.ew("mul", y, y)))


@entry("sigmoid_backward")
def _sigmoid_backward(g: Graph, out: Any, grad: Node, y: Node) -> Node:
    return g.ew("mul", grad, g.ew("mul", y, g.ew("sub", 1.0, y)))


@composite("leaky_relu")
def _leaky_relu(x: torch.Tensor, slope: float = 0.01) -> torch.Tensor:
    return torch.where(x > 0, x, x * slope)


@composite("leaky_relu_backward")
def _leaky_relu_backward(grad: torch.Tensor, x: torch.Tensor, slope: float, is_result: bool) -> torch.Tensor:
    return torch.where(x > 0, grad, grad * slope)


@composite("_prelu_kernel")
def _prelu(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 0, x, weight * x)


@composite("_prelu_kernel_backward")
def _prelu_backward(grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.where(x > 0, grad, weight * grad), torch.where(x > 0, 0.0, x * grad)


@composite("elu")
def _elu(x: torch.Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> torch.Tensor:
    return torch.where(x <= 0, torch.expm1(x * input_scale) * (alpha * scale), x * scale)


@composite("elu_backward")
def _elu_backward(
    grad: torch.Tensor, alpha: float, scale: float, input_scale: float, is_result: bool, x: torch.Tensor
) -> torch.Tensor:
    if is_result:
        slope = (x + alpha * scale) * input_scale
    else:
        slope = torch.exp(x * input_scale) * (alpha * scale * input_scale)
    return torch.where(x <= 0, grad * slope, grad * scale)


@composite("celu")
def _celu(x: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    return torch.where(x <= 0, torch.expm1(x / alpha) * alpha, x)


@composite("glu")
def _glu(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    a, b = x.chunk(2, dim)
    return a * torch.sigmoid(b)


@composite("glu_backward")
def _glu_backward(grad: torch.Tensor, x: torch.Tensor, dim: int) -> torch.Tensor:
    a, b = x.chunk(2, dim)
    s = torch.sigmoid(b)
    return torch.cat([grad * s, grad * a * s * (1 - s)], dim)


@composite("logaddexp")
def _logaddexp(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    top = torch.maximum(a, b)
    return torch.where(torch.isinf(top), top, top + torch.log1p(torch.exp(-torch.abs(a - b))))


@composite("silu")
def _silu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x)


@composite("silu_backward")
def _silu_backward(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    s = torch.sigmoid(x)
    return grad * (s * (1 + x * (1 - s)))


@composite("gelu")
def _gelu(x: torch.Tensor, approximate: str = "none") -> torch.Tensor:
    if approximate == "tanh":
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return x * 0.5 * torch.erfc(-x * math.sqrt(0.5))  # erfc keeps the digits of the left tail


@composite("gelu_backward")
def _gelu_backward(grad: torch.Tensor, x: torch.Tensor, approximate: str = "none") -> torch.Tensor:
    if approximate == "tanh":
        k = math.sqrt(2 / math.pi)
        th = torch.tanh(k * (x + 0.044715 * x * x * x))
        inner = k * (1 + 3 * 0.044715 * x * x)
        return grad * (0.5 * (1 + th) + 0.5 * x * (1 - th * th) * inner)
    cdf = 0.5 * torch.erfc(-x * math.sqrt(0.5))
    return grad * (cdf + x * torch.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi)))


def _softplus_log(z: torch.Tensor) -> torch.Tensor:
    return torch.log1p(torch.exp(z))


@composite("softplus")
def _softplus(x: torch.Tensor, beta: float = 1, threshold: float = 20) -> torch.Tensor:
    z = x if beta == 1 else x * beta
    return torch.where(z > threshold, x, _softplus_log(z) / beta)


@composite("softplus_backward")
def _softplus_backward(grad: torch.Tensor, x: torch.Tensor, beta: float, threshold: float) -> torch.Tensor:
    z = x if beta == 1 else x * beta
    return torch.where(z > threshold, grad, grad * torch.sigmoid(z))


@composite("log_sigmoid_forward")
def _log_sigmoid(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    buffer = torch.exp(-torch.abs(x))
    return torch.minimum(x, torch.zeros_like(x)) - torch.log1p(buffer), buffer


@composite("log_sigmoid_backward")
def _log_sigmoid_backward(grad: torch.Tensor, x: torch.Tensor, buffer: torch.Tensor) -> torch.Tensor:
    return grad * torch.sigmoid(-x)


@composite("mish")
def _mish(x: torch.Tensor) -> torch.Tensor:
    return x * torch.tanh(_softplus(x))


@composite("mish_backward")
def _mish_backward(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    th = torch.tanh(_softplus(x))
    return grad * (th + x * torch.sigmoid(x) * (1 - th * th))


@composite("hardtanh")
def _hardtanh(x: torch.Tensor, low: float = -1, high: float = 1) -> torch.Tensor:
    return torch.clamp(x, low, high)


@composite("hardtanh_backward")
def _hardtanh_backward(grad: torch.Tensor, x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return torch.where((x <= low) | (x >= high), 0.0, grad)


@composite("hardsigmoid")
def _hardsigmoid(x: torch.Tensor) -> torch.Tensor:
    return torch.clamp(x + 3, 0, 6) / 6


@composite("hardsigmoid_backward")
def _hardsigmoid_backward(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.where((x > -3) & (x < 3), grad / 6, 0.0)


@composite("hardswish")
def _hardswish(x: torch.Tensor) -> torch.Tensor:
    return x * torch.clamp(x + 3, 0, 6) / 6


@composite("hardswish_backward")
def _hardswish_backward(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    middle = grad * (x / 3 + 0.5)
    return torch.where(x <= -3, 0.0, torch.where(x < 3, middle, grad))


@composite("softshrink")
def _softshrink(x: torch.Tensor, lambd: float = 0.5) -> torch.Tensor:
    return torch.where(x > lambd, x - lambd, torch.where(x < -lambd, x + lambd, 0.0 * x))


@composite("softshrink_backward", "hardshrink_backward")
def _softshrink_backward(grad: torch.Tensor, x: torch.Tensor, lambd: float) -> torch.Tensor:
    return torch.where((x >= -lambd) & (x <= lambd), 0.0, grad)


@composite("hardshrink")
def _hardshrink(x: torch.Tensor, lambd: float = 0.5) -> torch.Tensor:
    return torch.where((x >= -lambd) & (x <= lambd), 0.0, x)


@composite("native_layer_norm")
def _layer_norm(x: torch.Tensor, shape: Any, weight: Any, bias: Any, eps: float) -> tuple[torch.Tensor, ...]:
    axes = list(range(x.dim() - len(shape), x.dim()))
    mean = x.mean(axes, keepdim=True)
    centred = x - mean
    rstd = torch.rsqrt((centred * centred).mean(axes, keepdim=True) + eps)
    out = centred * rstd
    if weight is not None:
        out = out * weight
    if bias is not None:
        out = out + bias
    return out, mean, rstd


@composite("native_layer_norm_backward")
def _layer_norm_backward(
    grad: torch.Tensor, x: torch.Tensor, shape: Any, mean: Any, rstd: Any, weight: Any, bias: Any, mask: Any
) -> tuple[torch.Tensor | None, ...]:
    axes = list(range(x.dim() - len(shape), x.dim()))
    outer = list(range(x.dim() - len(shape)))
    normed = (x - mean) * rstd
    inner = grad if weight is None else grad * weight
    gx = gw = gb = None
    if mask[0]:
        a = inner.mean(axes, keepdim=True)
        b = (inner * normed).mean(axes, keepdim=True)
        gx = rstd * (inner - a - normed * b)
    if mask[1] and weight is not None:
        gw = (grad * normed).sum(outer) if outer else grad * normed
    if mask[2] and bias is not None:
        gb = grad.sum(outer) if outer else grad + 0
    return gx, gw, gb
