"""What the paper proves: the bias of a parameter fit, and where a black-box linear model ends up.

Theorems 3.1 and 3.2 of Queiruga, Gutman-Solo and Jiang, arXiv 2506.15199.
"""

from __future__ import annotations

import numpy as np

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.trust.equations import Equation
from hybridsam_bridge.trust.spaces import Array, FunctionSpace

STENCILS = {
    2: np.array([1.0, -2.0, 1.0]),
    4: np.array([-1.0, 16.0, -30.0, 16.0, -1.0]) / 12,
}


def second_difference(u: Array, n: int, order: int) -> Array:
    """-u'' by the stencil of that order at the points where it fits.

    u ``(size, m)`` at interior points, zero at both ends; returns ``(n + 1 - order, m)``: the interior points
    for order 2, all but the first and last of them for order 4.
    """
    if order not in STENCILS:
        raise InvalidInput(f"order={order!r}: the difference stencils known are of order 2 and 4.")
    whole = np.pad(u, ((1, 1), (0, 0)))
    stencil = STENCILS[order]
    rows = len(whole) - len(stencil) + 1
    return -sum(c * whole[i : i + rows] for i, c in enumerate(stencil)) * n**2


def fit_coefficient(f: Array, u: Array, n: int, order: int) -> float:
    """The w that minimises the mean square of -w FD(u) - f, for f and u ``(size, m)``, one column a sample."""
    g = second_difference(u, n, order)
    skipped = order // 2 - 1
    kept = f[skipped : len(f) - skipped]
    return float(np.sum(g * kept) / np.sum(g * g))


def fit_bias(equation: Equation, space: FunctionSpace, order: int = 2, samples: int = 0, seed: int = 0) -> float:
    """|w - k| / k of the fitted coefficient.

    ``samples=0`` is the limit of infinitely many draws: coefficients are independent with equal variance, so the
    sums over samples become sums over the basis. Theorem 3.1: of order Δx^q with q the stencil's order, and zero
    for polynomials of lower degree.
    """
    if equation.kind != "poisson":
        raise InvalidInput(f"fit_bias: is about -k u'' = f, not {equation.kind}.")
    f, u = equation.forcings(space), equation.solutions(space)
    if samples:
        draws = space.draw(samples, np.random.default_rng(seed)).T
        f, u = f @ draws, u @ draws
    return abs(fit_coefficient(f, u, equation.n, order) - equation.k) / equation.k


def training_subspace(forcings: Array, tolerance: float = 1e-12) -> Array:
    """Orthonormal basis U ``(size, rank)`` of the columns of ``forcings (size, dim)``."""
    left, values, _ = np.linalg.svd(forcings, full_matrices=False)
    return left[:, values > tolerance * values[0]]


def linear_limit(operator: Array, forcings: Array, start: Array) -> Array:
    """A U Uᵀ + W0 (I - U Uᵀ): the limit of gradient descent on u = W f (Theorem 3.2).

    ``operator`` A and ``start`` W0 are ``(out, size)``; ``forcings (size, dim)`` spans the training space.
    """
    projection = training_subspace(forcings)
    projection = projection @ projection.T
    return operator @ projection + start @ (np.eye(len(projection)) - projection)


def linear_fit(f: Array, u: Array, start: Array | None = None, tolerance: float = 1e-12) -> Array:
    """Where gradient descent from ``start`` ends on samples f ``(n, size)``, u ``(n, out)``: W ``(out, size)``.

    Gradient descent moves W only within the span of the samples, so its limit is the start plus the least
    squares solution of smallest norm for what the start leaves unexplained.
    """
    first = np.zeros((u.shape[1], f.shape[1])) if start is None else start
    rest = u - f @ first.T
    change, *_ = np.linalg.lstsq(f, rest, rcond=tolerance)
    return first + change.T


def linear_descent(f: Array, u: Array, start: Array, steps: int, momentum: bool = True) -> Array:
    """Plain or Nesterov gradient descent on the mean square of W f - u, at the largest stable step."""
    gram, cross = f.T @ f / len(f), u.T @ f / len(f)
    rate = 1.0 / np.linalg.eigvalsh(gram)[-1]
    w, ahead = start.copy(), start.copy()
    for i in range(steps):
        new = ahead - rate * (ahead @ gram - cross)
        ahead = new + (i / (i + 3) if momentum else 0.0) * (new - w)
        w = new
    return w
