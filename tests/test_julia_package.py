"""The Julia package's own tests (julia/test/runtests.jl) run in Julia."""

from __future__ import annotations

import subprocess

import pytest

from hybridsam_bridge.backends import locate


@pytest.mark.julia
def test_julia_package():
    located = locate.find()
    folder = locate.library()
    code = f'push!(LOAD_PATH, "{folder}"); include("{folder / "test" / "runtests.jl"}")'
    command = [located.executable, f"--project={located.project}", "--startup-file=no", "-e", code]
    result = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Test Summary" in result.stdout
