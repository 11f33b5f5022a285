"""Tests marked ``julia`` run where Julia is ready and are skipped, with the reason, elsewhere."""

from __future__ import annotations

import pytest
import torch

from hybridsam_bridge import backends
from hybridsam_bridge.backends import locate, setup

torch.set_num_threads(1)  # small tensors: threads only contend with the solver's


def pytest_collection_modifyitems(items):
    state = backends.get("julia").availability()
    if state.ready:
        return
    skip = pytest.mark.skip(reason=f"Julia is not ready: {state.why}")
    for item in items:
        if item.get_closest_marker("julia"):
            item.add_marker(skip)


def pytest_collection_finish(session):
    """Compile the Julia package before the first test that needs it: in a fresh clone that takes minutes, which are
    no test's own."""
    located = locate.find()
    if session.config.option.collectonly or locate.problem(located) or located is None:
        return
    if any(item.get_closest_marker("julia") for item in session.items):
        setup.precompile(located)


def pytest_terminal_summary(terminalreporter):
    state = backends.get("julia").availability()
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if "Julia is not ready" in str(r.longrepr)]
    if state.ready:
        terminalreporter.write_line(f"Julia is ready ({state.why}): its tests ran.")
    else:
        terminalreporter.write_line(f"Julia is not ready ({state.why}): {len(skipped)} of its tests were skipped.")
