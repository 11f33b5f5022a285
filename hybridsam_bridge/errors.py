"""Every error the package raises on purpose. Each message says what went wrong, where, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hybridsam_bridge.problem import Status


class HybridSAMError(Exception):
    """Base class of all errors raised by this package."""


class InvalidInput(HybridSAMError, ValueError):
    """An argument was refused before any solve was started. The message names the argument and the fix."""


class BackendUnavailable(HybridSAMError, RuntimeError):
    """A backend was asked for by name and is not there. The message says how to get it."""


class BackendCrashed(HybridSAMError, RuntimeError):
    """The worker process died and a restart did not help, or it took a solve's tape with it."""


class UnsupportedOperation(HybridSAMError, NotImplementedError):
    """A traced operator or a combination of options has no implementation on this backend."""


class JuliaError(HybridSAMError, RuntimeError):
    """The user's Julia code failed. Carries Julia's own message with file and line."""


class SolveFailed(HybridSAMError, RuntimeError):
    """A solve, or the backward solve of its adjoint, did not reach its end.

    Attributes:
        status: ``Status`` of the first sample that failed.
        sample: its index in the batch, a tuple (``()`` for an unbatched solve).
        time: the time it reached, in the units of ``ts``.
        hint: what to try.
    """

    def __init__(self, message: str, *, status: Status, sample: tuple[int, ...], time: float, hint: str):
        super().__init__(f"{message} {hint}".strip())
        self.status = status
        self.sample = sample
        self.time = time
        self.hint = hint
