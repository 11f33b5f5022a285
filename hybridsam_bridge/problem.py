"""What goes into a solve and what comes out: statuses, statistics, the solution."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import torch


class Status(IntEnum):
    """How the integration of one sample ended. The numbers are shared with the Julia package."""

    SUCCESS = 0
    MAX_STEPS = 1
    STEP_TOO_SMALL = 2
    NON_FINITE = 3
    NONLINEAR_SOLVER = 4
    TIME_LIMIT = 5
    INTERRUPTED = 6
    NOT_RUN = 7
    INCONSISTENT = 8

    @property
    def hint(self) -> str:
        """What a user can do about it."""
        return _HINTS[self]

    @property
    def text(self) -> str:
        """What happened, as the end of a sentence."""
        return _TEXTS[self]


_TEXTS = {
    Status.SUCCESS: "succeeded",
    Status.MAX_STEPS: "used up max_steps",
    Status.STEP_TOO_SMALL: "needed a step below the spacing of floating-point numbers",
    Status.NON_FINITE: "met a NaN or infinite value in the state or the right-hand side",
    Status.NONLINEAR_SOLVER: "could not solve an implicit stage or its linear system",
    Status.TIME_LIMIT: "ran out of its time limit",
    Status.INTERRUPTED: "was interrupted",
    Status.NOT_RUN: "was not run",
    Status.INCONSISTENT: "starts from a y0 that does not satisfy the algebraic equations",
}
_HINTS = {
    Status.SUCCESS: "",
    Status.MAX_STEPS: "Raise max_steps, loosen rtol/atol, or use a stiff method such as Rodas5P.",
    Status.STEP_TOO_SMALL: (
        "The solution may blow up there: check the parameters and the model's sign conventions, "
        "or shorten the time span."
    ),
    Status.NON_FINITE: (
        "Check the model for division by zero, log or sqrt of a negative number, or overflow at that "
        "state; bound the parameters or the network's output."
    ),
    Status.NONLINEAR_SOLVER: "Try a Rosenbrock method (Rodas5P), or tighter tolerances.",
    Status.TIME_LIMIT: "Raise the time limit, loosen rtol/atol, or shorten the time span.",
    Status.INTERRUPTED: "",
    Status.NOT_RUN: "",
    Status.INCONSISTENT: (
        "Compute the algebraic unknowns of y0 from the differential ones, so that the rows of f where mass_matrix is "
        "zero vanish."
    ),
}


@dataclass
class Stats:
    """Work done by a solve. Arrays have the batch's shape.

    Attributes:
        steps, rejected: accepted and rejected steps.
        f, jac: evaluations of the right-hand side and of its Jacobian.
        seconds: wall time of the whole call in the backend, in seconds.
        method, adjoint, backend: what was used, after "auto" was resolved.
        linear: how linear systems were solved: dense, sparse, krylov; "krylov, sparse" where a sparse LU took over from
            GMRES in some samples; none for explicit methods.
        why: one sentence on how "auto" chose, empty if nothing was left to choose.
        tape_bytes: memory held for the backward pass, in bytes.
    """

    steps: np.ndarray
    rejected: np.ndarray
    f: np.ndarray
    jac: np.ndarray
    seconds: float
    method: str
    adjoint: str
    backend: str
    linear: str = "dense"
    why: str = ""
    tape_bytes: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Solution:
    """Result of ``hsb.solve``.

    Attributes:
        ys: ``(*batch, T, *state_shape)``, the dtype and device of ``y0``; ``ys[..., 0, :]`` is ``y0``.
        ts: ``(T,)``, the times asked for.
        status: ``(*batch,)`` int64 tensor of ``Status`` values.
        stats: ``Stats``.
        steps: for each sample (in flat batch order) the times of its accepted steps, first to last,
            or None where the backend was not asked for them.
    """

    ys: torch.Tensor
    ts: torch.Tensor
    status: torch.Tensor
    stats: Stats
    steps: list[np.ndarray] | None = None

    @property
    def success(self) -> torch.Tensor:
        """``(*batch,)`` bool: which samples reached the end."""
        return self.status == int(Status.SUCCESS)
