"""Settings of this process, and what ``setup-julia`` recorded for later ones."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import platformdirs

from hybridsam_bridge.errors import InvalidInput


@dataclass(frozen=True)
class Settings:
    """Options that hold for the process.

    Attributes:
        runtime: "worker" (Julia in a process of its own) or "inline" (Julia in this process).
        threads: Julia threads; 0 takes the number of cores. Once Julia runs, fewer than it was started with.
        time_limit: default limit of a solve in seconds, None for no limit.
        tape_memory: bytes the tapes of all live solves may hold in full; beyond it tapes keep only the
            states (on Julia, if need be, every second, fourth ... of them) and compute the rest again in the
            backward pass.
    """

    runtime: str = "worker"
    threads: int = 0
    time_limit: float | None = None
    tape_memory: int = 2 * 1024**3


_current: Settings | None = None


def settings() -> Settings:
    """The settings in force: defaults, overridden by HYBRIDSAM_RUNTIME etc., then by ``configure``."""
    global _current
    if _current is None:
        _current = _checked(Settings(), **_from_environment())
    return _current


def configure(**changes: Any) -> Settings:
    """Change settings of this process, for example ``hsb.configure(threads=4, runtime="inline")``.

    ``runtime`` counts only before the first solve on Julia; ``threads`` sets its number then, and may later be
    lowered. Returns the settings in force.
    """
    global _current
    _current = _checked(settings(), **changes)
    return _current


def _from_environment() -> dict[str, Any]:
    out: dict[str, Any] = {}
    for item in fields(Settings):
        text = os.environ.get(f"HYBRIDSAM_{item.name.upper()}")
        if text:
            kind = {"runtime": str, "time_limit": float}.get(item.name, int)
            try:
                out[item.name] = kind(text)
            except ValueError:
                raise InvalidInput(f"HYBRIDSAM_{item.name.upper()}={text!r} is not a number.") from None
    return out


def _checked(base: Settings, **changes: Any) -> Settings:
    known = {item.name for item in fields(Settings)}
    for name in changes:
        if name not in known:
            raise InvalidInput(f"configure: no setting {name!r}. Known: {', '.join(sorted(known))}.")
    new = replace(base, **changes)
    if new.runtime not in ("worker", "inline"):
        raise InvalidInput(f'runtime={new.runtime!r} is not known. Known: "worker", "inline".')
    if new.threads < 0 or new.tape_memory < 0 or (new.time_limit is not None and new.time_limit <= 0):
        raise InvalidInput("configure: threads and tape_memory must not be negative, time_limit positive.")
    return new


@dataclass(frozen=True)
class JuliaInstallation:
    """A Julia executable and the project (environment folder) that holds the package's dependencies."""

    executable: str
    project: str


def julia_record_path() -> Path:
    """Where ``setup-julia`` records an installation (HYBRIDSAM_CONFIG_DIR overrides the folder)."""
    folder = os.environ.get("HYBRIDSAM_CONFIG_DIR") or platformdirs.user_config_dir("hybridsam-bridge")
    return Path(folder) / "julia.toml"


def recorded_julia() -> JuliaInstallation | None:
    """What ``setup-julia`` recorded, or None."""
    path = julia_record_path()
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return JuliaInstallation(data["executable"], data["project"])
    except FileNotFoundError:
        return None
    except (tomllib.TOMLDecodeError, KeyError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"{path} is damaged ({error}). Delete it or run hybridsam-bridge setup-julia again."
        ) from error


def record_julia(installation: JuliaInstallation) -> Path:
    """Write the record for later processes, whole or not at all. Returns its path."""
    import tomli_w

    path = julia_record_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(
        tomli_w.dumps({"executable": installation.executable, "project": installation.project}),
        encoding="utf-8",
    )
    temporary.replace(path)
    return path
