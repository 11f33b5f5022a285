"""The linear equations of the paper's setting, with exact Green's functions and solutions on a grid.

-k u'' = f with u(0) = u(1) = 0; its biharmonic sister k u'''' = f with u = u'' = 0 at both ends (simply
supported; the ends are this package's choice); and -k (u_xx + u_yy) = f on the unit square with u = 0 around.
Source of the setting: Queiruga, Gutman-Solo and Jiang, arXiv 2506.15199.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.trust.spaces import Array, FunctionSpace, tensor_basis

_GAUSS = 16  # points a panel: exact to degree 31, and to rounding for the highest modes used here


def interior(n: int) -> Array:
    """The n - 1 interior points of [0, 1] at spacing 1 / n."""
    return np.arange(1, n) / n


def exact_green(x: Array, s: Array, k: float = 1.0, equation: str = "poisson") -> Array:
    """G(x_i, s_j) ``(len(x), len(s))``: the solution at x of a unit impulse at s.

    Poisson: s(1 - x)/k for s <= x and x(1 - s)/k beyond. Biharmonic, simply supported:
    s(1 - x)(x(2 - x) - s²)/(6k) for s <= x, symmetric.
    """
    low, high = np.minimum(x[:, None], s[None, :]), np.maximum(x[:, None], s[None, :])
    if equation == "poisson":
        return low * (1 - high) / k
    if equation == "biharmonic":
        return low * (1 - high) * (high * (2 - high) - low**2) / (6 * k)
    raise InvalidInput(f'equation={equation!r} has no closed Green\'s function here. Known: "poisson", "biharmonic".')


@dataclass(frozen=True)
class Equation:
    """One of the three equations on the grid of spacing 1 / n.

    Attributes:
        kind: "poisson", "biharmonic" (both on the n - 1 interior points) or "poisson2d" ((n - 1)² points).
        n: number of intervals. k: the coefficient.
    """

    kind: Literal["poisson", "biharmonic", "poisson2d"] = "poisson"
    n: int = 24
    k: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("poisson", "biharmonic", "poisson2d"):
            raise InvalidInput(f"kind={self.kind!r} is not known. Known: poisson, biharmonic, poisson2d.")
        if self.n < 4 or not self.k > 0:
            raise InvalidInput(f"Equation: n must be at least 4 and k positive, got n={self.n}, k={self.k}.")

    @property
    def grid(self) -> Array:
        return interior(self.n)

    @property
    def size(self) -> int:
        return (self.n - 1) ** (2 if self.kind == "poisson2d" else 1)

    def forcings(self, space: FunctionSpace) -> Array:
        """The space's basis at the grid points, ``(size, dim)``; products of it in two dimensions."""
        return tensor_basis(space, self.grid) if self.kind == "poisson2d" else space.basis(self.grid)

    def solutions(self, space: FunctionSpace) -> Array:
        """The solution for each basis function at the grid points, ``(size, dim)``.

        In one dimension exact (Gauss quadrature against the Green's function, split at the grid points and
        knots); in two dimensions that of the five-point operator, which stands for the truth there.
        """
        if self.kind == "poisson2d":
            return self.discrete_operator() @ self.forcings(space)
        points, weights = _panels(np.union1d(np.linspace(0, 1, self.n + 1), np.asarray(space.knots)))
        green = exact_green(self.grid, points, self.k, self.kind)
        return (green * weights) @ space.basis(points)

    def discrete_operator(self) -> Array:
        """The second-order difference operator's inverse ``(size, size)``: u = A f at the grid points."""
        return np.linalg.inv(self.k * self.stencil_matrix())

    def stencil_matrix(self) -> Array:
        """The second-order difference operator itself, for k = 1."""
        m = self.n - 1
        second = (2 * np.eye(m) - np.eye(m, k=1) - np.eye(m, k=-1)) * self.n**2
        if self.kind == "poisson":
            return second
        if self.kind == "biharmonic":
            return second @ second
        return np.kron(second, np.eye(m)) + np.kron(np.eye(m), second)

    def element_operator(self) -> Array:
        """A with u = A f exact at the grid points for every f of ``hats(n)`` ``(size, size)``, one dimension."""
        from hybridsam_bridge.trust.spaces import hats

        return self.solutions(hats(self.n))

    def data(self, space: FunctionSpace, samples: int, seed: int, noise: float = 0.0) -> tuple[Array, Array]:
        """Forcings and solutions ``(samples, size)`` of draws; noise is a fraction of the solutions' rms."""
        rng = np.random.default_rng(seed)
        basis, answer = self.forcings(space), self.solutions(space)
        draws = rng.standard_normal((samples, basis.shape[1])) if self.kind == "poisson2d" else space.draw(samples, rng)
        f, u = draws @ basis.T, draws @ answer.T
        if noise:
            u = u + noise * np.sqrt(np.mean(u**2)) * rng.standard_normal(u.shape)
        return space.amplitude * f, space.amplitude * u


def _panels(breaks: Array) -> tuple[Array, Array]:
    nodes, weights = np.polynomial.legendre.leggauss(_GAUSS)
    half = np.diff(breaks)[:, None] / 2
    points = breaks[:-1, None] + half * (nodes + 1)
    return points.reshape(-1), (half * weights).reshape(-1)
