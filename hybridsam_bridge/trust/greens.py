"""The Green's function that a model f -> u has learned, read off by unit impulses or its Jacobian.

After the probe of Queiruga, Gutman-Solo and Jiang, arXiv 2506.15199.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.trust.spaces import Array

_ILL_POSED = 1e8  # a relative error of 1e-8 in the operator is then an error of order one in its inverse


@dataclass
class Stencil:
    """The inverse of an extracted operator, read as a difference stencil.

    Attributes:
        matrix: ``(n, n)``, of the operator without the grid's weights (units of f over u).
        rows: ``(5,)`` means over the inner rows of the entries two left to two right of the diagonal.
        outside: share of the matrix's norm that lies off the tridiagonal; near 0 for a local second-order law.
        condition: condition number of the operator that was inverted.
        caution: in words, why the stencil is not to be trusted; empty if it may be.
    """

    matrix: Array
    rows: Array
    outside: float
    condition: float
    caution: str


@dataclass
class GreensFunction:
    """What was read from a model.

    Attributes:
        grid: ``(n,)`` points. matrix: ``(n, n)`` response at grid point i to the forcing's entry j.
        density: ``(n, n)`` the same over the width of a cell: G(x_i, s_j), in units of u over f and length.
        linear: whether the model is linear to within ``nonlinearity`` < 1e-6.
        nonlinearity: relative departure from homogeneity and additivity on a random input.
        method: "impulses" or "jacobian".
    """

    grid: Array
    matrix: Array
    density: Array
    linear: bool
    nonlinearity: float
    method: str

    def error(self, exact: Callable[[Array, Array], Array] | Array) -> float:
        """Relative Frobenius distance to an exact G: a function ``G(x, s) -> (n, n)`` or an array of it."""
        wanted = exact(self.grid, self.grid) if callable(exact) else np.asarray(exact)
        return _distance(self.density, wanted)

    def discrete_error(self, operator: Array) -> float:
        """Relative Frobenius distance to a discrete operator A (u = A f), such as an inverse difference matrix."""
        return _distance(self.matrix, np.asarray(operator))

    def stencil(self) -> Stencil:
        """Invert the operator. An operator learned on a subspace has no inverse: the caution says so."""
        values = np.linalg.svd(self.matrix, compute_uv=False)
        condition = float(values[0] / values[-1]) if values[-1] > 0 else float("inf")
        inverse = np.linalg.pinv(self.matrix, rcond=1e-14)
        inner = range(2, len(inverse) - 2)
        rows = np.mean([inverse[i, i - 2 : i + 3] for i in inner], axis=0) if len(inverse) > 4 else np.full(5, np.nan)
        index = np.arange(len(inverse))
        near = np.abs(index[:, None] - index) <= 1
        total = float(np.linalg.norm(inverse)) or 1.0
        rank = int(np.sum(values > 1e-10 * values[0]))
        caution = ""
        if rank < len(values):
            caution = (
                f"The operator has rank {rank} of {len(values)}: the training data spanned no more, and the inverse "
                "says nothing about the rest. Train on a space that fills the grid, such as finite-element hats."
            )
        elif condition > _ILL_POSED:
            caution = f"The operator's condition number is {condition:.1e}: errors of the fit swamp its inverse."
        return Stencil(inverse, rows, float(np.linalg.norm(inverse[~near])) / total, condition, caution)


def greens_function(
    model: Any, grid: Any, *, about: Any = None, method: str = "auto", size: float = 1.0
) -> GreensFunction:
    """Read the Green's function of a model that maps a forcing on ``grid`` to a solution on it.

    Args:
        model: a torch module or any function ``f (B, n) -> u (B, n)`` on tensors; an object with ``predict``
            on NumPy arrays; or a matrix W ``(n, n)`` with u = W f.
        grid: ``(n,)`` increasing, equally spaced points, in units of length.
        about: ``(n,)`` forcing around which a nonlinear model is linearised; zero if left out.
        method: "impulses" (responses to unit impulses of ``size`` over a cell), "jacobian", or "auto": impulses if
            the model turns out linear, else the Jacobian at ``about``.
        size: height of the impulses, in units of f.

    Returns:
        ``GreensFunction``; its ``density`` is comparable to G(x, s) = s(1 - x)/k for s <= x, the exact one of
        -k u'' = f with zero ends.

    Raises:
        InvalidInput: the grid or the model's output does not fit, or the model has no Jacobian.
    """
    points = np.asarray(grid, dtype=np.float64)
    gaps = np.diff(points)
    if points.ndim != 1 or len(points) < 3 or not (gaps > 0).all() or np.ptp(gaps) > 1e-6 * gaps[0]:
        raise InvalidInput("grid: needs at least three equally spaced, increasing points in one dimension.")
    if method not in ("auto", "impulses", "jacobian"):
        raise InvalidInput(f'method={method!r} is not known. Known: "auto", "impulses", "jacobian".')
    call, n = _as_function(model), len(points)
    centre = np.zeros(n) if about is None else np.asarray(about, dtype=np.float64)
    nonlinearity = _nonlinearity(call, centre, size)
    linear = nonlinearity < 1e-6
    if method == "auto":
        method = "impulses" if linear else "jacobian"
    if method == "impulses":
        base = call(centre[None])
        matrix = (call(centre + size * np.eye(n)) - base).T / size
    else:
        matrix = _jacobian(model, call, centre, size)
    return GreensFunction(points, matrix, matrix / gaps[0], linear, nonlinearity, method)


def _distance(found: Array, wanted: Array) -> float:
    if found.shape != wanted.shape:
        raise InvalidInput(f"The operator to compare with has shape {wanted.shape}, the model's is {found.shape}.")
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def _as_function(model: Any) -> Callable[[Array], Array]:
    if isinstance(model, (np.ndarray, torch.Tensor)):
        weight = np.asarray(model.detach() if isinstance(model, torch.Tensor) else model, dtype=np.float64)
        inner: Callable[[Array], Any] = lambda f: f @ weight.T  # noqa: E731 - one line, used once
    elif hasattr(model, "predict"):
        inner = model.predict
    elif callable(model):
        inner = lambda f: model(_like(model, f)).detach().double().numpy()  # noqa: E731
    else:
        raise InvalidInput(
            f"model: must be a module, a function, a matrix or have predict, got {type(model).__name__}."
        )

    def call(f: Array) -> Array:
        out = np.asarray(inner(f), dtype=np.float64)
        if out.shape != f.shape:
            raise InvalidInput(f"model: must map forcings {f.shape} to solutions of that shape, it gave {out.shape}.")
        return out

    return call


def _like(model: Any, f: Array) -> torch.Tensor:
    """f as the model's own kind of tensor."""
    first = next(iter(model.parameters()), None) if isinstance(model, nn.Module) else None
    return torch.as_tensor(f, dtype=torch.float64 if first is None else first.dtype)


def _nonlinearity(call: Callable[[Array], Array], centre: Array, size: float) -> float:
    rng = np.random.default_rng(0)
    a, b = size * rng.standard_normal((2, len(centre)))
    base, one, two, both, double = call(centre + np.stack([0 * a, a, b, a + b, 2 * a]))
    scale = np.linalg.norm(both - base) + np.linalg.norm(double - base)
    if scale == 0:
        return 0.0
    return float((np.linalg.norm(both - one - two + base) + np.linalg.norm(double - 2 * one + base)) / scale)


def _jacobian(model: Any, call: Callable[[Array], Array], centre: Array, size: float) -> Array:
    if callable(model) and not hasattr(model, "predict"):
        point = _like(model, centre[None])
        value = torch.autograd.functional.jacobian(model, point)
        return value.reshape(len(centre), len(centre)).double().numpy()
    step = 1e-5 * max(size, float(np.abs(centre).max()))  # predict has no gradient: central differences
    shifts = step * np.eye(len(centre))
    return (call(centre + shifts) - call(centre - shifts)).T / (2 * step)
