"""Train on one function space, test on another: the paper's cross-validation for models f -> u."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.trust.equations import Equation
from hybridsam_bridge.trust.operators import DifferenceFit, OperatorModel
from hybridsam_bridge.trust.spaces import Array, FunctionSpace


@dataclass
class CrossValidation:
    """One model's matrix.

    Attributes:
        model: its name. names: the spaces, rows (training) and columns (test) alike.
        relative_error: ``(spaces, spaces)``, root mean square of the error over that of the solution.
        drift: for a parameter fit, the fitted coefficient of each training space over the true one; else None.
    """

    model: str
    names: list[str]
    relative_error: Array
    drift: list[float] | None = None

    @property
    def skill(self) -> Array:
        """log10 of the relative error: 0 is no better than predicting zero, lower is better."""
        return np.log10(np.maximum(self.relative_error, 1e-17))


def cross_validate(
    make: Callable[[], OperatorModel],
    equation: Equation,
    spaces: Sequence[FunctionSpace],
    n_train: int = 1000,
    n_test: int = 200,
    seed: int = 0,
    noise: float = 0.0,
) -> CrossValidation:
    """Train a fresh model on each space (noise on the training solutions only) and test it on all of them."""
    if not spaces:
        raise InvalidInput("spaces: at least one function space is needed.")
    tests = [equation.data(space, n_test, 10_000 + seed) for space in spaces]
    errors = np.empty((len(spaces), len(spaces)))
    drift, name = [], ""
    for i, space in enumerate(spaces):
        model = make()
        name = model.name
        model.fit(*equation.data(space, n_train, seed, noise))
        if isinstance(model, DifferenceFit):
            drift.append(model.coefficient / equation.k)
        for j, (f, u) in enumerate(tests):
            errors[i, j] = np.sqrt(np.mean((model.predict(f) - u) ** 2) / np.mean(u**2))
    return CrossValidation(name, [space.name for space in spaces], errors, drift or None)
