"""``hsb.generalisation_report``: train a hybrid model on one function space, test it on the others."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.fields.base import Field, check_field
from hybridsam_bridge.trust.coverage import Inputs
from hybridsam_bridge.trust.result import GeneralisationReport, read_json, write_json
from hybridsam_bridge.trust.row import Factory, Fit, Job, run_row
from hybridsam_bridge.trust.trials import VARIED, Place, Setting, Space

Task = tuple[int, int]  # index of the training space, seed


def generalisation_report(
    model_factory: Factory,
    fit: Fit,
    truth: Field,
    vary: str = "initial_condition",
    spaces: Sequence[Space] = (),
    n_train: int = 16,
    n_test: int = 16,
    seeds: int | Sequence[int] = 1,
    noise: float = 0.0,
    match: str | None = "rms",
    reference: str | Factory = "no_closure",
    solver_check: dict[str, Any] | bool = True,
    *,
    ts: torch.Tensor,
    y0: torch.Tensor | None = None,
    context: torch.Tensor | None = None,
    grid: Any = None,
    place: Place | None = None,
    solver: dict[str, Any] | None = None,
    truth_solver: dict[str, Any] | None = None,
    impulses: int = 8,
    inputs: Inputs | None = None,
    workers: int = 1,
    folder: str | Path | None = None,
    say: Callable[[str], Any] | None = None,
) -> GeneralisationReport:
    """Where a hybrid model may be used, by training it on each space and testing it on all, through the solver.

    Args:
        model_factory: ``model_factory(seed)`` -> a fresh ``hsb.VectorField``, composition or
            ``hsb.InitialValueModel``.
        fit: ``fit(model, data)`` trains it in place (or returns a trained one) on an ``hsb.Trajectories``;
            ``hsb.trust.SolverFit`` is one.
        truth: the field taken for true.
        vary: what the spaces are spaces of: "initial_condition", "forcing" or "parameter". Draws become initial
            states (added to ``y0``) or else the context of truth and model.
        spaces: at least one of ``hsb.trust.FunctionSpace``, ``Box`` or anything with ``name`` and ``sample``.
        n_train, n_test: trajectories a space. seeds: how many, or which; each starts a fit of its own.
        noise: standard deviation of the training data's noise over their root mean square.
        match: "rms" scales each draw to its space's amplitude, so that spaces differ by shape; None leaves them.
        reference: what errors are compared with: "no_closure", the same model with its networks silent, its
            science fitted to the same data; or another factory.
        solver_check: options of ``hsb.solve`` to repeat some predictions with; True for tolerances 100 times
            tighter, False for no check.
        ts: ``(T,)`` times of the data, the initial one first.
        y0: ``state_shape``, the initial state, zero if left out. context: fixed context where y0 is varied.
        grid: ``(m,)`` points in [0, 1] where function spaces are evaluated; by default the interior points of as
            many as the last dimension of the state.
        place: ``place(draws (n, m))`` -> initial states ``(n, *state_shape)`` or contexts ``(n, *any)``.
        solver, truth_solver: options of ``hsb.solve`` for models, and for the truth (rtol 1e-8, atol 1e-10).
        impulses: entries of a draw whose impulse response is compared; 0 for none.
        inputs: see ``hsb.trust.network_inputs``, for networks that no Linear or Conv layer begins.
        workers: processes; rows are spread over them. Above 1 the functions must be importable (no lambdas) and
            a script needs ``if __name__ == "__main__":``.
        folder: where rows, report.json and figures go. A second call with the same settings goes on with the
            rows that are there; delete the folder after changing code.
        say: called with a line after each row.

    Returns:
        ``GeneralisationReport``: matrices (skill, coverage, failures), drift of parameters, ``summary()``,
        ``figures()``, ``save()``.

    Raises:
        InvalidInput: an argument is unusable, or the truth cannot be solved for a draw. A fit or a prediction that
            fails is a result, not an error.
    """
    check_field(truth)
    _check(vary, spaces, n_train, n_test, noise, reference, workers, match)
    chosen = list(range(seeds)) if isinstance(seeds, int) else [int(s) for s in seeds]
    if not chosen:
        raise InvalidInput("seeds: at least one is needed.")
    options = dict(solver or {})
    setting = Setting(
        truth=truth,
        vary=vary,
        ts=torch.as_tensor(ts, dtype=torch.float64),
        grid=_grid(grid, truth),
        y0=torch.zeros(tuple(truth.state_shape), dtype=torch.float64) if y0 is None else y0.double(),
        context=context,
        place=place,
        match=match,
        noise=noise,
        solver=options,
        truth_solver={**options, "rtol": 1e-8, "atol": 1e-10, **(truth_solver or {})},
    )
    job = Job(
        setting=setting,
        model_factory=model_factory,
        fit=fit,
        spaces=list(spaces),
        n_train=n_train,
        n_test=n_test,
        reference=None if isinstance(reference, str) else reference,
        solver_check=_check_options(solver_check, options),
        impulses=impulses,
        inputs=inputs,
    )
    settings = _describe(job, chosen)
    rows = _run(job, [(i, seed) for i in range(len(spaces)) for seed in chosen], settings, workers, folder, say)
    report = GeneralisationReport([space.name for space in spaces], settings, rows)
    if folder is not None:
        report.folder = Path(folder)
        report.save(report.folder / "report.json")
        report.figures()
    return report


def _run(
    job: Job,
    tasks: list[Task],
    settings: dict[str, Any],
    workers: int,
    folder: str | Path | None,
    say: Callable[[str], Any] | None,
) -> list[dict[str, Any]]:
    store = None if folder is None else Path(folder) / "rows"
    if store is not None:
        store.mkdir(parents=True, exist_ok=True)
    stamp = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    done: dict[Task, dict[str, Any]] = {}
    for task in tasks if store is not None else ():
        kept = read_json(_row_path(store, task))
        if kept is not None and kept.get("stamp") == stamp:
            done[task] = kept["row"]
    if done and say is not None:
        say(f"{len(done)} of {len(tasks)} rows were there already.")
    left = [task for task in tasks if task not in done]
    for task, row in _parallel(job, left, workers) if workers > 1 else ((t, run_row(job, *t)) for t in left):
        done[task] = row
        if store is not None:
            write_json(_row_path(store, task), {"stamp": stamp, "row": row})
        if say is not None:
            outcome = f"the fit failed: {row['failed']}" if row["failed"] else "done"
            say(f"{len(done)}/{len(tasks)} trained on {row['space']}, seed {row['seed']}: {outcome}")
    return [done[task] for task in tasks]


def _parallel(job: Job, tasks: list[Task], workers: int) -> Iterator[tuple[Task, dict[str, Any]]]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    try:
        pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InvalidInput(
            f"workers: rows go to other processes, so model_factory, fit, truth, spaces and place must be picklable "
            f"({error}). Define them at the top of a module, or pass workers=1."
        ) from error
    # Spawned, since forking a process that has run torch or Julia can hang.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(run_row, job, *task): task for task in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _row_path(store: Path | None, task: Task) -> Path:
    assert store is not None, "only called with a folder"
    return store / f"space{task[0]:02d}-seed{task[1]}.json"


def _grid(grid: Any, truth: Field) -> np.ndarray:
    if grid is None:
        n = int(truth.state_shape[-1])
        return np.arange(1, n + 1) / (n + 1)
    points = np.asarray(grid, dtype=np.float64)
    if points.ndim != 1 or not len(points) or points.min() < 0 or points.max() > 1:
        raise InvalidInput("grid: must be one-dimensional, with points in [0, 1] (functions are defined there).")
    return points


def _check_options(check: dict[str, Any] | bool, solver: dict[str, Any]) -> dict[str, Any] | None:
    if check is False:
        return None
    if check is True:
        return {"rtol": 0.01 * float(solver.get("rtol", 1e-6)), "atol": 0.01 * solver.get("atol", 1e-9)}
    return dict(check)


def _check(
    vary: str,
    spaces: Sequence[Space],
    n_train: int,
    n_test: int,
    noise: float,
    reference: str | Factory,
    workers: int,
    match: str | None,
) -> None:
    if vary not in VARIED:
        raise InvalidInput(f"vary={vary!r} is not known. Known: {', '.join(VARIED)}.")
    if not spaces:
        raise InvalidInput("spaces: at least one is needed, such as hsb.trust.sine(3).")
    names = [space.name for space in spaces]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InvalidInput(f"spaces: the name {min(twice)!r} occurs twice; names tell rows apart.")
    if min(n_train, n_test, workers) < 1:
        raise InvalidInput("n_train, n_test and workers must be at least 1.")
    if not noise >= 0:
        raise InvalidInput(f"noise: must not be negative, got {noise!r}.")
    if match not in ("rms", None):
        raise InvalidInput(f'match={match!r} is not known. Known: "rms", None.')
    if isinstance(reference, str) and reference != "no_closure":
        raise InvalidInput(f'reference={reference!r} is not known. Known: "no_closure", or a function of the seed.')


def _describe(job: Job, seeds: list[int]) -> dict[str, Any]:
    """The settings as plain data, for the record and to tell whether stored rows still fit."""
    setting = job.setting
    return {
        "vary": setting.vary,
        "truth": type(setting.truth).__name__,
        # Names do not tell all of a space, so two of its draws go with them.
        "spaces": [[repr(s.name), _probe(s, setting)] for s in job.spaces],
        "ts": setting.ts.tolist(),
        "grid": setting.grid.tolist(),
        "y0": setting.y0.tolist(),
        "context": None if setting.context is None else setting.context.tolist(),
        "match": setting.match,
        "noise": setting.noise,
        "solver": {key: repr(value) for key, value in setting.solver.items()},
        "truth_solver": {key: repr(value) for key, value in setting.truth_solver.items()},
        "n_train": job.n_train,
        "n_test": job.n_test,
        "seeds": seeds,
        "reference": "no_closure" if job.reference is None else "own",
        "solver_check": None if job.solver_check is None else {k: repr(v) for k, v in job.solver_check.items()},
        "impulses": job.impulses,
    }


def _probe(space: Space, setting: Setting) -> list[float]:
    draws = space.sample(2, setting.grid, np.random.default_rng(0), setting.match)
    return [float(f"{value:.8g}") for value in np.asarray(draws).reshape(-1)]
