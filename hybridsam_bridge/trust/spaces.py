"""Function spaces to draw forcings, initial conditions and parameters from.

A space is a finite basis with independent, zero-mean, unit-variance coefficients; its draws are what a model is
trained or tested on (Queiruga, Gutman-Solo and Jiang, arXiv 2506.15199, call it F(type, p)).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridsam_bridge.errors import InvalidInput

Array = NDArray[Any]  # of floats; NumPy's own stubs widen float64 at almost every step


@dataclass(frozen=True)
class FunctionSpace:
    """Functions on [0, 1] spanned by a finite basis.

    Attributes:
        name: for tables and figures.
        dim: number of basis functions.
        evaluate: ``x (m,) -> (m, dim)``, the basis at points.
        knots: where a basis function is not smooth; quadrature must not step over them.
        amplitude: factor on every draw; with ``match="rms"`` the root mean square that draws are scaled to.
        coefficients: "normal" (standard normal) or "uniform" (on [-sqrt 3, sqrt 3]; the same variance).
    """

    name: str
    dim: int
    evaluate: Callable[[Array], Array] = field(repr=False)
    knots: tuple[float, ...] = ()
    amplitude: float = 1.0
    coefficients: str = "normal"

    def scaled(self, amplitude: float, name: str | None = None) -> FunctionSpace:
        """The same space with another amplitude."""
        return replace(self, amplitude=float(amplitude), name=name or f"{self.name} x{amplitude:g}")

    def basis(self, x: Array) -> Array:
        """``x (m,) -> (m, dim)``."""
        return self.evaluate(np.asarray(x, dtype=np.float64))

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Coefficients ``(n, dim)`` of n draws."""
        if self.coefficients == "uniform":
            return rng.uniform(-np.sqrt(3.0), np.sqrt(3.0), (n, self.dim))
        return rng.standard_normal((n, self.dim))

    def sample(self, n: int, x: Array, rng: np.random.Generator, match: str | None = None) -> Array:
        """Draws at the points x (m,): ``(n, m)``.

        ``match="rms"`` scales each draw so that its root mean square over x is ``amplitude``; spaces then
        differ by shape and not by size.
        """
        values = self.draw(n, rng) @ self.basis(x).T
        if match == "rms":
            size = np.sqrt(np.mean(values**2, axis=1, keepdims=True))
            values = np.divide(values, size, out=np.zeros_like(values), where=size > 0)
        elif match is not None:
            raise InvalidInput(f'match={match!r} is not known. Known: "rms", None.')
        return self.amplitude * values


def polynomial(order: int, basis: str = "legendre") -> FunctionSpace:
    """Polynomials of degree 0 to ``order`` (dimension order + 1).

    ``basis="legendre"`` has independent coefficients on the Legendre polynomials of [0, 1], which keeps the
    space well conditioned; ``"monomial"`` on 1, x, x², ..., the distribution under which the paper states its
    bias of parameter fits.
    """
    _check_order(order)
    if basis == "legendre":
        return FunctionSpace(f"polynomial {order}", order + 1, partial(_legendre, order=order))
    if basis == "monomial":
        return FunctionSpace(f"monomial {order}", order + 1, partial(_monomials, order=order))
    raise InvalidInput(f'basis={basis!r} is not known. Known: "legendre", "monomial".')


def sine(order: int) -> FunctionSpace:
    """sin(j pi x) for j = 1 to ``order``."""
    _check_order(order)
    modes = np.pi * np.arange(1, order + 1)
    return FunctionSpace(f"sine {order}", order, partial(_waves, np.sin, modes))


def cosine(order: int) -> FunctionSpace:
    """cos(j pi x) for j = 1 to ``order``; no constant, as in the paper."""
    _check_order(order)
    modes = np.pi * np.arange(1, order + 1)
    return FunctionSpace(f"cosine {order}", order, partial(_waves, np.cos, modes))


def hats(elements: int) -> FunctionSpace:
    """Piecewise linear functions on ``elements`` equal elements, zero at both ends (dimension elements - 1)."""
    if elements < 2:
        raise InvalidInput(f"elements: a space of hats needs at least 2, got {elements}.")
    knots = tuple(np.linspace(0.0, 1.0, elements + 1).tolist())
    return FunctionSpace(f"hats {elements}", elements - 1, partial(_hats, elements=elements), knots)


def gaussian_field(length: float = 0.1, smoothness: float = 1.5, modes: int = 16) -> FunctionSpace:
    """Gaussian random field of Matérn type with correlation ``length``, by its cosine expansion.

    Coefficients have variance proportional to (1 + (length j pi)²)^-(smoothness + 1/2), the spectrum of a
    Matérn field under no-flux ends (Lindgren, Rue and Lindström, 2011), cut at ``modes`` and scaled to unit mean
    square. The constant is included.
    """
    if length <= 0 or smoothness <= 0 or modes < 1:
        raise InvalidInput("gaussian_field: length and smoothness must be positive, modes at least 1.")
    frequency = np.pi * np.arange(modes + 1)
    weight = (1.0 + (length * frequency) ** 2) ** (-(smoothness + 0.5) / 2)
    weight /= np.sqrt(weight[0] ** 2 + 0.5 * np.sum(weight[1:] ** 2))
    return FunctionSpace(f"field {length:g}", modes + 1, partial(_waves, np.cos, frequency, weight=weight))


def standard_spaces(elements: int = 24, orders: tuple[int, ...] = tuple(range(1, 9))) -> list[FunctionSpace]:
    """The 25 spaces of the paper (polynomial, sine, cosine of each order, and hats) and a Gaussian field."""
    families = [make(order) for make in (polynomial, sine, cosine) for order in orders]
    return [*families, hats(elements), gaussian_field()]


@dataclass(frozen=True)
class Box:
    """Vectors uniform between ``low`` and ``high`` (numbers or sequences): amplitudes, parameters, small states."""

    name: str
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or not all(a <= b for a, b in zip(self.low, self.high, strict=True)):
            raise InvalidInput(f"Box {self.name!r}: low and high need the same length and low <= high.")

    def sample(self, n: int, x: Array, rng: np.random.Generator, match: str | None = None) -> Array:
        """n draws, ``(n, len(low))``; x and match mean nothing to a box and are left alone."""
        return rng.uniform(np.asarray(self.low), np.asarray(self.high), (n, len(self.low)))


def tensor_basis(space: FunctionSpace, x: Array, other: FunctionSpace | None = None) -> Array:
    """Products of a space's functions over the square grid x by x: ``(m * m, dim * dim)``, row-major."""
    first = space.basis(x)
    return np.kron(first, first if other is None else other.basis(x))


# Bases are module functions, not closures, so that spaces can be sent to other processes.
def _legendre(x: Array, order: int) -> Array:
    return np.polynomial.legendre.legvander(2 * x - 1, order)


def _monomials(x: Array, order: int) -> Array:
    return np.vander(x, order + 1, increasing=True).astype(np.float64)


def _waves(function: Callable[[Array], Array], modes: Array, x: Array, weight: Array | float = 1.0) -> Array:
    return function(np.outer(x, modes)) * weight


def _hats(x: Array, elements: int) -> Array:
    nodes = np.arange(1, elements) / elements
    return np.maximum(0.0, 1.0 - np.abs(x[:, None] - nodes) * elements)


def _check_order(order: int) -> None:
    if isinstance(order, bool) or not isinstance(order, (int, np.integer)) or order < 0:
        raise InvalidInput(f"order: must be a whole number from 0, got {order!r}.")
