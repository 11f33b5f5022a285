"""Makes the second pass of an optimizer see what the first one saw."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.module import register_module_forward_pre_hook


class RandomState:
    """State of the global generators (Python, NumPy, torch on the CPU and on ``devices``) when created.

    Generators of the user's own (``torch.Generator``) are not included.
    """

    def __init__(self, devices: Iterable[torch.device] = ()):
        self._python = random.getstate()
        self._numpy = np.random.get_state()
        self._torch = torch.get_rng_state()
        self._devices = [(device, _device_state(device)) for device in devices if device.type != "cpu"]

    def restore(self) -> None:
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        for device, state in self._devices:
            module = torch.get_device_module(device)
            module.set_rng_state(state, *_which(device))


def _device_state(device: torch.device) -> torch.Tensor:
    return torch.get_device_module(device).get_rng_state(*_which(device))


def _which(device: torch.device) -> tuple[Any, ...]:
    return () if device.type == "mps" else (device,)  # MPS has one generator and takes no device


@contextmanager
def frozen_statistics() -> Iterator[None]:
    """Running statistics of batch and instance norms called inside are put back at the end.

    The layers still normalise by the statistics of the batch, as training does. They are found by a global
    hook, so the optimizer needs no handle on the model.
    """
    kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def keep(module: torch.nn.Module, args: Any) -> None:
        if isinstance(module, _NormBase) and module.training:
            for buffer in module._buffers.values():
                if buffer is not None and id(buffer) not in kept:
                    kept[id(buffer)] = (buffer, buffer.detach().clone())

    handle = register_module_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()
        with torch.no_grad():
            for buffer, value in kept.values():
                buffer.copy_(value)


def with_grad(closure: Callable[[], Any]) -> Callable[[], Any]:
    """The closure with gradients enabled, whatever the caller's mode."""

    def run() -> Any:
        with torch.enable_grad():
            return closure()

    return run
