"""Axes and strides: of views, and of the loops that run over them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def dense(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides; 0 along axes of length one, so that equal layouts compare equal."""
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(0 if length == 1 else step)
        step *= length
    return tuple(reversed(strides))


def split_axes(shape: Sequence[int], strides: Sequence[int], new: Sequence[int]) -> tuple[int, ...] | None:
    """Strides of the same elements under shape ``new``, or None if there are none."""
    if 0 in shape:
        return dense(new)
    merged: list[list[int]] = []  # runs of axes that are contiguous to each other: [length, stride]
    for length, stride in zip(shape, strides, strict=True):
        if length == 1:
            continue
        if merged and merged[-1][1] == stride * length:
            merged[-1] = [merged[-1][0] * length, stride]
        else:
            merged.append([length, stride])
    out: list[int] = []
    stack = merged[::-1]
    run = stack.pop() if stack else [1, 0]
    rest = run[0]
    for length in new:
        if length == 1:
            out.append(0)
            continue
        while rest == 1 and stack:
            run = stack.pop()
            rest = run[0]
        if rest % length:
            return None
        rest //= length
        out.append(run[1] * rest)
    return tuple(out)


def positions(shape: Sequence[int], offset: int, strides: Sequence[int]) -> np.ndarray:
    """Linear positions of a view's elements in its base, in row-major order (flat)."""
    out = np.full((1,), offset, dtype=np.int64)
    for length, stride in zip(shape, strides, strict=True):
        out = (out[:, None] + stride * np.arange(length, dtype=np.int64)[None, :]).reshape(-1)
    return out


def index_text(offset: int, strides: Sequence[int]) -> str:
    """One-based index text for zero-based loop counters."""
    parts = [str(offset + 1)]
    for axis, stride in enumerate(strides):
        if stride:
            parts.append(f"i{axis}" if stride == 1 else f"{stride} * i{axis}")
    return " + ".join(parts)


def collapse(shape: Sequence[int], patterns: Sequence[tuple[int, ...]]) -> tuple[list[int], list[tuple[int, ...]]]:
    """Merge neighbouring axes that are contiguous in every access: fewer, longer loops."""
    lengths: list[int] = []
    columns: list[list[int]] = []  # strides of every access, an axis at a time
    for axis, length in enumerate(shape):
        strides = [p[axis] for p in patterns]
        if lengths and all(before == s * length for before, s in zip(columns[-1], strides, strict=True)):
            lengths[-1] *= length
            columns[-1] = strides
        else:
            lengths.append(length)
            columns.append(strides)
    return lengths, [tuple(c[i] for c in columns) for i in range(len(patterns))]
