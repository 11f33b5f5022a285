"""Bad input is refused here, before any backend sees it. Messages name the argument and the fix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from hybridsam_bridge import methods
from hybridsam_bridge.backends.base import Floats
from hybridsam_bridge.config import settings
from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.fields.base import check_field
from hybridsam_bridge.fields.plan import Plan, Shape, TorchPart


class Shaped(NamedTuple):
    """Arguments of a solve in the form of the NumPy backends: y0 (B, n), ts (T,), context (B, nc) of B samples."""

    y0: Floats
    ts: Floats
    context: Floats
    context_shape: Shape | None
    batch: Shape
    atol: Floats
    steps: tuple[Floats, ...] | None
    time_limit: float | None


def check_solve(
    field: Any,
    y0: Any,
    ts: Any,
    context: Any,
    method: Any,
    rtol: Any,
    atol: Any,
    adjoint: Any,
    backend: Any,
    max_steps: Any,
    on_failure: Any,
    time_limit: Any,
    steps: Any,
    linear: Any,
) -> Shaped:
    """Check every argument of ``hsb.solve`` and flatten the batch. Raises ``InvalidInput``."""
    state_shape = tuple(check_field(field).state_shape)
    _check_name("adjoint", adjoint, methods.ADJOINTS)
    _check_name("backend", backend, methods.BACKENDS)
    _check_name("linear", linear, methods.LINEAR)
    _check_name("on_failure", on_failure, ("raise", "nan"))
    if method != "auto":
        methods.lookup(method) if isinstance(method, str) else _refuse_type("method", method, "a string")
    batch, states = _check_y0(y0, state_shape)
    times = _check_ts(ts)
    size = math.prod(batch)
    if context is None:
        context_shape, contexts = None, np.zeros((size, 0))
    else:
        context_shape, contexts = _check_context(context, batch)
    _check_number("rtol", rtol, positive=True)
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
        raise InvalidInput(f"max_steps: must be a positive integer, got {max_steps!r}.")
    if time_limit is None:
        time_limit = settings().time_limit
    if time_limit is not None:
        _check_number("time_limit", time_limit, positive=True)
    return Shaped(
        y0=_float64(states).reshape(size, -1),
        ts=_float64(times),
        context=_float64(contexts).reshape(size, -1),
        context_shape=context_shape,
        batch=batch,
        atol=_check_atol(atol, state_shape),
        steps=None if steps is None else _check_steps(steps, ts, size),
        time_limit=time_limit,
    )


def check_output_shape(plan: Plan, shaped: Shaped, device: torch.device) -> None:
    """Evaluate torch parts once a plan on the first sample: a field of another output shape is refused.

    ``device`` is where the field's parameters are.
    """
    if plan.memo.get("shape_checked"):
        return
    t, y, c = (torch.as_tensor(x[0], device=device) for x in (shaped.ts, shaped.y0, shaped.context))
    for part in plan.parts:
        if isinstance(part, TorchPart):
            with torch.no_grad():
                part.fn(t, y, c, [y.new_ones(spec.shape) for spec in part.parameters])
    plan.memo["shape_checked"] = True


def _check_y0(y0: Any, state_shape: Shape) -> tuple[Shape, np.ndarray]:
    _check_tensor("y0", y0)
    shape, k = tuple(y0.shape), len(state_shape)
    if shape[len(shape) - k :] != state_shape or len(shape) < k:
        raise InvalidInput(
            f"y0: the last dimensions must be the field's state_shape {state_shape}, got shape {shape}. "
            "y0 is (*batch, *state_shape)."
        )
    batch = shape[: len(shape) - k]
    if math.prod(batch) == 0:
        raise InvalidInput(f"y0: the batch is empty (shape {shape}); pass at least one sample.")
    return batch, _check_finite("y0", y0)


def _check_ts(ts: Any) -> np.ndarray:
    _check_tensor("ts", ts)
    if ts.ndim != 1 or ts.shape[0] < 2:
        raise InvalidInput(
            f"ts: needs at least two times in one dimension, the initial time first; got shape {tuple(ts.shape)}."
        )
    times = _numbers(ts)
    # Increasing from one finite time to another, all are finite.
    if _all(times[1:] > times[:-1]) and math.isfinite(times[0]) and math.isfinite(times[-1]):
        return times
    _check_finite("ts", ts)
    i = int(np.flatnonzero(times[1:] <= times[:-1])[0])
    raise InvalidInput(
        f"ts: must increase strictly, but ts[{i}] = {float(ts[i])!r} and ts[{i + 1}] = {float(ts[i + 1])!r}. "
        "Sort the times and drop repeats (torch.unique does both)."
    )


def _check_context(context: Any, batch: Shape) -> tuple[Shape, np.ndarray]:
    _check_tensor("context", context)
    if tuple(context.shape[: len(batch)]) != batch:
        raise InvalidInput(
            f"context: the leading dimensions must be y0's batch {batch}, got shape {tuple(context.shape)}. "
            "Expand it to one context a sample."
        )
    return tuple(context.shape[len(batch) :]), _check_finite("context", context)


def _check_atol(atol: Any, state_shape: Shape) -> Floats:
    n = math.prod(state_shape)
    if isinstance(atol, (torch.Tensor, np.ndarray)) and np.ndim(atol) > 0:
        if tuple(atol.shape) != state_shape:
            raise InvalidInput(f"atol: a tensor must have the state_shape {state_shape}, got {tuple(atol.shape)}.")
        values = np.asarray(atol.detach().cpu() if isinstance(atol, torch.Tensor) else atol, dtype=np.float64)
        if not (np.isfinite(values) & (values >= 0)).all():
            raise InvalidInput("atol: every entry must be finite and not negative.")
        return values.reshape(-1).copy()
    _check_number("atol", atol, positive=False)
    return np.full(n, float(atol))


def _check_steps(steps: Any, ts: torch.Tensor, size: int) -> tuple[Floats, ...]:
    if not isinstance(steps, Sequence) and not isinstance(steps, (np.ndarray, torch.Tensor)):
        _refuse_type("steps", steps, "a sequence of times, or one sequence a sample")
    first = steps[0] if len(steps) else None
    rows = [steps] * size if first is None or np.ndim(first) == 0 else list(steps)
    if len(rows) != size:
        raise InvalidInput(f"steps: one sequence a sample is needed, got {len(rows)} sequences for {size} samples.")
    start, end = float(ts[0]), float(ts[-1])
    out = []
    for i, row in enumerate(rows):
        times = np.array(row, dtype=np.float64)
        good = times.ndim == 1 and len(times) >= 2 and np.isfinite(times).all() and (np.diff(times) > 0).all()
        if not good or times[0] != start or times[-1] != end:
            raise InvalidInput(
                f"steps: sequence {i} must increase strictly from ts[0] = {start!r} to ts[-1] = {end!r}."
            )
        out.append(times)
    return tuple(out)


def _check_tensor(name: str, value: Any) -> None:
    if not isinstance(value, torch.Tensor):
        _refuse_type(name, value, "a torch tensor (torch.as_tensor converts arrays and lists)")
    if value.dtype not in (torch.float32, torch.float64):
        raise InvalidInput(f"{name}: must be float32 or float64, got {value.dtype}. Use {name}.double().")


def _numbers(value: torch.Tensor) -> np.ndarray:
    """Their values without a copy where possible; on a few numbers NumPy is several times quicker than torch."""
    return value.numpy(force=True)


def _float64(values: np.ndarray) -> Floats:
    return np.ascontiguousarray(values, dtype=np.float64)


def _all(mask: np.ndarray) -> bool:
    """As ``mask.all()``, which takes three times as long on a few numbers."""
    return np.count_nonzero(mask) == mask.size


def _check_finite(name: str, value: torch.Tensor) -> np.ndarray:
    """The values of a tensor of finite numbers."""
    values = _numbers(value)
    finite = np.isfinite(values)
    if not _all(finite):
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise InvalidInput(f"{name}: entry {index} is {float(value[index])}; every entry must be finite.")
    return values


def _check_number(name: str, value: Any, positive: bool) -> None:
    if isinstance(value, torch.Tensor) and value.ndim == 0:
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
        _refuse_type(name, value, "a number")
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        raise InvalidInput(f"{name}: must be finite and {'positive' if positive else 'not negative'}, got {value!r}.")


def _check_name(name: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise InvalidInput(f"{name}={value!r} is not known. Known: {', '.join(known)}.")


def _refuse_type(name: str, value: Any, wanted: str) -> None:
    raise InvalidInput(f"{name}: must be {wanted}, got {type(value).__name__}.")
