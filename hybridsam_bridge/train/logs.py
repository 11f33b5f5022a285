"""Rows of numbers from a training run: to the progress bar, metrics.csv and TensorBoard."""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hybridsam_bridge.fields.parameters import physical_values
from hybridsam_bridge.train.progress import ProgressBar
from hybridsam_bridge.train.runs import MetricsLog

if TYPE_CHECKING:
    from hybridsam_bridge.train.trainer import Trainer

Monitor = Callable[[nn.Module], dict[str, float]]


class Logs:
    """Where the numbers of a run go. Only the main process of several writes."""

    KEPT = 1000

    def __init__(self, trainer: Trainer, monitor: Monitor | None, every: int, progress: bool, label: str):
        self.trainer, self.monitor, self.every = trainer, monitor, max(1, every)
        self.progress, self.label = progress, label
        self.rows: list[dict[str, Any]] = []

    @contextmanager
    def open(self, total: int, resumed: bool) -> Iterator[None]:
        """Everything that is open while the run goes on."""
        self._start = time.monotonic()
        self._resumed_at = self.trainer.step if resumed else None
        self._csv: MetricsLog | None = None
        self._board = self._tensorboard()
        self._total = total
        self._bar = None
        try:
            if self.progress and self.trainer.group.main:
                with ProgressBar(total, self.label, self.trainer.step) as self._bar:
                    yield
            else:
                yield
        finally:
            if self._board is not None:
                self._board.close()

    def record(self, loss: float, validation: float | None, epoch: int) -> None:
        """Note the numbers of the step that was just taken."""
        trainer = self.trainer
        if not trainer.group.main:
            return
        if trainer.step % self.every and validation is None and trainer.step != self._total:
            return
        row: dict[str, Any] = {
            "step": trainer.step,
            "epoch": epoch,
            "loss": loss,
            "validation": "" if validation is None else validation,
            "gap": getattr(trainer.optimizer, "gap", math.nan),
            "cost": getattr(trainer.optimizer, "cost", math.nan),
            "lr": trainer.optimizer.param_groups[0]["lr"],
            **self._solver(),
            "skipped": trainer.stepper.skipped,
            "dropped": trainer.stepper.dropped,
            **_scalars(trainer.model),
            **(self.monitor(trainer.model) if self.monitor is not None else {}),
            "seconds": round(time.monotonic() - self._start, 3),
        }
        self.rows = [*self.rows[-self.KEPT :], row] if len(self.rows) > 2 * self.KEPT else [*self.rows, row]
        self._write(row)

    def _write(self, row: dict[str, Any]) -> None:
        if self._bar is not None:
            self._bar.update(row["step"], row)
        if self.trainer.folder is not None:
            if self._csv is None:
                self._csv = MetricsLog(self.trainer.folder, list(row), self._resumed_at)
            self._csv.append(row)
        if self._board is not None:
            for key, value in row.items():
                if isinstance(value, (int, float)) and key != "step":
                    self._board.add_scalar(key, value, row["step"])

    def _solver(self) -> dict[str, int]:
        """Steps that the model's last solve took, over all samples."""
        for sub in self.trainer.model.modules():
            last = getattr(sub, "last", None)
            stats = getattr(last, "stats", None)
            if stats is not None:
                return {"solver_steps": int(stats.steps.sum()), "rejected": int(stats.rejected.sum())}
        return {"solver_steps": 0, "rejected": 0}

    def _tensorboard(self) -> Any:
        trainer = self.trainer
        if trainer.folder is None or not trainer.group.main or importlib.util.find_spec("tensorboard") is None:
            return None
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(trainer.folder.path / "tensorboard"), purge_step=trainer.step or None)


def _scalars(model: nn.Module) -> dict[str, float]:
    """Declared parameters in physical units, arrays element by element."""
    out: dict[str, float] = {}
    for name, (value, _) in physical_values(model).items():
        flat = torch.as_tensor(value, dtype=torch.float64).reshape(-1).tolist()
        out.update({name: flat[0]} if len(flat) == 1 else {f"{name}[{i}]": v for i, v in enumerate(flat)})
    return out
