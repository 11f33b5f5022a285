"""The Julia backend: plans registered once, solves and vjps by DifferentialEquations.jl."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import numpy as np

from hybridsam_bridge import methods
from hybridsam_bridge.backends import linear as systems
from hybridsam_bridge.backends import locate, parts, worker
from hybridsam_bridge.backends.arena import Arena, needed, offsets
from hybridsam_bridge.backends.base import (
    Availability,
    Backend,
    Choice,
    Floats,
    Forward,
    Gradients,
    Ints,
    Options,
    Request,
    Tape,
    split,
)
from hybridsam_bridge.backends.inline import Inline
from hybridsam_bridge.backends.runtime import SOLVE, SOLVE_WORDS, VJP, VJP_WORDS
from hybridsam_bridge.config import settings
from hybridsam_bridge.errors import BackendCrashed, UnsupportedOperation
from hybridsam_bridge.fields.plan import Plan
from hybridsam_bridge.lowering.program import Program
from hybridsam_bridge.problem import Status

Link = worker.Worker | Inline
_INTERRUPTED = int(Status.INTERRUPTED)

_lock = threading.RLock()  # calls may come from any thread; one at a time reaches Julia
_inline = Inline()
_live_bytes = 0  # memory that tapes hold in Julia
_spent = 0  # nanoseconds inside Julia, of all calls


def seconds_in_julia() -> float:
    """Time that this process's solves and vjps spent inside Julia so far; the rest of a call is the bridge's."""
    return 1e-9 * _spent


def _link() -> Link:
    """The runtime in force; starts nothing."""
    return _inline if settings().runtime == "inline" else worker.worker()


def _started() -> Link:
    """The started runtime, for one who holds the lock."""
    link = _link()
    if not link.running:
        link.start()
    return link


class JuliaTape(Tape):
    """A solve kept in Julia. ``generation`` tells whether the process that holds it still lives."""

    def __init__(self, link: Link, key: int, nbytes: int, shape: tuple[int, int, int], plan: Plan, limit: float | None):
        global _live_bytes
        self.link, self.key, self.nbytes, self.shape, self.plan = link, key, nbytes, shape, plan
        self.generation = link.generation
        self.time_limit = limit
        self.pid = os.getpid()
        _live_bytes += nbytes

    def release(self) -> None:
        global _live_bytes
        if self.key and self.pid == os.getpid():
            _live_bytes -= self.nbytes
            if self.generation == self.link.generation:
                self.link.released.append(self.key)  # freed with the next request: no exchange in a finalizer
        self.key = 0

    def __del__(self) -> None:
        self.release()


class JuliaBackend(Backend):
    """Solves in Julia, in a worker process or inline."""

    name = "julia"

    def __init__(self) -> None:
        self._found: tuple[tuple[str | None, ...], Availability] | None = None

    def availability(self) -> Availability:
        # Asked before every solve: what was found is kept while the environment names the same places.
        places = tuple(os.environ.get(name) for name in locate.VARIABLES)
        if self._found is not None and self._found[0] == places:
            return self._found[1]
        located = locate.find()
        trouble = locate.problem(located)
        if trouble or located is None:
            return Availability(False, trouble, locate.SETUP)
        self._found = (places, Availability(True, f"Julia {located.how}"))
        return self._found[1]

    def choose(self, plan: Plan, method: str, adjoint: str, linear: str) -> Choice:
        why = []
        if method == "auto":
            method = "Rodas5P"
            why.append("method: Rodas5P, a stiff Rosenbrock method of order 5 that also does non-stiff problems.")
        family = methods.require(method, self.name).family
        reversible = _keeps_stages(method)
        if adjoint == "auto":
            adjoint = "discrete" if reversible else "gauss"
            why.append(
                "adjoint: discrete, exact for the computed solution."
                if reversible
                else f"adjoint: gauss, since the steps of {method} cannot be reversed."
            )
        if adjoint == "discrete" and not reversible:
            raise UnsupportedOperation(
                f'adjoint="discrete" needs a one-step method such as Rodas5P; for {method} take adjoint="gauss".'
            )
        if adjoint == "forward" and family != "rosenbrock":
            raise UnsupportedOperation(
                f'adjoint="forward" needs a Rosenbrock method such as Rodas5P; for {method} take '
                f'adjoint="{"discrete" if reversible else "gauss"}".'
            )
        systems.refuse_dae(plan, method, adjoint)
        linear, because = systems.choose(plan, method, adjoint, linear)
        return Choice(method, adjoint, " ".join([*why, because] if because else why), linear)

    def solve(self, plan: Plan, request: Request, options: Options) -> Forward:
        if options.steps is not None and not _keeps_stages(options.method):
            raise UnsupportedOperation(
                f"steps: forced steps need a one-step method such as Rodas5P, not {options.method}."
            )
        registered = parts.describe(plan)  # traces; may refuse, before anything starts
        began = time.perf_counter()
        with _lock:
            link = _started()
            try:
                forward = _solve(link, plan, registered, request, options)
            except worker.WorkerDied:
                forward = _retry(link, plan, registered, request, options)
        forward.seconds = time.perf_counter() - began
        return forward

    def vjp(self, tape: Tape, grad_ys: Floats) -> Gradients:
        assert isinstance(tape, JuliaTape), "a tape of this backend"
        began = time.perf_counter()
        with _lock:
            link = _started()
            if not tape.key or link is not tape.link or link.generation != tape.generation:
                raise BackendCrashed(
                    "The forward solve's tape is gone (the Julia worker was restarted, or the tape was released): run "
                    "the forward pass again."
                )
            try:
                gradients = _vjp(link, tape, grad_ys)
            except worker.WorkerDied as error:
                raise BackendCrashed(
                    f"The Julia worker died during the backward pass ({error}) and took the tape with it: run the "
                    "forward pass again. If it repeats, run `hybridsam-bridge doctor`."
                ) from error
        gradients.seconds = time.perf_counter() - began
        return gradients

    def evaluate(self, program: Program, name: str, inputs: dict[str, Any]) -> dict[str, Floats]:
        """Run one emitted function of ``program`` on given inputs (u, c, p, t, v, d, tau), for tests.

        Returns its outputs, accumulated from zero, and under "allocated" the bytes that a second call took.
        """
        with _lock:
            return _evaluate(_started(), program, name, inputs)

    def versions(self) -> dict[str, str]:
        """Versions of Julia and its packages; starts Julia."""
        with _lock:
            return _started().request("versions", ())


def _keeps_stages(method: str) -> bool:
    """Whether the tape can keep the method's stages, so that its steps can be forced and reversed."""
    return methods.lookup(method).family in ("rosenbrock", "sdirk") or method == "Tsit5"


def _register(link: Link, plan: Plan, registered: list[dict[str, Any]], linear: str) -> int:
    key = ("julia plan", link.generation, id(link), linear)
    if key not in plan.memo:
        structure = systems.describe(plan, linear)
        plan.memo[key] = link.request("register", (plan.n, plan.nc, plan.n_params, registered, structure))
    return plan.memo[key]


def _retry(link: Link, plan: Plan, registered: list[dict[str, Any]], request: Request, options: Options) -> Forward:
    """Once more in a new worker; the second death is the user's to know."""
    link.start()
    try:
        return _solve(link, plan, registered, request, options)
    except worker.WorkerDied as error:
        raise BackendCrashed(
            f"The Julia worker died twice on the same solve ({error}). It may have run out of memory (smaller batches "
            "help) or the model's Julia code may crash; `hybridsam-bridge doctor` checks the installation."
        ) from error


def _solve(link: Link, plan: Plan, registered: list[dict[str, Any]], request: Request, options: Options) -> Forward:
    global _spent
    (batch, n), times = request.y0.shape, len(request.ts)
    plan_key = _register(link, plan, registered, options.linear)
    forced = None if options.steps is None else np.concatenate(options.steps)
    extra = 0 if forced is None else len(forced)
    numbers = (request.y0, request.ts, request.context, request.p, options.atol)
    arena = link.arena_for(needed(sum(x.size for x in numbers), extra, batch + 1, batch * times * n, 7 * batch))
    places = arena.place(*numbers)
    places += [-1, -1] if options.steps is None or forced is None else _place_steps(arena, options.steps, forced)
    ys_at, ys = arena.reserve((batch, times, n))
    table_at, table = arena.reserve((batch, 7), np.int64)
    if methods.lookup(options.method).family in ("bdf", "sdirk", "firk"):
        _load_implicit(link)
    # Recorded steps are read from a tape, so one is kept even where no gradient is wanted.
    keep = "discrete" if options.record_steps and options.adjoint == "none" else options.adjoint
    arguments = SOLVE_WORDS.pack(
        plan_key,
        options.method.encode(),
        keep.encode(),
        batch,
        times,
        -1 if forced is None else len(forced),
        *places,
        ys_at,
        table_at,
        options.rtol,
        options.max_steps,
        max(0, settings().tape_memory - _live_bytes),
        options.time_limit or 0.0,
        link.lanes,
    )
    key, nbytes, spent = link.run(SOLVE, arguments, "solve", options.time_limit, batch)
    _spent += spent
    tape = JuliaTape(link, key, nbytes, (batch, times, n), plan, options.time_limit) if key else None
    step_times = link.request("step_times", (key,)) if options.record_steps and key else None
    status, steps, rejected, f, jac, reached, gave_up = table.T.copy()
    _raise_interrupt(status)
    return Forward(
        ys=ys.copy(),
        status=status,
        reached=reached.view(np.float64),
        steps=steps,
        rejected=rejected,
        f=f,
        jac=jac,
        seconds=0.0,
        tape=tape if options.adjoint != "none" else None,
        step_times=step_times,
        extra=systems.handed_over(int(np.count_nonzero(gave_up)), batch),
    )


def _raise_interrupt(status: Ints) -> None:
    if np.count_nonzero(status) and (status == _INTERRUPTED).any():  # SUCCESS is 0
        raise KeyboardInterrupt


def _load_implicit(link: Link) -> None:
    """The methods that take longest to load, when one is first asked for."""
    if link.implicit != link.generation:
        link.request("load_implicit", ())
        link.implicit = link.generation


def _place_steps(arena: Arena, steps: tuple[Floats, ...], forced: Floats) -> list[int]:
    starts = np.concatenate([[0], np.cumsum([len(row) for row in steps])]).astype(np.int64)
    return arena.place(forced) + arena.place(starts)


def _vjp(link: Link, tape: JuliaTape, grad_ys: Floats) -> Gradients:
    global _spent
    batch, times, n = tape.shape
    plan = tape.plan
    sizes = (times if tape.times else 0, batch * n, batch * plan.nc, plan.n_params)
    arena = link.arena_for(needed(grad_ys.size, sum(sizes), 2 * batch))
    given = arena.place(grad_ys)
    begin, view = arena.reserve((sum(sizes),))
    ts_at, y0_at, context_at, p_at = offsets(begin, sizes)
    report_at, report = arena.reserve((batch, 2), np.int64)
    arguments = VJP_WORDS.pack(
        tape.key, *given, y0_at, ts_at if tape.times else -1, context_at, p_at, report_at, link.lanes
    )
    _spent += link.run(VJP, arguments, "vjp", tape.time_limit, batch)[2]
    status, reached = report.T.copy()
    _raise_interrupt(status)
    ts, y0, context, p = split(view.copy(), sizes)
    return Gradients(
        y0=y0.reshape(batch, n),
        ts=ts if tape.times else np.zeros(times),
        context=context.reshape(batch, plan.nc),
        p=p,
        status=status,
        reached=reached.view(np.float64),
    )


def _evaluate(link: Link, program: Program, name: str, inputs: dict[str, Any]) -> dict[str, Floats]:
    n, nc, size = program.n, program.nc, program.n_params
    part = parts.of_program(program, size)
    plan_key = link.request("register", (n, nc, size, [part], {"linear": "dense"}))
    out_names, in_names = parts.SIGNATURES[name]
    shapes = {"du": (n,), "dT": (n,), "gu": (n,), "gc": (nc,), "gp": (size,), "gt": (1,), "J": (n, n)}
    arrays = {key: np.ascontiguousarray(value, dtype=np.float64) for key, value in inputs.items()}
    arena = link.arena_for(needed(*(x.size for x in arrays.values()), *(int(np.prod(s)) for s in shapes.values())))
    outputs = {key: arena.reserve(shapes[key]) for key in out_names}
    given = tuple(
        float(inputs[key]) if key in ("t", "tau") else (arena.place(arrays[key])[0], arrays[key].shape)
        for key in in_names
    )
    call = {
        "plan": plan_key,
        "name": name,
        "outputs": tuple((at, view.shape) for at, view in outputs.values()),
        "inputs": given,
    }
    allocated = link.request("evaluate", (call,))
    results = {key: view.copy() for key, (_, view) in outputs.items()}
    if "J" in results:
        results["J"] = results["J"].T  # Julia writes columns first
    return {**results, "allocated": np.array(allocated)}
