"""The process that holds Julia: boots it and runs requests. The only file that imports juliacall.

Run as a script it is the worker: it imports neither torch nor this package, connects back to its parent and
serves requests until the parent goes. Imported, its ``Engine`` is the inline runtime.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import pickle
import select
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, wait
from typing import Any

import numpy as np

ADDRESS = "HYBRIDSAM_WORKER_ADDRESS"
AUTHKEY = "HYBRIDSAM_WORKER_KEY"
WIDTH, LINES = 300, 40  # of Julia's messages
# Seconds of asking before sleeping, since being woken takes longer than a small solve: the worker for its next request,
# and its parent for the answer, where that is not at the cost of Julia's threads.
SPIN, SHORT_SPIN = 1e-3, 1e-4
SLICE = 0.5  # seconds of sleep at most: a signal that comes right before it does not end it
CROWDED, CALM = 3e-4, 0.05  # seconds away from the core that tell of others, and without spinning after that

# The hot path: int64 words, read by `entry` in julia/src/api.jl. Kind of request, number of tapes to free, their keys,
# then the arguments; arrays are offsets into the arena, negative for none.
SOLVE, VJP = 1, 2
# plan, method, adjoint, sizes (samples, times, forced steps), arrays, rtol, max_steps, tape_limit, time_limit, threads
SOLVE_WORDS = struct.Struct("=q16s16s3q9qdqqdq")
VJP_WORDS = struct.Struct("=q6qq")  # tape, arrays, threads
ANSWER = struct.Struct("=B3q")  # 0, two results, nanoseconds in Julia; a pickle never starts with 0, 1 or 2


def hot(kind: int, released: deque[int], arguments: bytes) -> bytes:
    """The message of a request of the hot path, which also frees the tapes in ``released`` and empties it."""
    keys = [released.popleft() for _ in range(len(released))]  # finalizers may add to it meanwhile
    return struct.pack(f"={2 + len(keys)}q", kind, len(keys), *keys) + arguments


def boot(library: str) -> Callable[[str], Any]:
    """Start Julia in this process and load the package in ``library``. Returns what evaluates Julia code."""
    import juliacall

    evaluate = juliacall.Main.seval
    # Stacked below the active project: the package's source is here, its dependencies there.
    for folder in (library, os.path.join(library, "implicit")):
        evaluate(f"{literal(folder)} in LOAD_PATH || push!(LOAD_PATH, {literal(folder)})")
    evaluate("import HybridSAMBridge")
    return evaluate


def literal(value: Any) -> str:
    """Julia source of a plain Python value: str, bool, int, or a tuple or list of them."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("$", "\\$")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return "(" + "".join(literal(item) + "," for item in value) + ")"
    return str(int(value))


class EngineError(Exception):
    """A request failed in Julia; ``kind`` is "source" for the user's own code."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


class Engine:
    """Requests on the Julia module; every argument is plain data, arrays are offsets into the arena at ``base``."""

    def __init__(self, library: str, prototype: Callable[..., Any] = ctypes.PYFUNCTYPE):
        self.evaluate_code = boot(library)
        # The hot path avoids juliacall's call protocol, whose first use compiles for two seconds.
        self.entry = prototype(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(self._call("entry_pointer"))
        self.map: mmap.mmap | None = None  # lives as long as the arena
        self.base = 0
        self.programs: dict[str, int] = {}  # by the part's key: equal structure is compiled once

    def _call(self, name: str, *arguments: Any) -> Any:
        return self.evaluate_code(f"HybridSAMBridge.{name}({', '.join(literal(x) for x in arguments)})")

    def arena(self, path: str, size: int) -> None:
        """Take the parent's file as the arena."""
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), size)
        self.base = int(np.frombuffer(self.map, dtype=np.uint8).ctypes.data)

    def run(self, message: bytes) -> tuple[int, int, int]:
        """Run a request of the hot path. Returns two results (a solve's: its tape's key, 0 for none, and its bytes) and
        nanoseconds in Julia.
        """
        words = (ctypes.c_int64 * (len(message) >> 3)).from_buffer_copy(message)
        began = time.perf_counter_ns()
        code = self.entry(ctypes.addressof(words), self.base)
        spent = time.perf_counter_ns() - began
        if code:
            message_of = str(self.evaluate_code("HybridSAMBridge.LAST_ERROR[]"))
            raise EngineError("source" if code == 1 else "julia", message_of)
        return words[0], words[1], spent

    def register(self, n: int, nc: int, n_params: int, parts: list[dict[str, Any]], structure: dict[str, Any]) -> int:
        """Register a plan's parts (program or source each) and compile its right-hand side. Returns its id.

        ``structure``: the kind of "linear" solver; and, where there are any, "pattern", "mass" and "stops".
        """
        ids = [self._register_part(part, n, nc) for part in parts]
        vectors = [
            np.array(part.get(key) if part.get(key) is not None else (), dtype=np.float64)
            for part in parts
            for key in ("constants", "gain")
        ]
        places = [(x.ctypes.data, len(x)) for x in vectors]
        columns = [
            (key, places[2 * i], part["size"], places[2 * i + 1])
            for i, (key, part) in enumerate(zip(ids, parts, strict=True))
        ]
        arrays = [np.ascontiguousarray(x) for x in (*structure.get("pattern", _NO_MATRIX), *structure.get("mass", ()))]
        arrays += [np.zeros(0)] * (5 - len(arrays))
        at = [(x.ctypes.data, len(x)) for x in (*arrays, structure.get("stops", np.zeros(0)))]
        return int(self._call("register_plan", n, nc, n_params, columns, structure["linear"], at[:2], at[2:5], at[5]))

    def _register_part(self, part: dict[str, Any], n: int, nc: int) -> int:
        known = self.programs.get(part["key"])
        if known is not None:
            return known
        if part["kind"] == "program":
            new = self._call("register_program", part["source"], part["workspace"], part["time_dependent"])
        else:
            new = self._call(
                "register_source",
                part["source"],
                part["filename"],
                part["function"],
                part["names"],
                part["shapes"],
                part["named"],
                part["takes_context"],
                n,
                nc,
                part["size"],
                part["jacobian"] or "",
                part["paramjac"] or "",
            )
        self.programs[part["key"]] = int(new)
        return int(new)

    def echo(self, mark: str) -> str:
        """``mark`` again: all that was asked before is answered."""
        return mark

    def load_implicit(self) -> None:
        """The methods that take longest to load, when one is first asked for."""
        self.evaluate_code("import HybridSAMBridgeImplicit")

    def step_times(self, tape: int) -> list[np.ndarray]:
        """Times of the accepted steps, one vector a sample."""
        return [np.array(times, dtype=np.float64) for times in self._call("step_times", tape)]

    def evaluate(self, call: dict[str, Any]) -> int:
        """One function of a plan's first part on given inputs, for tests. Returns the bytes a second call took."""
        outputs = [(self.base + at, shape) for at, shape in call["outputs"]]
        inputs = "".join(
            (repr(item) if isinstance(item, float) else literal((self.base + item[0], item[1]))) + ","
            for item in call["inputs"]
        )
        code = f"HybridSAMBridge.evaluate({call['plan']}, {literal(call['name'])}, {literal(outputs)}, ({inputs}))"
        return int(self.evaluate_code(code))

    def versions(self) -> dict[str, str]:
        """Versions of Julia and of the packages in use."""
        found = self.evaluate_code(
            """
            begin
                pairs = Dict("julia" => string(VERSION), "threads" => string(Threads.nthreads()))
                for (id, m) in Base.loaded_modules
                    v = pkgversion(m)
                    name = String(id.name)
                    (startswith(name, "OrdinaryDiffEq") || name in ("SciMLBase", "LinearSolve", "PythonCall")) &&
                        v !== nothing && (pairs[name] = string(v))
                end
                pairs
            end
            """
        )
        return {str(key): str(found[key]) for key in found}


_NO_MATRIX = (np.zeros(0), np.zeros(0))


def describe(error: BaseException) -> tuple[str, str]:
    """Kind ("source", "julia" or "python") and message of an exception raised by the engine."""
    if isinstance(error, EngineError) or type(error).__name__ == "JuliaError":
        # Julia prints types in full, which can take pages: keep the head of each line, and the first lines.
        lines = [line if len(line) <= WIDTH else line[:WIDTH] + " ..." for line in str(error).splitlines()]
        text = "\n".join(lines[:LINES])
        # A SourceError is the user's code; its text is the message, Julia's trace behind it is ours.
        kind = getattr(error, "kind", "")
        if kind == "source" or "SourceError" in repr(getattr(error, "exception", None))[:200]:
            return "source", text.split("\nStacktrace:")[0]
        return "julia", text
    return "python", f"{type(error).__name__}: {error}"


def readiness(connection: Connection) -> Callable[[float | None, float], bool]:
    """A function of seconds (None: no limit), and of those to spin, that waits and tells whether there is something to
    read.
    """
    if not (hasattr(select, "poll") and hasattr(os, "sched_yield")):
        return lambda seconds, spin: bool(wait([connection], seconds))
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    crowded = 0.0  # no spinning before that time

    def ready(seconds: float | None, spin: float) -> bool:
        nonlocal crowded
        began = last = time.perf_counter()
        if last >= crowded:
            until = last + (spin if seconds is None else min(spin, seconds))
            while last < until:
                if poller.poll(0):
                    return True
                os.sched_yield()  # whoever else wants this core gets it
                now = time.perf_counter()
                if now - last > CROWDED:  # somebody did: one who sleeps is woken sooner than one who spins
                    crowded = now + CALM
                    break
                last = now
        while True:
            left = SLICE if seconds is None else min(SLICE, seconds - (time.perf_counter() - began))
            if poller.poll(max(0.0, 1000 * left)):
                return True
            if left < SLICE:
                return False

    return ready


def serve(connection: Connection, engine: Engine, parent: int) -> None:
    """Answer requests until the parent closes the connection or dies."""
    threading.Thread(target=leave_with, args=(parent,), daemon=True).start()
    ready = readiness(connection)
    while True:
        ready(None, SPIN)
        try:
            message = connection.recv_bytes()
        except (EOFError, ConnectionResetError):
            return
        try:
            if message[0] in (SOLVE, VJP):
                answer = ANSWER.pack(0, *engine.run(message))
            else:
                name, payload = pickle.loads(message)
                answer = pickle.dumps(("ok", getattr(engine, name)(*payload)))
        except BaseException as error:  # the parent raises it in its own terms
            answer = pickle.dumps(describe(error))
        connection.send_bytes(answer)


def leave_with(parent: int) -> None:
    """End this process, also amid a solve, once its parent is gone."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def main() -> None:
    if sys.argv[1] == "--check":  # load and precompile, for setup-julia
        Engine(sys.argv[2]).load_implicit()
        return
    address, parent = os.environ[ADDRESS], int(sys.argv[1])
    with Client(address, authkey=bytes.fromhex(os.environ.pop(AUTHKEY))) as connection:
        try:
            # Without the interpreter's lock, so that the thread that watches the parent runs during a solve.
            engine = Engine(sys.argv[2], ctypes.CFUNCTYPE)
        except BaseException as error:
            connection.send_bytes(pickle.dumps(describe(error)))
            return
        connection.send_bytes(pickle.dumps(("ok", None)))
        serve(connection, engine, parent)


if __name__ == "__main__":
    main()
