"""Batches in an order that a resumed run repeats exactly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.train import randomness
from hybridsam_bridge.train.parallel import Group


class Batches:
    """Endless batches of ``data``, epoch after epoch, from any position.

    ``data`` is a DataLoader, a map-style Dataset (cut into ``batch_size``, None for all at once, and shuffled
    by a generator that depends on the seed and the epoch alone), or anything else, which is one batch (if it has a
    method ``at``, as ``hsb.GrowingHorizon``, the batch of step k is ``data.at(k)``).
    With several processes a Dataset's batch is the global one, of which each process takes its share.
    """

    def __init__(self, data: Any, batch_size: int | None, seed: int, group: Group):
        if batch_size is not None and not isinstance(data, Dataset):
            raise InvalidInput(
                "batch_size: goes with a Dataset; a DataLoader has its own, and other data is one batch."
            )
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
            raise InvalidInput(f"batch_size: must be a positive integer, got {batch_size!r}.")
        self.data, self.batch_size, self.seed, self.group = data, batch_size, seed, group
        self.epoch = 0
        self.position = 0  # batches of this epoch already handed out
        self._epoch_start: dict[str, Any] | None = None
        if self.per_epoch < 1:
            raise InvalidInput("data: is empty.")

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch."""
        if isinstance(self.data, DataLoader):
            return len(self.data)
        if isinstance(self.data, Dataset):
            count = len(self.data)  # type: ignore[arg-type]
            return -(-count // (self.batch_size or max(count, 1)))
        return 1

    def __iter__(self) -> Iterator[tuple[Any, float]]:
        """(batch, weight of this process's loss); continues at ``epoch`` and ``position``."""
        while True:
            for batch, weight in self._epoch():
                self.position += 1
                yield batch, weight
            self.epoch += 1
            self.position = 0

    def _epoch(self) -> Iterator[tuple[Any, float]]:
        if isinstance(self.data, DataLoader):
            yield from ((batch, 1.0) for batch in self._loader_epoch(self.data))
        elif isinstance(self.data, Dataset):
            yield from self._dataset_epoch(self.data)
        elif self.position == 0:
            at = getattr(self.data, "at", None)
            yield (self.data if at is None else at(self.epoch)), 1.0

    def _dataset_epoch(self, data: Any) -> Iterator[tuple[Any, float]]:
        count = len(data)
        size = self.batch_size or count
        order = list(range(count))
        if size < count:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(count, generator=generator).tolist()
        collate = getattr(data, "collate", default_collate)
        for start in range(self.position * size, count, size):
            whole = order[start : start + size]
            mine, weight = self.group.share(whole)
            yield collate([data[i] for i in mine]), weight

    def _loader_epoch(self, loader: DataLoader) -> Iterator[Any]:
        set_epoch = getattr(loader.sampler, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(self.epoch)
        skip, after = self.position, None
        if skip and self._epoch_start is not None:  # resumed inside an epoch: draw its order again
            after = randomness.get_state()
            self._restore_start(loader, self._epoch_start)
        else:
            self._epoch_start = {"random": randomness.get_state(), "generator": _generator_state(loader)}
        iterator = iter(loader)
        for _ in range(skip):
            next(iterator)
        if after is not None:
            randomness.set_state(after)
        yield from iterator

    def _restore_start(self, loader: DataLoader, start: dict[str, Any]) -> None:
        randomness.set_state(start["random"])
        if loader.generator is not None and start["generator"] is not None:
            loader.generator.set_state(start["generator"])

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self.position, "epoch_start": self._epoch_start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]
        self._epoch_start = state["epoch_start"]


def _generator_state(loader: DataLoader) -> torch.Tensor | None:
    return None if loader.generator is None else loader.generator.get_state()
