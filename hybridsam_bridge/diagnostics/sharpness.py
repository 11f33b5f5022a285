"""How sharp a minimum is: the gap that SAM sees, and the largest curvature."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from hybridsam_bridge.errors import InvalidInput, SolveFailed
from hybridsam_bridge.fields.roles import neural_parameters, scientific_parameters
from hybridsam_bridge.optim.ascent import Item, ascent

LossFn = Callable[[nn.Module, Any], torch.Tensor]
DOUBLE = "double backward"
DIFFERENCES = "finite differences of exact gradients"


@dataclass(frozen=True)
class PartSharpness:
    """Sharpness with respect to one set of parameters.

    Attributes:
        gap: L(w + ρ g/||g||) - L(w). slope: ||g||.
        top_eigenvalue: largest eigenvalue of the Hessian of the loss (nan if not asked for).
        products: Hessian-vector products that it took. how: "double backward" or "finite differences of exact
            gradients".
    """

    gap: float
    slope: float
    top_eigenvalue: float
    products: int
    how: str


@dataclass(frozen=True)
class Sharpness:
    """``loss`` at the weights, and a ``PartSharpness`` for each part asked for."""

    loss: float
    rho: float
    parts: dict[str, PartSharpness]


def sharpness(
    model: nn.Module,
    loss_fn: LossFn,
    batch: Any,
    *,
    rho: float = 0.05,
    parts: Sequence[str] | Mapping[str, Sequence[torch.Tensor]] = ("neural", "science", "all"),
    curvature: bool = True,
    products: str = "auto",
    step: float = 1e-3,
    tolerance: float = 1e-3,
) -> Sharpness:
    """Sharpness of ``loss_fn(model, batch)`` at the model's weights, which are left as they are.

    The top eigenvalue comes from Lanczos (ARPACK) on Hessian-vector products through the solver. These are
    second derivatives where the backend has them (the torch backend), else central differences of gradients.

    Args:
        rho: radius of the gap, in the units of the parameters.
        parts: any of "neural", "science", "all", or names with lists of parameters. Empty parts are left out.
        curvature: compute the top eigenvalue.
        products: "auto", "double" or "differences".
        step: length of the difference step, relative to max(1, ||w||). It must lift the change of the gradient
            above the solver's tolerance.
        tolerance: relative accuracy of the eigenvalue.

    Raises:
        InvalidInput: an argument is unusable, or no second derivative exists and products="double".
    """
    if not (math.isfinite(rho) and rho > 0):
        raise InvalidInput(f"rho: must be positive and finite, got {rho!r}.")
    if products not in ("auto", "double", "differences"):
        raise InvalidInput(f'products={products!r} is not known. Known: "auto", "double", "differences".')
    chosen = _choose(model, parts)
    with torch.enable_grad():
        loss = float(loss_fn(model, batch).detach())
        found = {}
        for name, params in chosen.items():
            gap, slope = _gap(model, loss_fn, batch, params, rho, loss)
            top, count, how = math.nan, 0, "not computed"
            if curvature:
                product = _Products(lambda: loss_fn(model, batch), params, products, step)
                top = _top_eigenvalue(product, tolerance)
                count, how = product.count, product.how
            found[name] = PartSharpness(gap, slope, top, count, how)
    return Sharpness(loss, rho, found)


def _choose(model: nn.Module, parts: Any) -> dict[str, list[torch.Tensor]]:
    if isinstance(parts, Mapping):
        chosen = {name: list(params) for name, params in parts.items()}
    else:
        known: dict[str, Callable[[], list[Any]]] = {
            "neural": lambda: neural_parameters(model),
            "science": lambda: scientific_parameters(model),
            "all": lambda: list(model.parameters()),
        }
        for name in parts:
            if name not in known:
                raise InvalidInput(
                    f"parts: {name!r} is not known. Known: {', '.join(known)}, or names with parameters."
                )
        chosen = {name: known[name]() for name in parts}
    chosen = {name: [p for p in params if p.requires_grad] for name, params in chosen.items()}
    chosen = {name: params for name, params in chosen.items() if params}
    if not chosen:
        raise InvalidInput("parts: no parameters that require a gradient.")
    return chosen


def _gap(
    model: nn.Module, loss_fn: LossFn, batch: Any, params: list[torch.Tensor], rho: float, loss: float
) -> tuple[float, float]:
    kept = [p.grad for p in params]
    grads = torch.autograd.grad(loss_fn(model, batch), params, allow_unused=True)
    values = [p.detach().clone() for p in params]
    try:
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        up = ascent([Item(p, rho, False) for p in params], 0.0)
        if not up.moves:
            return 0.0 if up.norm == 0 else math.nan, up.norm
        with torch.no_grad():
            for p, move in up.moves:
                p.add_(move)
            return float(loss_fn(model, batch)) - loss, up.norm
    finally:
        with torch.no_grad():
            for p, value, grad in zip(params, values, kept, strict=True):
                p.copy_(value)
                p.grad = grad


class _Products:
    """Hessian times vector, flat and in float64."""

    def __init__(self, loss: Callable[[], torch.Tensor], params: list[torch.Tensor], how: str, step: float):
        self.loss, self.params, self.step, self.count = loss, params, step, 0
        self.size = sum(p.numel() for p in params)
        self.how = DIFFERENCES
        if how != "differences" and self._try_double():
            self.how = DOUBLE
        elif how == "double":
            raise InvalidInput('products: this solve has no second derivatives; use backend="torch" or "differences".')

    def _try_double(self) -> bool:
        try:
            self._gradient = _flat(
                torch.autograd.grad(self.loss(), self.params, create_graph=True, allow_unused=True), self
            )
            if not self._gradient.requires_grad or _ends_at_a_solve(self._gradient):
                return False
            self._double(torch.ones(self.size, dtype=torch.float64))
        except SolveFailed:
            raise
        except (RuntimeError, NotImplementedError):  # once_differentiable, or a kernel without a second derivative
            return False
        return True

    def _double(self, v: torch.Tensor) -> torch.Tensor:
        grads = torch.autograd.grad(self._gradient @ v, self.params, retain_graph=True, allow_unused=True)
        return _flat(grads, self)

    def _differences(self, v: torch.Tensor) -> torch.Tensor:
        weights = torch.cat([p.detach().reshape(-1).double() for p in self.params])
        h = self.step * max(1.0, float(weights.norm())) / float(v.norm())
        try:
            sides = [self._gradient_at(weights + sign * h * v) for sign in (1.0, -1.0)]
        finally:
            self._put(weights)
        return (sides[0] - sides[1]) / (2 * h)

    def _gradient_at(self, weights: torch.Tensor) -> torch.Tensor:
        self._put(weights)
        return _flat(torch.autograd.grad(self.loss(), self.params, allow_unused=True), self)

    @torch.no_grad()
    def _put(self, weights: torch.Tensor) -> None:
        start = 0
        for p in self.params:
            p.copy_(weights[start : start + p.numel()].view_as(p))
            start += p.numel()

    def __call__(self, v: np.ndarray) -> np.ndarray:
        self.count += 1
        vector = torch.from_numpy(np.ascontiguousarray(v, dtype=np.float64).reshape(-1))
        if not float(vector.norm()):
            return np.zeros(self.size)
        product = self._double(vector) if self.how == DOUBLE else self._differences(vector)
        return product.detach().numpy()


def _ends_at_a_solve(gradient: torch.Tensor) -> bool:
    """Whether the gradient's graph holds the mark that ``hsb.solve`` leaves where second derivatives end.

    Asking for derivatives of chosen parameters does not reach the mark: it would count as a constant.
    """
    pending, seen = [gradient.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if type(node).__name__ == "_OnceBackward":
            return True
        pending.extend(following for following, _ in node.next_functions)
    return False


def _flat(grads: Sequence[torch.Tensor | None], owner: _Products) -> torch.Tensor:
    pieces = [torch.zeros_like(p) if g is None else g for g, p in zip(grads, owner.params, strict=True)]
    return torch.cat([g.reshape(-1).double() for g in pieces])


def _top_eigenvalue(product: _Products, tolerance: float) -> float:
    n = product.size
    if n <= 10:  # ARPACK needs more dimensions than it builds; so few columns are as quick in full
        columns = np.stack([product(row) for row in np.eye(n)])
        return float(np.linalg.eigvalsh((columns + columns.T) / 2)[-1])
    import scipy.sparse.linalg  # here, since it takes long to import

    operator = scipy.sparse.linalg.LinearOperator((n, n), matvec=product, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(n)  # a fixed start: the same answer every time
    values = scipy.sparse.linalg.eigsh(
        operator, k=1, which="LA", tol=tolerance, v0=start, return_eigenvectors=False, ncv=min(n, 20)
    )
    return float(values[0])
