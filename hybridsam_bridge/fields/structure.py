"""What a field says of its equations besides the right-hand side: a mass matrix, times of jumps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.fields.plan import Shape
from hybridsam_bridge.fields.signals import SampledSignal


def mass_entries(
    value: Any, state_shape: Shape
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]] | None:
    """Rows, columns and values of the mass matrix M in M dy/dt = f; None where it is the identity.

    ``value``: None, ``state_shape`` (the diagonal; zeros make algebraic equations), or ``(n, n)``, on the flattened
    state. Raises ``InvalidInput``.
    """
    if value is None:
        return None
    if isinstance(value, torch.Tensor):
        if value.requires_grad:
            raise InvalidInput("mass_matrix: is a constant; it cannot be trained. Call .detach() on it.")
        value = value.cpu()
    matrix = np.asarray(value, dtype=np.float64)
    n = math.prod(state_shape)
    if matrix.shape == tuple(state_shape):
        diagonal = matrix.reshape(-1)  # kept as such: n may be large
        rows = columns = np.flatnonzero(diagonal)
        values = diagonal[rows]
    elif matrix.shape == (n, n):
        rows, columns = np.nonzero(matrix)
        values = matrix[rows, columns]
    else:
        raise InvalidInput(
            f"mass_matrix: must have the state_shape {tuple(state_shape)} (its diagonal) or the shape {(n, n)}, got "
            f"{matrix.shape}."
        )
    if not np.isfinite(values).all() or not len(values):
        raise InvalidInput("mass_matrix: must be finite, and not all zeros (that leaves no differential equation).")
    if len(values) == n and (rows == columns).all() and (values == 1).all():
        return None
    return rows.astype(np.int64), columns.astype(np.int64), values


def jump_times(field: nn.Module) -> list[float]:
    """Sorted times at which f may jump: what fields in ``field`` declare, and where "previous" signals do."""
    found: set[float] = set()
    for sub in field.modules():
        declared = (
            () if isinstance(sub, SampledSignal) and sub.interpolation != "previous" else getattr(sub, "jumps", ())
        )
        try:
            times = [float(time) for time in declared]
        except (TypeError, ValueError):
            times = [math.nan]
        if not all(map(math.isfinite, times)):
            raise InvalidInput(
                f"jumps: {type(sub).__name__}.jumps must be a sequence of finite times, got {declared!r}."
            )
        found.update(times)
    return sorted(found)
