"""Checkpoints: one file, written whole or not at all, read without executing anything.

A checkpoint is a nest of dicts, lists, numbers, strings, arrays and tensors. Tensors go into a safetensors
file, everything else as JSON into that file's header, so one rename replaces both together.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from hybridsam_bridge.errors import InvalidInput

_KEY = "hybridsam_bridge"
FORMAT = 1


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` to ``path``; a crash at any moment leaves the old file or the new one."""
    tensors: dict[str, torch.Tensor] = {}
    plain = {"format": FORMAT, "state": _pack(state, tensors, "")}
    data = to_bytes(tensors, metadata={_KEY: json.dumps(plain)})
    write_atomically(path, data)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``, on disk before it is visible."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """Read what ``save`` wrote. Raises ``InvalidInput`` where the file is missing, damaged or foreign."""
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_KEY)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError:
        raise InvalidInput(f"checkpoint: {path} is not there.") from None
    except (SafetensorError, OSError) as error:
        raise InvalidInput(f"checkpoint: {path} cannot be read ({error}). Delete it, or take another one.") from error
    if header is None:
        raise InvalidInput(f"checkpoint: {path} is a safetensors file, but not a checkpoint of this package.")
    plain = json.loads(header)
    if plain["format"] != FORMAT:
        raise InvalidInput(f"checkpoint: {path} has format {plain['format']}, this version reads {FORMAT}.")
    return _unpack(plain["state"], tensors)


def _pack(value: Any, tensors: dict[str, torch.Tensor], path: str) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.integer, np.floating)):
        return value.item()
    if isinstance(value, np.ndarray):
        tensors[path] = torch.from_numpy(value.copy())
        return {"array": path}
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().cpu().contiguous().clone()  # safetensors refuses shared memory
        return {"tensor": path}
    if isinstance(value, dict):
        return {"dict": [[_pack_key(k, path), _pack(v, tensors, f"{path}/{k}")] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_pack(v, tensors, f"{path}/{i}") for i, v in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    raise InvalidInput(
        f"checkpoint: {path or 'the state'} is of type {type(value).__name__}; a checkpoint holds numbers, strings, "
        "tensors, and lists and dicts of them. Keep it out of the state_dict."
    )


def _pack_key(key: Any, path: str) -> Any:
    if isinstance(key, (str, int)):
        return key
    raise InvalidInput(f"checkpoint: {path} has a key of type {type(key).__name__}; use strings or integers.")


def _unpack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content].numpy()
    if kind == "dict":
        return {k: _unpack(v, tensors) for k, v in content}
    items = [_unpack(v, tensors) for v in content]
    return tuple(items) if kind == "tuple" else items
