"""Start-up and survival, each in a process of its own: import orders, no Julia, a killed worker, freed tapes."""

from __future__ import annotations

import sys

import pytest
from fresh import PRELUDE, run


@pytest.fixture
def no_julia(tmp_path):
    """Environment in which nothing was set up."""
    return {"HYBRIDSAM_CONFIG_DIR": str(tmp_path), "PYTHON_JULIACALL_EXE": "", "PYTHON_JULIACALL_PROJECT": ""}


def test_import_starts_nothing():
    code = """
    import sys, threading, multiprocessing, hybridsam_bridge
    assert "juliacall" not in sys.modules and "juliapkg" not in sys.modules
    assert threading.active_count() == 1 and not multiprocessing.active_children()
    from hybridsam_bridge.backends import worker
    assert worker._worker is None
    """
    run(code, prelude="")


def test_without_julia(no_julia):
    code = """
    try:
        gradient()
    except hsb.BackendUnavailable as error:
        assert "setup-julia" in str(error), error
    else:
        raise AssertionError("julia is not there")
    sol = hsb.solve(Robertson(), f64(1, 0, 0), f64(0, 40))
    assert sol.stats.backend in ("torch", "scipy") and "Julia" in sol.stats.why, sol.stats.why
    """
    run(code, **no_julia)


def test_without_juliacall(no_julia):
    code = """
    import sys, importlib.util
    find = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if name == "juliacall" else find(name, *rest)
    try:
        gradient()
    except hsb.BackendUnavailable as error:
        assert "juliacall is not installed" in str(error), error
    else:
        raise AssertionError("juliacall is not there")
    """
    run(code, **no_julia)


def test_recorded_julia_that_is_gone(tmp_path, no_julia):
    (tmp_path / "julia.toml").write_text('executable = "/nowhere/julia"\nproject = "/nowhere"\n')
    code = """
    try:
        gradient()
    except hsb.BackendUnavailable as error:
        assert "/nowhere/julia" in str(error) and "setup-julia" in str(error), error
    else:
        raise AssertionError("that julia is not there")
    """
    run(code, **no_julia)


def test_record_refuses_what_is_not_there(tmp_path, no_julia):
    code = f"""
    from hybridsam_bridge.backends import setup
    for exe, project, word in (("/nowhere/julia", "/", "--julia"), ({sys.executable!r}, "/nowhere", "--project")):
        try:
            setup.record(exe, project, print)
        except hsb.InvalidInput as error:
            assert word in str(error)
        else:
            raise AssertionError(word)
    from hybridsam_bridge import config
    assert config.recorded_julia() is None
    """
    run(code, **no_julia)


@pytest.mark.julia
def test_torch_first():
    run("import sys; assert 'torch' in sys.modules; assert_right()")


@pytest.mark.julia
def test_inline_refuses_torch_first():
    code = """
    hsb.configure(runtime="inline")
    try:
        gradient()
    except hsb.BackendUnavailable as error:
        assert "import juliacall" in str(error) and "worker" in str(error)
    else:
        raise AssertionError("torch was imported first")
    """
    run(code)


@pytest.mark.julia
def test_inline_equals_worker():
    from hybridsam_bridge.backends import locate

    code = """
    hsb.configure(runtime="inline")
    a = gradient()
    hsb.configure(runtime="worker")
    assert torch.equal(a, gradient())
    """
    environment = locate.environment(locate.find(), 1) | {"PYTHON_JULIACALL_HANDLE_SIGNALS": "no"}
    run(code, prelude="import juliacall\n" + PRELUDE, **environment)


@pytest.mark.julia
def test_killed_worker_is_restarted_and_the_solve_retried():
    code = """
    import os, signal
    first = gradient()
    old = worker.worker().process.pid
    os.kill(old, signal.SIGKILL)
    assert torch.equal(gradient(), first)
    assert worker.worker().process.pid != old
    # between forward and backward the tape dies with the worker: said, not guessed
    y0 = f64(1, 0, 0).requires_grad_()
    sol = hsb.solve(Robertson(), y0, f64(0, 40), backend="julia")
    os.kill(worker.worker().process.pid, signal.SIGKILL)
    try:
        sol.ys.sum().backward()
    except hsb.BackendCrashed as error:
        assert "forward pass again" in str(error)
    else:
        raise AssertionError("the tape is gone")
    assert torch.equal(gradient(), first)
    """
    run(code)


@pytest.mark.julia
def test_model_that_kills_julia_twice():
    code = """
    field = hsb.JuliaField("f!(du, u, p, t) = ccall(:abort, Cvoid, ())", state_shape=(1,))
    try:
        hsb.solve(field, f64(1.0), f64(0, 1), backend="julia")
    except hsb.BackendCrashed as error:
        assert "twice" in str(error)
    else:
        raise AssertionError("it aborts")
    assert_right()
    """
    run(code)


@pytest.mark.julia
def test_data_loader_workers_and_threads():
    """Forked loaders do not disturb the parent's worker, a loader may solve by itself, and so may threads."""
    code = """
    from concurrent.futures import ThreadPoolExecutor
    from torch.utils.data import DataLoader, Dataset

    class Data(Dataset):
        def __len__(self): return 4
        def __getitem__(self, i): return f64(1, 0, 0)

    class Solving(Data):
        def __getitem__(self, i):
            with torch.no_grad():
                return hsb.solve(Robertson(), f64(1, 0, 0), f64(0, 1), backend="julia").ys[-1]

    first = gradient()
    pid = worker.worker().process.pid
    assert len(list(DataLoader(Data(), batch_size=2, num_workers=2))) == 2
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(g, first) for g in pool.map(lambda _: gradient(), range(8)))
    rows = torch.cat(list(DataLoader(Solving(), batch_size=2, num_workers=1)))
    assert rows.shape == (4, 3)
    assert torch.equal(gradient(), first) and worker.worker().process.pid == pid
    """
    run(code)


@pytest.mark.julia
def test_tapes_are_freed_without_backward():
    code = """
    import gc
    from hybridsam_bridge.backends import julia_backend
    y0 = f64(1, 0, 0).requires_grad_()
    for _ in range(20):
        sol = hsb.solve(Robertson(), y0, f64(0, 40), backend="julia")
    assert julia_backend._live_bytes == sol.stats.tape_bytes > 0
    del sol
    gc.collect()
    assert julia_backend._live_bytes == 0
    """
    run(code)
