"""The inline runtime: juliacall in this process, for users who want no second one."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

from hybridsam_bridge.backends import locate, runtime
from hybridsam_bridge.backends.arena import Arena
from hybridsam_bridge.config import settings
from hybridsam_bridge.errors import BackendUnavailable, JuliaError
from hybridsam_bridge.log import logger


class Inline:
    """Same face as ``worker.Worker``. Ctrl-C takes effect when the running call returns."""

    def __init__(self) -> None:
        self.engine: runtime.Engine | None = None
        self.arena: Arena | None = None
        self.released: deque[int] = deque()
        self.implicit = 0  # the generation whose Julia has loaded the implicit methods
        self.generation = 0

    @property
    def running(self) -> bool:
        return self.engine is not None

    def start(self) -> None:
        """Import juliacall here. Refuses where that is known to crash."""
        located = locate.required()
        if "juliacall" not in sys.modules:
            raise BackendUnavailable(
                'runtime="inline" needs juliacall imported before torch (the other order can crash the process): put '
                "`import juliacall` first in your program, with PYTHON_JULIACALL_EXE="
                f"{located.executable} and PYTHON_JULIACALL_PROJECT={located.project} in its environment. "
                'Or use runtime="worker", which has no such rule.'
            )
        if threading.current_thread() is not threading.main_thread():
            raise BackendUnavailable('With runtime="inline" the first solve must come from the main thread.')
        try:
            self.engine = runtime.Engine(str(locate.library()))
        except Exception as error:
            raise BackendUnavailable(f"Julia could not be started inline: {runtime.describe(error)[1]}") from error
        self.generation += 1
        logger.info("Julia runs inline in process %d.", os.getpid())

    @property
    def lanes(self) -> int:
        """Threads of one call: one, unless more are asked for."""
        return settings().threads or 1

    def request(self, name: str, payload: Any) -> Any:
        """Run a request of plain data at once."""
        assert self.engine is not None, "started by the caller"
        with _failures(name):
            return getattr(self.engine, name)(*payload)

    def run(
        self, kind: int, arguments: bytes, name: str, time_limit: float | None, samples: int
    ) -> tuple[int, int, int]:
        """Run a request of the hot path (see runtime.py) on the arena; Julia keeps the time limit."""
        assert self.engine is not None, "started by the caller"
        with _failures(name):
            return self.engine.run(runtime.hot(kind, self.released, arguments))

    def arena_for(self, size: int) -> Arena:
        """An empty arena of at least ``size`` bytes."""
        if self.arena is None or self.arena.capacity < size:
            assert self.engine is not None, "started by the caller"
            self.arena = Arena(size)
            self.arena.unlink()
            self.engine.base = self.arena.address
        self.arena.reset()
        return self.arena

    def stop(self) -> None:
        """Julia cannot be ended within a process."""


@contextlib.contextmanager
def _failures(name: str) -> Iterator[None]:
    """Errors of Julia in the package's own terms."""
    try:
        yield
    except Exception as error:
        kind, message = runtime.describe(error)
        if kind == "python":
            raise
        raise JuliaError(message if kind == "source" else f"Julia failed in {name}: {message}") from error
