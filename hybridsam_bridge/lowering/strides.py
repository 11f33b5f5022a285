"""Axes and strides of emitted code."""

from __future__ import annotations

from collections.abc import Sequence


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
