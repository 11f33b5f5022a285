"""All runs of a study: hyperparameters on the first seeds, then the chosen ones on all."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hybridsam_bridge.config import configure
from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.reproduce.data import data_file
from hybridsam_bridge.reproduce.methods import chosen_methods, grid
from hybridsam_bridge.reproduce.registry import load_study
from hybridsam_bridge.reproduce.run import Run, check_folder, execute
from hybridsam_bridge.reproduce.study import Study
from hybridsam_bridge.train.signals import StopRequest

Record = dict[str, Any]
Say = Callable[[str], Any]


class Interrupted(Exception):
    """A signal came; what ran was saved. The message is the signal's name."""


@dataclass
class Outcome:
    """All records of a study. ``chosen``: method -> hyperparameter; ``tuning``: method -> [(hyperparameter, mean
    validation error)]; ``records``: of every run, tuning included.
    """

    study: Study
    methods: list[str]
    seeds: int
    root: Path
    chosen: dict[str, float | None]
    tuning: dict[str, list[tuple[float | None, float]]]
    records: list[Record]

    def final(self, method: str) -> list[Record]:
        """The finished runs of a method with its chosen hyperparameter, by seed."""
        if method not in self.chosen:
            return []
        value = self.chosen[method]
        rows = [r for r in self.records if r["method"] == method and r["value"] == value and "failed" not in r]
        return sorted(rows, key=lambda r: int(r["seed"]))

    def failed(self) -> list[Record]:
        return [r for r in self.records if "failed" in r]


def run_study(
    name: str,
    *,
    quick: bool,
    methods: Sequence[str] | None,
    seeds: int | None,
    root: Path,
    workers: int | None,
    steps: int | None,
    say: Say,
) -> Outcome:
    """Run what is not finished yet, and gather everything.

    Raises:
        InvalidInput: arguments, a missing data file, or a folder with runs of other settings.
        Interrupted: a signal came.
    """
    study = load_study(name, quick)
    for path, origin in study.files.items():
        data_file(path, origin)
    chosen_names = chosen_methods(study, methods)
    count = study.seeds if seeds is None else seeds
    workers = (os.cpu_count() or 1) if workers is None else workers
    for label, number in (("seeds", count), ("workers", workers), ("steps", 1 if steps is None else steps)):
        if number < 1:
            raise InvalidInput(f"{label}: must be at least 1, got {number}.")

    def plan(method: str, values: Iterable[float | None], which: Iterable[int]) -> list[Run]:
        return [Run(name, quick, method, value, seed, str(root), steps) for value in values for seed in which]

    tuned = range(min(study.tuning_seeds, count))
    first = [run for method in chosen_names for run in plan(method, grid(study, method), tuned)]
    for run in first:
        check_folder(study, run)
    records = list(_run_all(study, first, workers, say))
    tuning = {m: [(v, _mean_validation(records, m, v)) for v in grid(study, m)] for m in chosen_names}
    chosen = {m: min(tries, key=lambda pair: pair[1])[0] for m, tries in tuning.items() if _any_finite(tries)}
    rest = range(len(tuned), count)
    second = [run for method, value in chosen.items() for run in plan(method, [value], rest)]
    for run in second:
        check_folder(study, run)
    records += _run_all(study, second, workers, say)
    return Outcome(study, chosen_names, count, root, chosen, tuning, records)


def _mean_validation(records: list[Record], method: str, value: float | None) -> float:
    """Over the tuning seeds; inf where one of them failed."""
    mine = [r for r in records if r["method"] == method and r["value"] == value]
    if not mine or any("failed" in r for r in mine):
        return math.inf
    return sum(r["validation"] for r in mine) / len(mine)


def _any_finite(tries: list[tuple[float | None, float]]) -> bool:
    return any(math.isfinite(loss) for _, loss in tries)


def _run_all(study: Study, runs: list[Run], workers: int, say: Say) -> Iterator[Record]:
    """Records of all runs; those finished before are read, the others run."""
    missing = []
    for run in runs:
        record = run.record()
        if record is None:
            missing.append(run)
        else:
            yield record
    if len(missing) < len(runs):
        say(f"{study.name}: {len(runs) - len(missing)} of {len(runs)} runs are finished already.")
    done = _in_this_process(missing) if min(workers, len(missing)) <= 1 else _in_processes(missing, workers)
    for number, (run, record) in enumerate(done, 1):
        if record["ended"].startswith("SIG"):
            raise Interrupted(record["ended"])
        say(f"[{number}/{len(missing)}] {study.name}: {run.label}: {_line(record)}")
        yield record


def _line(record: Record) -> str:
    if "failed" in record:
        return f"FAILED: {record['failed']}"
    return (
        f"validation {record['validation']:.4g}, θ error {record['theta_error']:.4g}, prediction error "
        f"{record['prediction_error']:.4g} ({record['seconds']:.0f} s)"
    )


def _in_this_process(runs: list[Run]) -> Iterator[tuple[Run, Record]]:
    for run in runs:
        yield run, execute(run)


def _in_processes(runs: list[Run], workers: int) -> Iterator[tuple[Run, Record]]:
    """In processes of one thread each, as they end. A signal is passed on, so that every run saves its state."""
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")
    with StopRequest() as stop, ProcessPoolExecutor(min(workers, len(runs)), context, _prepare, (threads,)) as pool:
        futures: dict[Future[Record], Run] = {pool.submit(_unless_stopped, run): run for run in runs}
        waiting = set(futures)
        try:
            while waiting:
                ended, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                if stop.name is not None:
                    for child in multiprocessing.active_children():
                        child.terminate()  # the trainer in it saves and leaves
                    raise Interrupted(stop.name)
                for future in ended:
                    run = futures[future]
                    record = _result(future, run)
                    # Nobody asked this process to stop: when one of a pool dies, the pool ends the others.
                    yield run, _died(run) if record["ended"].startswith("SIG") else record
        finally:
            pool.shutdown(cancel_futures=True)  # waits until all have saved


_stopped = ""  # in a process of a pool: the signal that ended its last run


def _unless_stopped(run: Run) -> Record:
    """Execute, unless a signal came to this process before: the pool hands out runs ahead, which nobody can cancel."""
    global _stopped
    record = {"ended": _stopped} if _stopped else execute(run)
    if record["ended"].startswith("SIG"):
        _stopped = record["ended"]
    return record


def _result(future: Future[Record], run: Run) -> Record:
    try:
        return future.result()
    except BrokenProcessPool:
        return _died(run)


def _died(run: Run) -> Record:
    text = "a process of the runs died (killed, or out of memory); the same command goes on with what is missing"
    return {"method": run.method, "value": run.value, "seed": run.seed, "ended": "failed", "failed": text}


def _prepare(threads: int) -> None:
    """In each new process: one torch thread, and its share of the cores for Julia."""
    torch.set_num_threads(1)
    configure(threads=threads)
