"""What a task of ``hybridsam-bridge reproduce`` provides: one module with ``study(quick: bool) -> Study``.

How a study is run (``run.py``):

1. For every seed, ``study.build(seed)`` makes a ``Problem``: a fresh model, data and scores. Torch's global generator
   is seeded with ``seed`` before the call, so network weights drawn from it differ by seed and agree between
   methods; draw data from a generator of their own. ``build`` must be deterministic: it is called once for each
   run, in a process of its own.
2. Each method (``methods.py``) with each hyperparameter of its grid is trained on the first ``tuning_seeds`` seeds;
   the hyperparameter with the least mean validation error is kept and trained on the other seeds. Validation error
   is the mean of ``problem.loss_fn`` over ``problem.validation``, without penalties: it never sees the true
   parameters.
3. A run is ``Trainer.fit`` (through ``tasks.session.fit``) for ``train["steps"]`` steps; the weights with the least
   validation error are loaded before ``problem.score(model)`` is called.
4. Sharpness is the gap of ``hsb.sharpness`` in the network's parameters, at ``sharpness_rho`` for all methods, on
   ``problem.sharpness_batch``.

A task file, top to bottom: physics, data, model, score, ``study``; ``pendulum.py`` is the pattern. Register it in
``registry.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, default_collate

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.objectives.penalties import FunctionalNorm, Orthogonality, Penalty, WeightDecay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What solves a study's equations: "quick" must run anywhere, the full study takes Julia where it is ready.
QUICK_BACKEND, FULL_BACKEND = "torch", "auto"

PENALTIES: dict[str, Callable[[float], Penalty]] = {
    "weight-decay": WeightDecay,
    "functional-norm": FunctionalNorm,
    "orthogonality": Orthogonality,
}


@dataclass
class Problem:
    """One seed's model and data.

    Attributes:
        model: freshly initialised. Its parts must tell science from network (see ``hsb.neural_parameters``).
        data, validation: as ``Trainer.fit`` takes them: an ``hsb.Trajectories``, any Dataset, or one batch.
        loss_fn: ``loss_fn(model, batch)`` -> scalar, the data's misfit only; ``hsb.DataLoss`` for trajectories.
        score: ``score(model)`` -> plain numbers on held-out test data, among them

            - ``theta_error``: error of the scientific parameters, 0 is best (say in ``about`` what it is),
            - ``prediction_error``: error on test data, 0 is best,
            - any others, such as the parameters' values; all are saved, and averaged over seeds in results.json.

            Called in eval mode without gradients. A solve that fails there makes the run a failed one.
        sharpness_batch: the batch on which sharpness is measured; None takes ``data``, a Dataset's first 64 samples.
    """

    model: nn.Module
    data: Any
    validation: Any
    loss_fn: Callable[[nn.Module, Any], torch.Tensor]
    score: Callable[[nn.Module], dict[str, float]]
    sharpness_batch: Any = None

    def batch_for_sharpness(self) -> Any:
        """``sharpness_batch``, or its default."""
        if self.sharpness_batch is not None:
            return self.sharpness_batch
        if isinstance(self.data, DataLoader):
            raise InvalidInput(
                "sharpness_batch: must be given with a DataLoader, whose batches differ from call to call."
            )
        if not isinstance(self.data, Dataset):
            return self.data
        collate = getattr(self.data, "collate", default_collate)
        return collate([self.data[i] for i in range(min(64, len(self.data)))])  # type: ignore[arg-type]


@dataclass
class Study:
    """A task of the comparison.

    Attributes:
        name: as on the command line.
        about: a paragraph: what is known and what is missing, what came from where, what was assumed, what is
            shorter than in the paper, and what ``theta_error`` and ``prediction_error`` are. Printed, and put into
            examples/README.md.
        build: ``build(seed)`` -> ``Problem``.
        train: the [train] section of a training configuration: steps (or epochs), batch_size (with a Dataset),
            validate_every, patience, on_failure, checkpoint_every.
        optimizer: the [optimizer] section: base, lr, science_lr, clip_grad_norm. Kind, rho and perturb are the
            method's.
        quick: whether this is the short version. Its numbers claim nothing; it must end in under two minutes on two
            cores with ``backend="torch"``.
        seeds: how many by default. tuning_seeds: on how many of them hyperparameters are chosen.
        methods: run by default; None for all that apply.
        grids: method -> hyperparameters, where the method's own grid (``methods.METHODS``) does not suit.
        not_applicable: method -> why it does not apply here (such as the orthogonality penalty without a sum).
        penalties: method -> ``penalty(weight)``, for models whose network is not part of an ``hsb.Additive``:
            these replace the defaults of ``PENALTIES``.
        files: data files that it reads (relative to the data folder, see ``data.py``) -> where to get them; a run
            refuses to start where one is missing.
        sharpness_rho: radius of the sharpness, in the units of the weights.
        theta_label, prediction_label: with units, for tables and figures.
        figure: ``figure(models, problem)`` -> matplotlib figure of the task's own; models by method, each trained on
            the first seed with its chosen hyperparameter, and that seed's problem.
    """

    name: str
    about: str
    build: Callable[[int], Problem]
    train: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    quick: bool = False
    seeds: int = 5
    tuning_seeds: int = 1
    methods: Sequence[str] | None = None
    grids: Mapping[str, Sequence[float]] = field(default_factory=dict)
    not_applicable: Mapping[str, str] = field(default_factory=dict)
    penalties: Mapping[str, Callable[[float], Penalty]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    sharpness_rho: float = 0.05
    theta_label: str = "θ error"
    prediction_label: str = "prediction error"
    figure: Callable[[Mapping[str, nn.Module], Problem], Figure] | None = None

    def __post_init__(self) -> None:
        for name in ("seeds", "tuning_seeds"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidInput(f"{name}: must be a positive integer, got {value!r}.")

    def penalty(self, method: str, weight: float) -> Penalty:
        """The penalty of a method at a weight."""
        return {**PENALTIES, **self.penalties}[method](weight)
