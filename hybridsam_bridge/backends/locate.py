"""Where Julia is: environment variables first, then what ``setup-julia`` recorded. Starts nothing."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from hybridsam_bridge.config import recorded_julia
from hybridsam_bridge.errors import BackendUnavailable

SETUP = "Run `hybridsam-bridge setup-julia` once (it installs and precompiles), or name an existing installation "
SETUP += "with `hybridsam-bridge setup-julia --julia EXE --project DIR`."

# What decides which installation is found.
VARIABLES = ("PYTHON_JULIACALL_EXE", "PYTHON_JULIACALL_PROJECT", "HYBRIDSAM_CONFIG_DIR")


@dataclass(frozen=True)
class Located:
    """A Julia executable, the project with the package's dependencies, and how they were found."""

    executable: str
    project: str
    how: str


def find() -> Located | None:
    """The installation to use, or None where Julia was not set up."""
    executable = os.environ.get("PYTHON_JULIACALL_EXE")
    project = os.environ.get("PYTHON_JULIACALL_PROJECT")
    if executable and project:
        return Located(executable, project, "by PYTHON_JULIACALL_EXE and PYTHON_JULIACALL_PROJECT")
    record = recorded_julia()
    if record is not None:
        return Located(record.executable, record.project, "recorded by setup-julia")
    return None


def problem(located: Located | None) -> str:
    """Why that installation cannot be used, in one sentence; empty if it looks sound."""
    if importlib.util.find_spec("juliacall") is None:
        return "the Python package juliacall is not installed (pip install juliacall)"
    if located is None:
        return "Julia has not been set up"
    if not (os.path.isfile(located.executable) and os.access(located.executable, os.X_OK)):
        return f"the Julia executable {located.executable} ({located.how}) is not there"
    if not os.path.isfile(os.path.join(located.project, "Project.toml")):
        return f"the Julia project {located.project} ({located.how}) has no Project.toml"
    return ""


def required() -> Located:
    """The installation to use. Raises ``BackendUnavailable``, with the fix, where there is none that is sound."""
    located = find()
    trouble = problem(located)
    if trouble or located is None:
        raise BackendUnavailable(f"The Julia backend cannot start: {trouble}. {SETUP}")
    return located


def library() -> Path:
    """The folder of the project's own Julia package, in a checkout or an installed wheel."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "julia", here.parent / "julia"):
        if (folder / "Project.toml").is_file():
            return folder
    raise FileNotFoundError(f"the Julia package is missing beside {here}; reinstall hybridsam-bridge")


def environment(located: Located, threads: int) -> dict[str, str]:
    """Environment variables for a process that is to import juliacall with that installation."""
    return {
        "PYTHON_JULIACALL_EXE": located.executable,
        "PYTHON_JULIACALL_PROJECT": located.project,
        "PYTHON_JULIACALL_THREADS": str(threads),
        "PYTHON_JULIACALL_HANDLE_SIGNALS": "yes",  # several Julia threads need Julia's handlers
        "PYTHON_JULIACALL_STARTUP_FILE": "no",
        "PYTHON_JULIACALL_AUTOLOAD_IPYTHON_EXTENSION": "no",
        "JULIA_CONDAPKG_BACKEND": "Null",  # Julia uses the Python that calls it
    }
