"""Shared memory between this process and the worker: one mapped file, filled anew for each request."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import tempfile
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

HEADER = 64  # the cancel flag (int32) and padding
_ALIGN = 64


class Arena:
    """A bump allocator over a mapped file. ``cancel`` is the flag that a running solve polls."""

    def __init__(self, capacity: int):
        folder = "/dev/shm" if os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK) else None
        descriptor, self.path = tempfile.mkstemp(prefix="hybridsam-", dir=folder)
        self.capacity = max(1 << 20, 1 << (capacity - 1).bit_length())
        os.ftruncate(descriptor, self.capacity)
        self.map = mmap.mmap(descriptor, self.capacity)
        os.close(descriptor)
        self.cancel: NDArray[np.int32] = np.frombuffer(self.map, dtype=np.int32, count=1)
        self.words: dict[type, NDArray] = {kind: np.frombuffer(self.map, dtype=kind) for kind in (np.float64, np.int64)}
        self.used = HEADER

    @property
    def address(self) -> int:
        """Address in this process, for Julia inline."""
        return int(self.cancel.ctypes.data)

    def unlink(self) -> None:
        """Remove the file's name; the memory lives until both processes let go of it."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def reset(self) -> None:
        self.used = HEADER
        self.cancel[0] = 0

    def place(self, *arrays: NDArray) -> list[int]:
        """Copy arrays of float64 (or of int64) in, one behind the other; returns their offsets."""
        sizes = [array.size for array in arrays]
        offset, view = self.reserve((sum(sizes),), arrays[0].dtype.type)
        np.concatenate([array.reshape(-1) for array in arrays], out=view)
        return offsets(offset, sizes)

    def reserve(self, shape: tuple[int, ...], kind: type = np.float64) -> tuple[int, NDArray]:
        """Room for an array of that shape, of float64 or int64: its offset and a view."""
        offset, count = self.used, math.prod(shape)
        end = offset + 8 * count
        if end > self.capacity:
            raise MemoryError("the request is larger than the arena that was sized for it")
        self.used = -(-end // _ALIGN) * _ALIGN
        return offset, self.words[kind][offset >> 3 : end >> 3].reshape(shape)


def offsets(first: int, sizes: Iterable[int]) -> list[int]:
    """Offsets of arrays of that many 8-byte numbers that lie one behind the other."""
    out = []
    for size in sizes:
        out.append(first)
        first += 8 * size
    return out


def needed(*counts: int) -> int:
    """Bytes that arrays of that many 8-byte numbers take in an arena."""
    return HEADER + sum(8 * count + _ALIGN for count in counts)
