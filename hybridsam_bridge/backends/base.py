"""The contract that every backend keeps.

NumPy arrays and plain data cross this boundary, no torch and no Julia object, so that a backend can live
in another process and one set of tests holds for all (``tests/contracts.py``). The embedded torch backend
is the exception: it takes the tensors themselves (``TensorBackend``) and is differentiable as it stands.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from hybridsam_bridge.fields.plan import Plan

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Availability:
    """Whether a backend can be used here: ``why`` in one sentence, ``fix`` how to get it if not ready."""

    ready: bool
    why: str
    fix: str = ""


class Choice(NamedTuple):
    """A method, an adjoint and a linear solver after "auto" was resolved, and why they were taken."""

    method: str
    adjoint: str
    why: str = ""
    linear: str = "dense"


class Options(NamedTuple):
    """Numerical options of one solve.

    Attributes:
        method, adjoint: resolved names; adjoint "none" keeps no tape.
        rtol: relative tolerance. atol: ``(n,)`` absolute tolerances, in the units of the state.
        max_steps: accepted plus rejected steps a sample may take.
        steps: per sample the times ``t_0 < ... < t_K`` of forced steps (no error control), or None.
        record_steps: return the times of the accepted steps.
        time_limit: seconds of wall time for the whole call, or None.
        linear: how the systems of implicit steps are solved.
    """

    method: str
    adjoint: str
    rtol: float
    atol: Floats
    max_steps: int
    steps: tuple[Floats, ...] | None = None
    record_steps: bool = False
    time_limit: float | None = None
    linear: str = "dense"


class Request(NamedTuple):
    """The numbers of one solve, all float64 and C-contiguous, B samples of n unknowns.

    ``y0`` (B, n); ``ts`` (T,) strictly increasing; ``context`` (B, nc), nc may be 0; ``p`` (P,).
    """

    y0: Floats
    ts: Floats
    context: Floats
    p: Floats


def split(values: Floats, sizes: Iterable[int]) -> list[Floats]:
    """Consecutive pieces of a vector as views (``np.split`` takes several times as long)."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(values[start : start + size])
        start += size
    return pieces


class Tape:
    """What a forward solve keeps for its vjp. Freed by ``release``, and when it is garbage-collected.

    ``nbytes`` is its memory; ``times`` says whether the cotangent of ``ts``, an evaluation an output, is wanted.
    """

    nbytes: int = 0
    times: bool = True

    def release(self) -> None:
        """Free the memory. Calling it twice does no harm; a vjp after it raises."""


@dataclass
class Forward:
    """Result of ``Backend.solve``.

    ``ys`` (B, T, n), NaN where a sample did not get that far; ``status`` (B,) of ``Status`` numbers;
    ``reached`` (B,) the time each sample reached; counters (B,).
    """

    ys: Floats
    status: Ints
    reached: Floats
    steps: Ints
    rejected: Ints
    f: Ints
    jac: Ints
    seconds: float
    tape: Tape | None = None
    step_times: list[Floats] | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Gradients:
    """Result of ``Backend.vjp``: cotangents of y0 (B, n), ts (T,), context (B, nc) and p (P,).

    ``status`` (B,) reports each sample's backward solve; where it is not SUCCESS the numbers are not to
    be used, and ``reached`` (B,) has the time at which it stopped.
    """

    y0: Floats
    ts: Floats
    context: Floats
    p: Floats
    status: Ints
    reached: Floats
    seconds: float = 0.0


class Backend(ABC):
    """One way to solve and differentiate. Instances are cheap; nothing starts before the first solve."""

    name: str

    @abstractmethod
    def availability(self) -> Availability:
        """Whether it can be used here. Must be quick and start nothing."""

    @abstractmethod
    def choose(self, plan: Plan, method: str, adjoint: str, linear: str) -> Choice:
        """Resolve "auto"; raise ``UnsupportedOperation`` for what this backend lacks."""

    @abstractmethod
    def solve(self, plan: Plan, request: Request, options: Options) -> Forward:
        """Integrate every sample with steps of its own. Failures are statuses, not exceptions."""

    @abstractmethod
    def vjp(self, tape: Tape, grad_ys: Floats) -> Gradients:
        """Pull ``grad_ys`` (B, T, n) back through the solve that left ``tape``.

        Samples whose forward solve failed get zero. May be called more than once until the release.
        """


class TensorBackend(Backend):
    """A backend written in torch: takes tensors on any device, differentiable to second order."""

    @abstractmethod
    def solve_tensors(
        self,
        plan: Plan,
        y0: torch.Tensor,
        ts: torch.Tensor,
        context: torch.Tensor,
        p: torch.Tensor,
        options: Options,
    ) -> tuple[torch.Tensor, Forward]:
        """As ``solve``, with ``ys`` (B, T, n) as a tensor connected to the graph of its inputs."""
