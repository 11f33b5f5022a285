"""What is installed here and what the package would do with it."""

from __future__ import annotations

import importlib.metadata
import os
import platform

from hybridsam_bridge import backends
from hybridsam_bridge.config import julia_record_path, settings

PACKAGES = ("hybridsam-bridge", "torch", "numpy", "scipy", "juliacall", "juliapkg")


def examine() -> str:
    """The report of ``hybridsam-bridge doctor``. Starts nothing."""
    lines = [f"Python {platform.python_version()} on {platform.platform()}, {os.cpu_count()} cores"]
    lines += [f"  {name} {_version(name)}" for name in PACKAGES]
    lines += ["", "Julia", *(f"  {line}" for line in _julia())]
    lines += ["", "Backends"]
    for name in ("julia", "torch", "scipy"):
        state = _availability(name)
        lines.append(f"  {name}: {state}")
    lines += ["", f'"auto" takes {backends.auto()[1].removeprefix("backend: ")}', "", f"Settings: {settings()}"]
    return "\n".join(lines)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "is not installed"


def _julia() -> list[str]:
    from hybridsam_bridge.backends import locate

    record = f"record: {julia_record_path()}" + ("" if julia_record_path().exists() else " (none yet)")
    found = locate.find()
    if found is None:
        return [record, "not set up", locate.SETUP]
    lines = [record, f"executable: {found.executable} ({found.how})", f"project: {found.project}"]
    wrong = locate.problem(found)
    return [*lines, f"problem: {wrong}. {locate.SETUP}"] if wrong else lines


def _availability(name: str) -> str:
    state = backends.get(name).availability()
    if state.ready:
        return f"ready ({state.why})"
    return f"not ready: {state.why} {state.fix}".rstrip()
