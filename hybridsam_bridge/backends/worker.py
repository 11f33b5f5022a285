"""The parent's side of the Julia worker: starts it, exchanges requests, survives its death."""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

from hybridsam_bridge.backends import locate
from hybridsam_bridge.backends.arena import Arena
from hybridsam_bridge.backends.runtime import ADDRESS, ANSWER, AUTHKEY, SHORT_SPIN, SPIN, hot, readiness
from hybridsam_bridge.config import settings
from hybridsam_bridge.errors import BackendCrashed, BackendUnavailable, JuliaError
from hybridsam_bridge.log import logger
from hybridsam_bridge.problem import Status

GRACE = 10.0  # seconds a solve has to notice that it was told to stop, before the worker is killed
_CORES = os.cpu_count() or 1
BOOT_LIMIT = 1800.0  # a first start compiles the solver


class WorkerDied(Exception):
    """The worker went away during a request. ``JuliaBackend`` retries once."""


class Worker:
    """One worker process. Not thread-safe: ``JuliaBackend`` holds a lock around each exchange."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.process: subprocess.Popen[bytes] | None = None
        self.connection: Connection | None = None
        self.ready: Callable[[float | None, float], bool] | None = None  # whether the connection has an answer
        self.arena: Arena | None = None
        self.released: deque[int] = deque()  # tapes to free with the next request; filled from finalizers
        self.implicit = 0  # the generation whose Julia has loaded the implicit methods
        self.generation = 0  # counts restarts: tapes and plans of an earlier process are gone

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None and self.connection is not None

    def start(self) -> None:
        """Start the process and wait until Julia is up."""
        try:
            self._start()
        except BaseException:  # Ctrl-C too: a worker half started would answer the next request with its start
            self.stop()
            raise

    def _start(self) -> None:
        located = locate.required()
        threads = settings().threads or os.cpu_count() or 1
        key = secrets.token_bytes(32)
        began = time.monotonic()
        with Listener(authkey=key) as listener:
            environment = {**os.environ, **locate.environment(located, threads)}
            environment[ADDRESS] = str(listener.address)
            environment[AUTHKEY] = key.hex()
            script = Path(__file__).with_name("runtime.py")
            command = [sys.executable, str(script), str(os.getpid()), str(locate.library())]
            # A session of its own: Ctrl-C in the terminal reaches the parent alone, which decides.
            self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
            self.connection = _accept(listener, self.process, began)
            self.ready = readiness(self.connection)
        self.generation += 1
        self.arena = None
        self.released.clear()
        self._receive(began + BOOT_LIMIT, "start")
        logger.info("Julia worker ready in %.1f s (%d threads).", time.monotonic() - began, threads)

    @property
    def lanes(self) -> int:
        """Threads of one call; 0 takes all that Julia was started with."""
        return settings().threads

    def request(self, name: str, payload: Any) -> Any:
        """One exchange of plain data. Raises ``WorkerDied``, ``JuliaError``, or KeyboardInterrupt."""
        return self._exchange(pickle.dumps((name, payload)), name, None)

    def run(
        self, kind: int, arguments: bytes, name: str, time_limit: float | None, samples: int
    ) -> tuple[int, int, int]:
        """A request of the hot path (see runtime.py) on the arena; its results. Raises as ``request`` does, after
        stopping the solve.
        """
        # Julia keeps the limit itself; only a model that never returns is ended from here.
        deadline = None if time_limit is None else time.monotonic() + time_limit + GRACE
        answer: tuple[int, int, int] = self._exchange(
            hot(kind, self.released, arguments), name, deadline, SPIN if samples < _CORES else SHORT_SPIN
        )
        return answer

    def _exchange(self, message: bytes, name: str, deadline: float | None, spin: float = SHORT_SPIN) -> Any:
        assert self.connection is not None, "started by the caller"
        try:
            try:
                self.connection.send_bytes(message)
            except (BrokenPipeError, ConnectionError, OSError) as error:
                self.stop()
                raise WorkerDied(f"the worker's connection broke: {error}") from error
            return self._receive(deadline, name, spin)
        except KeyboardInterrupt:
            self._interrupt()
            raise

    def arena_for(self, size: int) -> Arena:
        """An empty arena of at least ``size`` bytes that the worker has mapped too."""
        if self.arena is None or self.arena.capacity < size:
            self.arena = None  # an exchange that fails leaves none, so that both sides never hold different ones
            arena = Arena(size)
            try:
                self.request("arena", (arena.path, arena.capacity))
            finally:
                arena.unlink()
            self.arena = arena
        self.arena.reset()
        return self.arena

    def _receive(self, deadline: float | None, name: str, spin: float = SHORT_SPIN) -> Any:
        assert self.ready is not None
        if not self.ready(None if deadline is None else max(0.0, deadline - time.monotonic()), spin):
            if name == "start":
                self.stop()
                raise BackendUnavailable(f"The Julia worker did not come up within {BOOT_LIMIT:.0f} s.")
            self.stop()
            raise BackendCrashed(
                f"The solve did not stop within {GRACE:.0f} s after its time limit, so the Julia worker was ended; the "
                "next solve starts a new one. Look for an endless loop in the model's code."
            )
        return self._read(name)

    def _read(self, name: str) -> Any:
        assert self.connection is not None
        try:
            answer = self.connection.recv_bytes()
        except (EOFError, ConnectionError, OSError) as error:
            code = None if self.process is None else self.process.poll()
            self.stop()
            raise WorkerDied(f"the worker process died ({_cause(code)})") from error
        except KeyboardInterrupt:  # amid a message: what follows cannot be told apart
            self.stop()
            raise
        if answer[0] == 0:
            return ANSWER.unpack(answer)[1:]
        kind, result = pickle.loads(answer)
        if kind == "ok":
            return result
        if name == "start":
            self.stop()
            raise BackendUnavailable(f"Julia could not be started: {result}\n{locate.SETUP}")
        raise JuliaError(result if kind == "source" else f"Julia failed in {name}: {result}")

    def _interrupt(self) -> None:
        """Tell the running solve to stop and drop its answer; end the worker if it does not come to rest.

        An interrupt may come before the request is sent, or once it is answered: an echo, sent behind it, tells when
        nothing is left to read.
        """
        if self.arena is not None:
            self.arena.cancel[0] = int(Status.INTERRUPTED)
        mark = secrets.token_hex(8)
        try:
            if self.connection is None or self.ready is None:
                return
            self.connection.send_bytes(pickle.dumps(("echo", (mark,))))
            while self.ready(GRACE, SHORT_SPIN):
                with contextlib.suppress(JuliaError):
                    result = self._read("interrupt")
                    if result == mark:
                        return
                    if isinstance(result, tuple) and result[0]:
                        self.released.append(result[0])  # the solve's tape
            self.stop()
        except (OSError, WorkerDied):
            self.stop()
        except BaseException:  # Ctrl-C again: no answer is waited for
            self.stop()
            raise

    def stop(self) -> None:
        """End the process, if this is the process that started it."""
        process, connection = self.process, self.connection
        self.process = self.connection = self.arena = None
        if os.getpid() != self.pid:
            return
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()


def _accept(listener: Listener, process: subprocess.Popen[bytes], began: float) -> Connection:
    """Wait for the worker's connection without blocking for ever on a worker that died."""
    box: list[Any] = []

    def accept() -> None:
        with contextlib.suppress(OSError, EOFError):
            box.append(listener.accept())

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    while not box:
        thread.join(0.02)
        if process.poll() is not None and not box:
            raise BackendUnavailable(
                f"The Julia worker ended at once (exit code {process.returncode}); its messages are on standard error. "
                "`hybridsam-bridge doctor` checks the installation."
            )
        if time.monotonic() - began > BOOT_LIMIT:
            process.kill()
            raise BackendUnavailable("The Julia worker did not connect.")
    return box[0]


_worker: Worker | None = None


def worker() -> Worker:
    """The worker of this process (a forked child gets one of its own)."""
    global _worker
    if _worker is None or _worker.pid != os.getpid():
        _worker = Worker()
    return _worker


@atexit.register
def _stop() -> None:
    if _worker is not None and _worker.pid == os.getpid():
        _worker.stop()


def _cause(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
