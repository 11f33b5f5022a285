"""The process that holds Julia: boots it and runs requests. The only file that imports juliacall.

Run as a script it is the worker: it imports neither torch nor this package, connects back to its parent and
serves requests until the parent goes. Imported, its ``Engine`` is the inline runtime.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Callable
from multiprocessing.connection import Client, Connection
from typing import Any

import numpy as np

ADDRESS = "HYBRIDSAM_WORKER_ADDRESS"
AUTHKEY = "HYBRIDSAM_WORKER_KEY"
WIDTH, LINES = 300, 40  # of Julia's messages


def boot(library: str) -> Any:
    """Start Julia in this process and load the package in ``library``. Returns its Julia module."""
    import juliacall

    jl = juliacall.Main
    # Stacked below the active project: the package's source is here, its dependencies there.
    add = jl.seval("path -> path in LOAD_PATH || push!(LOAD_PATH, path)")
    add(library)
    add(os.path.join(library, "implicit"))
    jl.seval("import HybridSAMBridge")
    return jl.HybridSAMBridge


def load_implicit() -> None:
    """The methods that take longest to load, when one is first asked for."""
    import juliacall

    juliacall.Main.seval("import HybridSAMBridgeImplicit")


class Engine:
    """Requests on the Julia module; every argument is plain data, arrays are addresses in this process."""

    def __init__(self, library: str, threads: int):
        self.bridge = boot(library)
        self.threads = threads
        self.implicit = False
        self.programs: dict[str, int] = {}  # by the part's key: equal structure is compiled once

    def register(self, n: int, nc: int, n_params: int, parts: list[dict[str, Any]]) -> int:
        """Register a plan's parts (program or source each) and compile its right-hand side. Returns its id."""
        ids = tuple(self._register_part(part, n, nc) for part in parts)
        return int(
            self.bridge.register_plan(
                n,
                nc,
                n_params,
                ids,
                tuple(tuple(float(x) for x in part.get("constants", ())) for part in parts),
                tuple(int(part["size"]) for part in parts),
                tuple(tuple(part.get("gain") or ()) for part in parts),
            )
        )

    def _register_part(self, part: dict[str, Any], n: int, nc: int) -> int:
        known = self.programs.get(part["key"])
        if known is not None:
            return known
        if part["kind"] == "program":
            new = self.bridge.register_program(part["source"], part["workspace"], part["time_dependent"])
        else:
            new = self.bridge.register_source(
                part["source"],
                part["filename"],
                part["function"],
                tuple(part["names"]),
                tuple(part["shapes"]),
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

    def solve(self, call: dict[str, Any]) -> tuple[int, int]:
        """Run a forward solve; returns the tape's id (0: none) and its bytes."""
        if call["implicit"] and not self.implicit:
            load_implicit()
            self.implicit = True
        tape, size = self.bridge.solve(
            call["plan"],
            call["method"],
            call["adjoint"],
            call["sizes"],
            call["addresses"],
            call["rtol"],
            call["max_steps"],
            call["tape_limit"],
            call["time_limit"],
            call["cancel"],
            self.threads,
        )
        return int(tape), int(size)

    def vjp(self, call: dict[str, Any]) -> None:
        self.bridge.vjp(call["tape"], call["addresses"], call["cancel"], self.threads)

    def step_times(self, tape: int) -> list[np.ndarray]:
        return [np.array(times, dtype=np.float64) for times in self.bridge.step_times(tape)]

    def release(self, tapes: list[int]) -> None:
        self.bridge.release(tuple(tapes))

    def evaluate(self, call: dict[str, Any]) -> int:
        return int(self.bridge.evaluate(call["plan"], call["name"], call["outputs"], call["inputs"]))

    def versions(self) -> dict[str, str]:
        """Versions of Julia and of the packages in use."""
        import juliacall

        found = juliacall.Main.seval(
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


def describe(error: BaseException) -> tuple[str, str]:
    """Kind ("source", "julia" or "python") and message of an exception raised by the engine."""
    if type(error).__name__ == "JuliaError":
        # Julia prints types in full, which can take pages: keep the head of each line, and the first lines.
        lines = [line if len(line) <= WIDTH else line[:WIDTH] + " ..." for line in str(error).splitlines()]
        text = "\n".join(lines[:LINES])
        # A SourceError is the user's code; its text is the message, Julia's trace behind it is ours.
        if "SourceError" in repr(getattr(error, "exception", None))[:200]:
            return "source", text.split("\nStacktrace:")[0]
        return "julia", text
    return "python", f"{type(error).__name__}: {error}"


class _Arena:
    """Shared memory by a mapped file; ``address`` turns offsets into addresses of this process."""

    def __init__(self, path: str, size: int):
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), size)
        self.base = int(np.frombuffer(self.map, dtype=np.uint8).ctypes.data)

    def address(self, offset: int) -> int:
        return self.base + offset


def in_place(address: Callable[[int], int], call: dict[str, Any]) -> dict[str, Any]:
    """The call with offsets into the arena turned into addresses; a negative offset stands for no array."""
    out = dict(call)
    if "addresses" in out:
        out["addresses"] = tuple(address(offset) if offset >= 0 else 0 for offset in out["addresses"])
    if "cancel" in out:
        out["cancel"] = address(out["cancel"])
    for key in ("outputs", "inputs"):
        if key in out:
            out[key] = tuple((address(item[0]), item[1]) if isinstance(item, tuple) else item for item in out[key])
    return out


def serve(connection: Connection, engine: Engine, parent: int) -> None:
    """Answer requests until the parent closes the connection or dies."""
    arena: _Arena | None = None
    while True:
        while not connection.poll(2.0):
            if os.getppid() != parent:
                return
        try:
            name, payload, released = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        try:
            if released:
                engine.release(released)
            result: Any = None
            if name == "arena":
                arena = _Arena(*payload)
            elif name in ("solve", "vjp", "evaluate"):
                assert arena is not None, "the arena is sent before the first solve"
                result = getattr(engine, name)(in_place(arena.address, payload))
            elif name == "exit":
                return
            else:
                result = getattr(engine, name)(*payload)
            reply = ("ok", result)
        except BaseException as error:  # the parent raises it in its own terms
            reply = describe(error)
        connection.send(reply)


def main() -> None:
    if sys.argv[1] == "--check":  # load and precompile, for setup-julia
        boot(sys.argv[2])
        load_implicit()
        return
    address, parent = os.environ[ADDRESS], int(sys.argv[1])
    with Client(address, authkey=bytes.fromhex(os.environ.pop(AUTHKEY))) as connection:
        try:
            engine = Engine(sys.argv[2], int(sys.argv[3]))
        except BaseException as error:
            connection.send(describe(error))
            return
        connection.send(("ok", None))
        serve(connection, engine, parent)


if __name__ == "__main__":
    main()
