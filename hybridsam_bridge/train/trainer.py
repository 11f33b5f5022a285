"""The training loop: steps, validation, failures, checkpoints, signals, logs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from hybridsam_bridge.errors import BackendCrashed, InvalidInput, SolveFailed
from hybridsam_bridge.train import checkpoint, randomness
from hybridsam_bridge.train.batches import Batches
from hybridsam_bridge.train.logs import Logs
from hybridsam_bridge.train.parallel import Group
from hybridsam_bridge.train.runs import RunFolder
from hybridsam_bridge.train.signals import StopRequest
from hybridsam_bridge.train.stepper import FAILURE_POLICIES, Stepper


@dataclass
class FitResult:
    """How a fit ended: "finished", "early stopping" or the name of a signal; the last rows of the log."""

    reason: str
    steps: int
    best: float
    best_step: int
    skipped: int
    dropped: int
    rows: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """Trains ``model`` on ``loss_fn(model, batch)`` with any torch optimizer, ``hsb.SAM`` included.

    Args:
        model: the module; under ``torchrun`` wrapped in DistributedDataParallel.
        optimizer: a closure is passed to its ``step``.
        loss_fn: called as ``loss_fn(model, batch)``, returns a scalar. If it is a module, its state is saved.
        scheduler: a learning-rate scheduler, stepped once a step.
        run_folder: where checkpoints and metrics go; None keeps nothing.
        on_failure: what a failed solve does. "skip": the step is not taken and counted. "drop": failed samples
            are left out and counted (models with ``solver`` options then solve with on_failure="nan", and the
            loss must leave failed samples out, as ``hsb.DataLoss`` does). "stop": the error is raised.
        max_failures: skipped steps in a row after which training stops with an error.
        monitor: called as ``monitor(model)`` for more columns of the log, such as physical parameters.
        checkpoint_every: steps between checkpoints; None saves about every 20 seconds.
        log_every: steps between rows of the log.
        progress: show a progress bar.
        seed: seeds the generators at the start of a fresh fit, and the order of batches.
        label: shown beside the bar.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss_fn: Callable[[nn.Module, Any], torch.Tensor],
        *,
        scheduler: Any = None,
        run_folder: RunFolder | str | Path | None = None,
        on_failure: str = "skip",
        max_failures: int = 20,
        monitor: Callable[[nn.Module], dict[str, float]] | None = None,
        checkpoint_every: int | None = None,
        log_every: int = 1,
        progress: bool = True,
        seed: int = 0,
        label: str = "training",
    ):
        if on_failure not in FAILURE_POLICIES:
            raise InvalidInput(f"on_failure={on_failure!r} is not known. Known: {', '.join(FAILURE_POLICIES)}.")
        self.model, self.optimizer, self.loss_fn, self.scheduler = model, optimizer, loss_fn, scheduler
        self.folder = RunFolder(run_folder) if isinstance(run_folder, (str, Path)) else run_folder
        self.checkpoint_every, self.seed = checkpoint_every, seed
        self.group = Group()
        self.stepper = Stepper(model, optimizer, loss_fn, on_failure, max_failures, self.group)
        self.logs = Logs(self, monitor, log_every, progress, label)
        self.step = 0
        self.best, self.best_step, self.stale = math.inf, 0, 0
        if on_failure == "drop":
            _solve_to_nan(model)

    def fit(
        self,
        data: Any,
        validation: Any = None,
        *,
        steps: int | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        validate_every: int | None = None,
        patience: int | None = None,
        resume: bool | str | Path = False,
    ) -> FitResult:
        """Train for ``steps`` or ``epochs`` (one of them).

        Args:
            data, validation: a DataLoader, a Dataset, or one batch of any form.
            batch_size: cuts a Dataset; None takes it whole.
            validate_every: steps between validations; None validates at each epoch's end.
            patience: stop after so many validations (training losses without validation data) without a
                better one.
            resume: True goes on from the run folder's last checkpoint if there is one; a path from that file.
                The result is bit-equal to that of an uninterrupted run.

        Raises:
            InvalidInput: arguments that do not fit. SolveFailed: a solve failed and the policy is "stop", or
            ``max_failures`` steps in a row failed.
        """
        batches = Batches(data, batch_size, self.seed, self.group)
        total = _total_steps(steps, epochs, batches.per_epoch)
        every = validate_every or batches.per_epoch
        resumed = self._resume(resume, batches)
        if not resumed:
            randomness.seed_all(self.seed)
        reason = "finished"
        with StopRequest() as stop, self.logs.open(total, resumed):
            saved = time.monotonic()
            stream = iter(batches)
            while self.step < total:
                batch, weight = next(stream)
                loss = self.stepper.take(batch, weight, self.step)
                self.step += 1
                if self.scheduler is not None:
                    self.scheduler.step()
                at_end = self.step % every == 0 or self.step == total
                value = self._validate(validation) if validation is not None and at_end else None
                improved = self._judge(loss if validation is None else value)
                self.logs.record(loss, value, batches.epoch)
                self._keep(batches, improved, force=False)
                if patience is not None and self.stale >= patience:
                    reason = "early stopping"
                elif self.group.any(stop.name is not None):
                    reason = stop.name or "signal"
                if reason != "finished":
                    break
                if self._due(saved):
                    self._keep(batches, False, force=True)
                    saved = time.monotonic()
            self._keep(batches, False, force=True)
        return FitResult(
            reason, self.step, self.best, self.best_step, self.stepper.skipped, self.stepper.dropped, self.logs.rows
        )

    def load_best(self) -> None:
        """Put the weights of the best checkpoint into the model (and the loss, if it has any)."""
        if self.folder is None:
            raise InvalidInput("load_best: the trainer has no run_folder, so nothing was kept.")
        state = checkpoint.load(self.folder.best)
        self._load_modules(state)

    def _validate(self, validation: Any) -> float:
        """Mean loss over the validation batches; inf where a solve fails."""
        total, count = 0.0, 0
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                for batch in _validation_batches(validation):
                    total += float(self.loss_fn(self.model, batch))
                    count += 1
        except (SolveFailed, BackendCrashed):
            return math.inf
        finally:
            self.model.train(training)
        value = total / max(count, 1)
        return value if math.isfinite(value) else math.inf

    def _judge(self, value: float | None) -> bool:
        """Whether ``value`` is the best so far; counts the validations since the best one."""
        if value is None or math.isnan(value):
            return False
        if value < self.best:
            self.best, self.best_step, self.stale = value, self.step, 0
            return True
        self.stale += 1
        return False

    def _due(self, saved: float) -> bool:
        if self.checkpoint_every is not None:
            return self.step % self.checkpoint_every == 0
        return time.monotonic() - saved > 20.0

    def _keep(self, batches: Batches, improved: bool, force: bool) -> None:
        if self.folder is None or not self.group.main:
            return
        if improved:
            checkpoint.save(self.folder.best, {"model": _state(self.model), "loss_fn": _state(self.loss_fn)})
        if force:
            checkpoint.save(self.folder.last, self._state_dict(batches))

    def _state_dict(self, batches: Batches) -> dict[str, Any]:
        counters = ("step", "best", "best_step", "stale")
        return {
            "model": _state(self.model),
            "loss_fn": _state(self.loss_fn),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "batches": batches.state_dict(),
            "counters": {name: getattr(self, name) for name in counters},
            "failures": self.stepper.state_dict(),
            "random": randomness.get_state(),
        }

    def _resume(self, resume: bool | str | Path, batches: Batches) -> bool:
        if resume is False:
            return False
        if resume is True:
            if self.folder is None:
                raise InvalidInput("resume: the trainer has no run_folder to resume from; pass run_folder or a path.")
            path = self.folder.last
            if not path.exists():
                return False
        else:
            path = Path(resume)
        state = checkpoint.load(path)
        self._load_modules(state)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        batches.load_state_dict(state["batches"])
        for name, value in state["counters"].items():
            setattr(self, name, value)
        self.stepper.load_state_dict(state["failures"])
        randomness.set_state(state["random"])
        return True

    def _load_modules(self, state: dict[str, Any]) -> None:
        try:
            _plain(self.model).load_state_dict(state["model"])
        except RuntimeError as error:
            raise InvalidInput(f"checkpoint: does not fit this model. {error}") from error
        if isinstance(self.loss_fn, nn.Module):
            self.loss_fn.load_state_dict(state["loss_fn"])


def _plain(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def _state(module: Any) -> dict[str, Any] | None:
    return _plain(module).state_dict() if isinstance(module, nn.Module) else None


def _solve_to_nan(model: nn.Module) -> None:
    for sub in model.modules():
        solver = getattr(sub, "solver", None)
        if isinstance(solver, dict):
            solver["on_failure"] = "nan"


def _total_steps(steps: int | None, epochs: int | None, per_epoch: int) -> int:
    if (steps is None) == (epochs is None):
        raise InvalidInput("fit: give one of steps and epochs.")
    name, value = ("steps", steps) if epochs is None else ("epochs", epochs)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInput(f"{name}: must be an integer of at least 0, got {value!r}.")
    return value if epochs is None else value * per_epoch


def _validation_batches(validation: Any) -> Any:
    if isinstance(validation, torch.utils.data.DataLoader):
        return validation
    if isinstance(validation, torch.utils.data.Dataset):
        collate = getattr(validation, "collate", torch.utils.data.default_collate)
        return [collate([validation[i] for i in range(len(validation))])]  # type: ignore[arg-type]
    return [validation]
