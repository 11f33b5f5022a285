"""One row of a report: train on one space with one seed, test on every space. Plain data come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from hybridsam_bridge.errors import HybridSAMError
from hybridsam_bridge.fields.hybrid import Additive
from hybridsam_bridge.fields.parameters import physical_values
from hybridsam_bridge.fields.roles import SCIENCE, neural_parameters, parameter_roles
from hybridsam_bridge.objectives import Trajectories
from hybridsam_bridge.trust.coverage import Inputs, VisitedInputs, network_inputs
from hybridsam_bridge.trust.spaces import Array
from hybridsam_bridge.trust.trials import Setting, Space, check_model, predict

Factory = Callable[[int], nn.Module]
Fit = Callable[[nn.Module, Trajectories], Any]

# Seeds of the draws: training and test draws never coincide.
TRAIN, TEST = 1, 2


@dataclass(frozen=True)
class Job:
    """What every row of a report shares. Picklable if the caller's functions are."""

    setting: Setting
    model_factory: Factory
    fit: Fit
    spaces: Sequence[Space]
    n_train: int
    n_test: int
    reference: Factory | None  # None: the model's own, with its network switched off
    solver_check: dict[str, Any] | None
    impulses: int = 8
    inputs: Inputs | None = field(default=None)


def run_row(job: Job, index: int, seed: int) -> dict[str, Any]:
    """Train on ``job.spaces[index]`` and test on all. A fit that fails is reported in the row, not raised."""
    torch.set_num_threads(1)  # small systems; rows run side by side
    space = job.spaces[index]
    row: dict[str, Any] = {"space": space.name, "seed": seed, "failed": ""}
    data = job.setting.data(space, job.n_train, (TRAIN, index, seed), job.setting.noise)
    clean = job.setting.data(space, job.n_train, (TRAIN, index, seed))
    tests = [job.setting.data(other, job.n_test, (TEST, j)) for j, other in enumerate(job.spaces)]
    model = check_model(job.model_factory(seed))
    reference = job.reference(seed) if job.reference is not None else without_network(job.model_factory(seed))
    try:
        model = _fitted(job.fit, model, data)
        reference = _fitted(job.fit, reference, data)
    except (HybridSAMError, FloatingPointError) as error:
        return {**row, "failed": f"{type(error).__name__}: {error}"}
    visited = _inputs(job, model, clean)
    known = None if visited is None else VisitedInputs(visited)
    row["parameters"] = scientific_values(model)
    row["reference_parameters"] = scientific_values(reference)
    row["cells"] = [_cell(job, model, reference, test, known) for test in tests]
    row["impulse"] = _impulse_errors(job, model, reference, index, seed)
    return row


def without_network(model: nn.Module) -> nn.Module:
    """The model with its networks silent: those of ``hsb.Additive`` masked, all neural parameters zero and frozen."""
    for module in model.modules():
        if isinstance(module, Additive):
            module.mask = torch.zeros(tuple(module.state_shape), dtype=torch.float64)
    for parameter in neural_parameters(model):
        parameter.data.zero_()
        parameter.requires_grad_(False)
    return model


def scientific_values(model: nn.Module) -> dict[str, float]:
    """Scientific parameters by name, one number each: declared ones in physical units, others as they are."""
    declared = {name: value for name, (value, _) in physical_values(model).items()}
    roles = parameter_roles(model)
    for name, parameter in model.named_parameters():
        if roles[name] == SCIENCE and not name.rpartition(".")[2].startswith("raw_"):
            declared[name] = parameter.detach().tolist()
    flat = {}
    for name, value in declared.items():
        numbers = np.asarray(value, dtype=np.float64).reshape(-1)
        for i, number in enumerate(numbers):
            flat[name if len(numbers) == 1 else f"{name}[{i}]"] = float(number)
    return flat


def _fitted(fit: Fit, model: nn.Module, data: Trajectories) -> nn.Module:
    if not any(p.requires_grad for p in model.parameters()):
        return model
    returned = fit(model, data)
    return returned if isinstance(returned, nn.Module) else model


def _inputs(job: Job, model: nn.Module, data: Trajectories) -> Array | None:
    return network_inputs(model, data.ts, data.y, data.given["context"], job.inputs)


def _cell(
    job: Job, model: nn.Module, reference: nn.Module, test: Trajectories, known: VisitedInputs | None
) -> dict[str, Any]:
    solver = job.setting.solver
    predicted, plain = predict(model, test, solver), predict(reference, test, solver)
    good, good_plain = _solved(predicted), _solved(plain)
    cell: dict[str, Any] = {
        "error": _rms(predicted - test.y, good),
        "reference_error": _rms(plain - test.y, good_plain),
        "size": _rms(test.y, torch.ones_like(good)),
        "failures": int((~good).sum()),
        "reference_failures": int((~good_plain).sum()),
        "samples": len(good),
        "coverage": None,
        "solver_change": None,
    }
    inputs = None if known is None else _inputs(job, model, test)
    if known is not None and inputs is not None:
        cell["coverage"] = known.compare(inputs).as_dict()
    if job.solver_check is not None:
        some = _first(test, 4)
        finer = predict(model, some, {**solver, **job.solver_check})
        both = _solved(finer) & good[: len(finer)]
        cell["solver_change"] = _rms(finer - predicted[: len(finer)], both)
    return cell


def _first(data: Trajectories, n: int) -> Trajectories:
    given = {name: None if value is None else value[:n] for name, value in data.given.items()}
    return Trajectories(data.ts, data.y[:n], **given)


def _solved(ys: torch.Tensor) -> torch.Tensor:
    return torch.isfinite(ys).flatten(1).all(1)


def _rms(values: torch.Tensor, good: torch.Tensor) -> float | None:
    """Over the samples that were solved, without the given initial state; None if there is none."""
    return float(values[good][:, 1:].square().mean().sqrt()) if bool(good.any()) else None


def _impulse_errors(
    job: Job, model: nn.Module, reference: nn.Module, index: int, seed: int
) -> dict[str, float | None] | None:
    """Relative error of the response of the final state to small changes of a draw, entry by entry.

    Central differences around one draw of the training space, at the truth's own tolerances.
    """
    if not job.impulses:
        return None
    setting = job.setting
    rng = np.random.default_rng([TRAIN, index, seed])
    draw = job.spaces[index].sample(1, setting.grid, rng, setting.match)
    entries = np.unique(np.linspace(0, draw.shape[1] - 1, min(job.impulses, draw.shape[1])).astype(int))
    step = 1e-3 * (float(np.sqrt(np.mean(draw**2))) or 1.0)
    shifts = step * np.eye(draw.shape[1])[entries]
    y0, context = setting.conditions(np.concatenate([draw + shifts, draw - shifts]))
    ends = torch.full((len(y0), 2, *setting.truth.state_shape), 1.0, dtype=torch.float64)
    data = Trajectories(setting.ts[[0, -1]], ends, y0=y0, context=context)

    def response(model: nn.Module) -> Array:
        final = predict(model, data, setting.truth_solver)[:, -1].flatten(1).numpy()
        return (final[: len(entries)] - final[len(entries) :]) / (2 * step)

    wanted = response(setting.truth)
    out: dict[str, float | None] = {}
    for name, tried in (("model", model), ("reference", reference)):
        ratio = float(np.linalg.norm(response(tried) - wanted) / np.linalg.norm(wanted))
        out[name] = ratio if np.isfinite(ratio) else None
    return out
