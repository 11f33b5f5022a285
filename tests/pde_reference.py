"""The ready PDE problems once more, in NumPy and written apart: what the torch versions are checked against.

Each is a function of t and the flat state that returns the flat derivative.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np

EXAMPLES = Path(__file__).parent.parent / "examples" / "pde"


def example(name: str):
    """The module of an example file."""
    key = f"pde_example_{name}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, EXAMPLES / f"{name}.py")
        sys.modules[key] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[key]


def five_points(u, h, mode, **options):
    """Second differences of (..., n, n) with ghost points by np.pad."""
    padding = [(0, 0)] * (u.ndim - 2) + [(1, 1), (1, 1)]
    w = np.pad(u, padding, mode=mode, **options)
    inner = w[..., 1:-1, 1:-1]
    return (w[..., 2:, 1:-1] + w[..., :-2, 1:-1] + w[..., 1:-1, 2:] + w[..., 1:-1, :-2] - 4 * inner) / h**2


def heat(n, kappa=0.1, edges=(0.0, 0.0)):
    h = 1 / n

    def f(t, y):
        u = y.reshape(n, n)
        out = np.empty_like(u)
        for i in range(n):
            for j in range(n):
                west = u[i - 1, j] if i > 0 else 2 * edges[0] - u[i, j]
                east = u[i + 1, j] if i < n - 1 else 2 * edges[1] - u[i, j]
                south = u[i, j - 1] if j > 0 else -u[i, j]
                north = u[i, j + 1] if j < n - 1 else -u[i, j]
                out[i, j] = kappa * (west + east + south + north - 4 * u[i, j]) / h**2
        return out.reshape(-1)

    return f


def burgers(n, nu=0.05, ends=(1.0, 0.0)):
    h = 2 / n

    def f(t, y):
        w = np.concatenate([[2 * ends[0] - y[0]], y, [2 * ends[1] - y[-1]]])
        flux = (w[1:] ** 2 + w[:-1] ** 2) / 4 - nu * np.diff(w) / h
        return -np.diff(flux) / h

    return f


def allen_cahn(n, epsilon=0.1, side=2.0):
    def f(t, y):
        u = y.reshape(n, n)
        return (epsilon**2 * five_points(u, side / n, "edge") + u - u**3).reshape(-1)

    return f


def brusselator_1d(n, a=1.0, b=3.0, alpha=0.02):
    def f(t, y):
        u, v = y[:n], y[n:]
        second = [np.diff(np.concatenate([[e], w, [e]]), 2) * (n + 1) ** 2 for w, e in ((u, a), (v, b / a))]
        return np.concatenate([a + u**2 * v - (b + 1) * u, b * u - u**2 * v]) + alpha * np.concatenate(second)

    return f


def brusselator_2d(n, alpha=0.1):
    x, y = np.meshgrid(np.arange(n) / n, np.arange(n) / n, indexing="ij")
    disc = 5.0 * ((x - 0.3) ** 2 + (y - 0.6) ** 2 <= 0.01)

    def f(t, state):
        u, v = state.reshape(2, n, n)
        out = alpha * five_points(state.reshape(2, n, n), 1 / n, "wrap")
        out[0] += 1 + u**2 * v - 4.4 * u + (disc if t >= 1.1 else 0)
        out[1] += 3.4 * u - u**2 * v
        return out.reshape(-1)

    return f


def gray_scott(n, feed=0.04, kill=0.06, side=1.0):
    def f(t, state):
        u, v = state.reshape(2, n, n)
        out = five_points(state.reshape(2, n, n), side / n, "wrap") * np.array([2e-5, 1e-5])[:, None, None]
        out[0] += -u * v**2 + feed * (1 - u)
        out[1] += u * v**2 - (feed + kill) * v
        return out.reshape(-1)

    return f


def fitzhugh_nagumo(n, a=1.5e-3, b=5e-3, k=5e-3):
    def f(t, state):
        u, v = state.reshape(2, n, n)
        out = five_points(state.reshape(2, n, n), 2 / (n - 1), "edge") * np.array([a, b])[:, None, None]
        out[0] += u - u**3 - k - v
        out[1] += u - v
        return out.reshape(-1)

    return f
