"""Several processes training as one (torchrun), or this process alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist


class Group:
    """The processes of torch.distributed if it is initialised, else this one."""

    def __init__(self) -> None:
        joined = dist.is_available() and dist.is_initialized()
        self.size = dist.get_world_size() if joined else 1
        self.rank = dist.get_rank() if joined else 0

    @property
    def main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process, so that all of them decide alike."""
        if self.size == 1:
            return flag
        value = torch.tensor([float(flag)])
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return bool(value.item())

    def mean(self, value: float, weight: float = 1.0) -> float:
        """Mean over the processes of value * weight (weights average to one)."""
        if self.size == 1:
            return value
        total = torch.tensor([value * weight], dtype=torch.float64)
        dist.all_reduce(total)
        return float(total.item()) / self.size

    def share(self, indices: Sequence[int]) -> tuple[list[int], float]:
        """This process's part of a global batch, and the weight that makes the mean of the processes' means
        the mean over the batch. A process left without samples takes one with weight zero, since gradients
        are averaged only when every process takes part.
        """
        mine = list(indices[self.rank :: self.size])
        if not mine:
            return [indices[0]], 0.0
        return mine, len(mine) * self.size / len(indices)
