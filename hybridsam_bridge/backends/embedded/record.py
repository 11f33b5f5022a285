"""The accepted steps of a solve: outputs are read off them, and the adjoint walks back over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from hybridsam_bridge.backends.embedded.tableaus import Tableau

Tensor = torch.Tensor


@dataclass
class Steps:
    """Accepted steps in the order of the adjoint.

    Round r holds the r-th step from the end of every sample that has so many. Samples are ranked by their
    number of steps, most first, so that the samples of a round are the first ones of the ranking and
    ``rounds[r]`` says how many. Rows of all rounds lie one after the other.

    Attributes:
        ranking: (S,) the samples that succeeded, most steps first.
        rounds: rows of each round, not increasing.
        sample, t, h, u: (N,), (N,), (N,), (N, n) of every row.
        ks: (stages, N, n) or None where they were not kept.
        first, past: (N,) range of the outputs within each step.
    """

    ranking: Tensor
    rounds: list[int]
    sample: Tensor
    t: Tensor
    h: Tensor
    u: Tensor
    ks: Tensor | None
    first: Tensor
    past: Tensor

    @property
    def nbytes(self) -> int:
        """Memory of the tensors, in bytes."""
        return sum(x.nbytes for x in vars(self).values() if isinstance(x, Tensor))

    def outputs(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Rows (counted from ``start``) and output indices of the outputs within rows start..stop."""
        return expand_outputs(self.first[start:stop], self.past[start:stop])


def expand_outputs(first: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
    """Row and output index of every output in the ranges first..past of the rows."""
    counts = past - first
    rows = torch.repeat_interleave(counts)
    starts = torch.cumsum(counts, 0) - counts
    return rows, torch.arange(len(rows), device=rows.device) - starts[rows] + first[rows]


class Record:
    """Collects accepted steps and writes outputs into ``ys`` (B, T, n).

    Stages are kept up to ``limit`` bytes. Beyond it outputs are written at once, the stages are dropped and
    the adjoint recomputes them from the states. Without ``taped`` nothing but pending outputs is kept.
    """

    def __init__(self, tableau: Tableau, y0: Tensor, ts: Tensor, taped: bool, timed: bool, limit: int):
        self.tableau, self.ts, self.taped, self.timed, self.limit = tableau, ts, taped, timed, limit
        self.ys = y0.new_full((len(y0), len(ts), y0.shape[1]), float("nan"))
        self.ys[:, 0] = y0
        self.end_times: list[tuple[Tensor, Tensor]] = []
        self._pending: list[tuple[Tensor, ...]] = []
        none = torch.zeros(0, dtype=torch.int64, device=y0.device)
        ks = y0.new_zeros(tableau.used, 0, y0.shape[1])
        self._done: list[tuple[Tensor, ...]] = [(none, y0[:0, 0], y0[:0, 0], y0[:0], ks, none, none)]
        self._bytes = 0
        self._complete = True  # every step's stages are still there

    def add(
        self, sample: Tensor, t: Tensor, h: Tensor, end: Tensor, u: Tensor, ks: Tensor, first: Tensor, past: Tensor
    ) -> None:
        """Accepted steps of some samples from t by h to end; ks (stages, N, n), outputs first..past within them."""
        if self.timed:
            self.end_times.append((sample, end))
        ks = ks[: self.tableau.used]
        if not self.taped:
            index = (past > first).nonzero()[:, 0]
            if not len(index):
                return
            sample, t, h, u, first, past = (x[index] for x in (sample, t, h, u, first, past))
            ks = ks[:, index]
        self._pending.append((sample, t, h, u, ks, first, past))
        self._bytes += ks.nbytes
        if self._bytes > self.limit:
            self._write(drop=True)

    def finish(self) -> Tensor:
        """Write what is pending; returns ys."""
        self._write(drop=False)
        return self.ys

    def _write(self, drop: bool) -> None:
        if not self._pending:
            return
        sample, t, h, u, ks, first, past = self._joined(self._pending)
        rows, j = expand_outputs(first, past)
        theta = ((self.ts[j] - t[rows]) / h[rows]).clamp(0, 1)
        weights = self.tableau.interpolation(theta)[:, : len(ks)]
        self.ys[sample[rows], j] = u[rows] + torch.einsum("os,son->on", weights, ks[:, rows])
        if self.taped:
            if drop:
                self._complete = False
            self._done.append((sample, t, h, u, ks[:0] if drop else ks, first, past))
        self._pending = []
        self._bytes = 0 if drop else self._bytes

    @staticmethod
    def _joined(pieces: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        if len(pieces) == 1:
            return pieces[0]
        return tuple(torch.cat(column, dim=1 if i == 4 else 0) for i, column in enumerate(zip(*pieces, strict=True)))

    def step_times(self) -> list[np.ndarray]:
        """The times of each sample's accepted steps, the initial time first (``timed`` records only)."""
        start = self.ts[:1].cpu().numpy()
        if not self.end_times:
            return [start.copy() for _ in range(len(self.ys))]
        samples, times = (torch.cat(x).cpu().numpy() for x in zip(*self.end_times, strict=True))
        return [np.concatenate([start, times[samples == b]]) for b in range(len(self.ys))]

    def steps(self, succeeded: Tensor) -> Steps:
        """The steps of the samples that ``succeeded`` (B,), in the order of the adjoint."""
        if not self._complete:
            self._done = [(*piece[:4], piece[4][:0], *piece[5:]) for piece in self._done]
        sample, t, h, u, ks, first, past = self._joined(self._done)
        good = succeeded[sample].nonzero()[:, 0]
        counts = torch.bincount(sample[good], minlength=len(succeeded))
        ranking = torch.argsort(counts, descending=True, stable=True)[: int((counts > 0).sum())]
        rank = torch.empty_like(counts)
        rank[ranking] = torch.arange(len(ranking), device=rank.device)
        order = good[torch.argsort(sample[good], stable=True)]  # by sample, each in the order of time
        starts = torch.cumsum(counts, 0) - counts
        owner = sample[order]
        from_end = counts[owner] - 1 - (torch.arange(len(order), device=order.device) - starts[owner])
        order = order[torch.argsort(from_end * len(counts) + rank[owner])]
        rounds = torch.bincount(from_end).tolist() if len(order) else []
        fields = (sample[order], t[order], h[order], u[order])
        return Steps(ranking, rounds, *fields, ks[:, order] if self._complete else None, first[order], past[order])
