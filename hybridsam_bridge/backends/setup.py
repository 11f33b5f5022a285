"""``setup-julia``: install Julia and the dependencies by juliapkg, or record an installation that is there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hybridsam_bridge.backends import locate
from hybridsam_bridge.config import JuliaInstallation, record_julia
from hybridsam_bridge.errors import BackendUnavailable, InvalidInput

Report = Callable[[str], None]


def install(report: Report) -> JuliaInstallation:
    """Install Julia where none suits and the dependencies of juliapkg.json, precompile, and record it."""
    import juliapkg

    report("Resolving Julia and the packages of juliapkg.json (downloads on first use) ...")
    try:
        juliapkg.resolve()
        installation = JuliaInstallation(juliapkg.executable(), juliapkg.project())
    except Exception as error:  # juliapkg raises whatever its downloads raise
        raise BackendUnavailable(
            f"juliapkg could not install Julia: {error}. Without internet, record an existing installation: "
            "hybridsam-bridge setup-julia --julia EXE --project DIR."
        ) from error
    return _finish(installation, report)


def record(executable: str | Path, project: str | Path, report: Report) -> JuliaInstallation:
    """Check an existing Julia and its project, precompile, and record them for later processes."""
    exe, folder = Path(executable).expanduser(), Path(project).expanduser()
    if not (exe.is_file() and os.access(exe, os.X_OK)):
        raise InvalidInput(f"--julia: {exe} is not an executable file.")
    if not (folder / "Project.toml").is_file():
        raise InvalidInput(f"--project: {folder} has no Project.toml. Name the folder of a Julia environment.")
    return _finish(JuliaInstallation(str(exe.absolute()), str(folder.absolute())), report)


def precompile(located: locate.Located) -> None:
    """Load the package once in a process of its own (torch is loaded in this one), so that Julia compiles it.

    Raises:
        BackendUnavailable: it cannot be loaded with that installation.
    """
    script = Path(__file__).with_name("runtime.py")
    command = [sys.executable, str(script), "--check", str(locate.library())]
    environment = {**os.environ, **locate.environment(located, os.cpu_count() or 1)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        tail = "\n".join(result.stderr.strip().splitlines()[-15:])
        raise BackendUnavailable(
            f"The Julia package could not be loaded with this installation:\n{tail}\nThe project needs PythonCall and "
            "the packages of julia/Project.toml; `hybridsam-bridge setup-julia` without options installs them."
        )


def _finish(installation: JuliaInstallation, report: Report) -> JuliaInstallation:
    report(f"Julia: {installation.executable}, project: {installation.project}.")
    report("Loading and precompiling the solver (minutes the first time) ...")
    began = time.monotonic()
    precompile(locate.Located(installation.executable, installation.project, "by setup-julia"))
    path = record_julia(installation)
    report(f"Ready after {time.monotonic() - began:.0f} s; recorded in {path}.")
    return installation
