"""Timing of several tools in one run, in turns, so that their ratios hold while the machine does other work."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Timing:
    """Seconds of one tool: its first call, then one number a round; and what its last call returned."""

    first: float
    rounds: list[float] = field(default_factory=list)
    result: Any = None

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)


def interleaved(runs: Mapping[str, Callable[[], Any]], rounds: int, budget: float = 30.0) -> dict[str, Timing]:
    """Call every run once, then all of them in turns for ``rounds`` rounds.

    A run that has used up its ``budget`` (seconds) sits the later rounds out; every run has at least two.
    """
    timings: dict[str, Timing] = {}
    for name, run in runs.items():
        began = time.perf_counter()
        result = run()
        timings[name] = Timing(time.perf_counter() - began, result=result)
    for done in range(rounds):
        for name, run in runs.items():
            timing = timings[name]
            if done >= 2 and sum(timing.rounds) > budget:
                continue
            began = time.perf_counter()
            timing.result = run()
            timing.rounds.append(time.perf_counter() - began)
    return timings


def ratio(slow: Timing, fast: Timing) -> float:
    """How many times ``fast`` is faster: the median of the ratios in the rounds that both took part in."""
    return statistics.median(a / b for a, b in zip(slow.rounds, fast.rounds, strict=False))
