"""Finding the task that a configuration names."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.tasks.base import Task

BUILT_IN = {"hare_lynx": "hybridsam_bridge.tasks.hare_lynx"}


def load_task(name: str, options: dict[str, Any], solver: dict[str, Any], folder: Path) -> Task:
    """Build the task: a built-in name, a .py file (relative to ``folder``), or a module's dotted name.

    Raises:
        InvalidInput: nothing of that name, or its ``build`` is missing or returns something else.
    """
    module = load_module(name, folder)
    build = getattr(module, "build", None)
    if not callable(build):
        raise InvalidInput(f"task.name: {name} has no function build(options, solver) that returns an hsb.Task.")
    task = build(dict(options), dict(solver))
    if not isinstance(task, Task):
        raise InvalidInput(f"task.name: build of {name} must return an hsb.Task, it returned {type(task).__name__}.")
    return task


def load_module(name: str, folder: Path) -> ModuleType:
    """The module of a built-in task, a .py file (relative to ``folder``) or a dotted name."""
    if name in BUILT_IN:
        return importlib.import_module(BUILT_IN[name])
    if name.endswith(".py"):
        return _from_file((folder / name).resolve())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and not name.startswith(error.name):
            raise  # the user's module is there and misses something itself
        raise InvalidInput(
            f"task.name: {name!r} is neither a built-in task ({', '.join(BUILT_IN)}), nor a .py file, nor a module "
            "that can be imported."
        ) from None


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InvalidInput(f"task.name: the file {path} is not there.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None, "a .py file has a spec"
    assert spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # so that classes in it can be pickled by DataLoader workers
    spec.loader.exec_module(module)
    return module
