"""Start-up and survival, each in a process of its own: import orders, no Julia, Ctrl-C, a killed worker."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import pytest

HERE = os.path.dirname(__file__)
PRELUDE = """
import torch, hybridsam_bridge as hsb
from problems import Robertson, f64
from hybridsam_bridge.backends import worker

def gradient(backend="julia", **options):
    y0 = f64(1, 0, 0).requires_grad_()
    sol = hsb.solve(Robertson(), y0, f64(0, 40), backend=backend, **options)
    return torch.autograd.grad(sol.ys[-1, 2], y0)[0]

def assert_right():
    # dy3/dy1(0) at t = 40, to the digits that the default tolerances give
    assert abs(gradient()[0].item() - 0.21552) < 1e-4
"""


def run(code: str, *, prelude: str = PRELUDE, check: bool = True, timeout: float = 250, **environment: str):
    """Run code in a fresh interpreter that finds the tests' modules; returns the completed process."""
    source = prelude + textwrap.dedent(code)
    env = {**os.environ, "PYTHONPATH": HERE, **environment}
    result = subprocess.run(
        [sys.executable, "-c", source], env=env, capture_output=True, text=True, timeout=timeout, check=False
    )
    if check:
        assert result.returncode == 0, result.stderr
    return result


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
def test_ctrl_c_interrupts_the_solve_and_python_lives_on():
    code = """
    import os, signal, threading, time
    first = gradient()
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    try:
        slow = hsb.JuliaField("f!(du, u, p, t) = (du[1] = cos(1e4 * t); nothing)", state_shape=(1,))
        hsb.solve(slow, f64(1.0), f64(0, 1e6), backend="julia", rtol=1e-9, max_steps=10**9)
    except KeyboardInterrupt:
        assert time.monotonic() - began < 8
    else:
        raise AssertionError("not interrupted")
    pid = worker.worker().process.pid
    assert torch.equal(gradient(), first)
    assert worker.worker().process.pid == pid, "the same worker goes on"
    """
    run(code)


@pytest.mark.julia
@pytest.mark.parametrize(
    ("method", "when"), [("send_bytes", "before"), ("send_bytes", "after"), ("recv_bytes", "before")]
)
def test_ctrl_c_amid_an_exchange_leaves_no_answer_behind(method, when):
    """Whether the request was already sent, or its answer there to be read: the next solve gets its own answer, from
    the same worker unless the interrupt came amid a message.
    """
    code = f"""
    import signal, time
    first = gradient()
    link = worker.worker()
    pid = link.process.pid

    class Interrupting:
        def __init__(self, connection): self.connection = connection
        def __getattr__(self, name): return getattr(self.connection, name)
        def {method}(self, *arguments):
            link.connection = self.connection  # once
            if {when!r} == "before":
                signal.raise_signal(signal.SIGINT)
            self.connection.{method}(*arguments)
            signal.raise_signal(signal.SIGINT)

    endless = hsb.JuliaField("f!(du, u, p, t) = (du[1] = cos(1e4 * t); nothing)", state_shape=(1,))
    hsb.solve(endless, f64(1.0), f64(0, 1), backend="julia")  # known to Julia: the solve is the next exchange
    limit = 1e6 if {method!r} == "send_bytes" else 1.0
    link.connection = Interrupting(link.connection)
    began = time.monotonic()
    try:
        hsb.solve(endless, f64(1.0), f64(0, limit), backend="julia", rtol=1e-9, max_steps=10**9)
    except KeyboardInterrupt:
        assert time.monotonic() - began < 8
    else:
        raise AssertionError("not interrupted")
    assert torch.equal(gradient(), first)
    if {method!r} == "send_bytes":
        assert worker.worker().process.pid == pid, "the same worker goes on"
    """
    run(code, timeout=120)


@pytest.mark.julia
def test_ctrl_c_while_julia_starts():
    code = """
    import os, signal, threading, time
    link = worker.worker()

    def press():
        while link.connection is None:  # before that, no answer can be left behind
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    try:
        gradient()
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("not interrupted")
    assert not link.running
    assert_right()
    """
    run(code, timeout=120)


@pytest.mark.julia
def test_worker_leaves_with_a_killed_parent_amid_a_solve():
    code = """
    import os, threading
    source = "f!(du, u, p, t) = (while t > 0.1; ccall(:jl_cpu_pause, Cvoid, ()); end; du[1] = 1.0; nothing)"
    field = hsb.JuliaField(source, state_shape=(1,))
    hsb.solve(field, f64(1.0), f64(0, 0.01), backend="julia")  # compiled
    print(worker.worker().process.pid, flush=True)
    threading.Timer(2.0, os.kill, (os.getpid(), 9)).start()
    hsb.solve(field, f64(1.0), f64(0, 1), backend="julia")
    """
    result = run(code, check=False, timeout=120)
    assert result.returncode == -9
    worker, until = int(result.stdout), time.monotonic() + 20  # it looks once a second
    while time.monotonic() < until:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.2)
    os.kill(worker, 9)
    raise AssertionError("the worker goes on without its parent")


@pytest.mark.julia
def test_endless_model_is_ended_after_the_time_limit():
    code = """
    worker.GRACE = 1.0
    gradient()
    source = "f!(du, u, p, t) = (while t > 0.1; sleep(0.001); end; du[1] = 1.0; nothing)"
    field = hsb.JuliaField(source, state_shape=(1,))
    try:
        hsb.solve(field, f64(1.0), f64(0, 1), backend="julia", time_limit=2.0)
    except hsb.BackendCrashed as error:
        assert "endless loop" in str(error)
    else:
        raise AssertionError("it never ends")
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


@pytest.mark.julia
def test_worker_ends_with_its_parent():
    code = """
    gradient()
    print(worker.worker().process.pid, flush=True)
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)
    """
    result = run(code, check=False)
    pid = int(result.stdout.split()[-1])
    import time

    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        with open(f"/proc/{pid}/stat") as file:
            if file.read().split()[2] == "Z":
                return
        time.sleep(0.1)
    raise AssertionError("the worker outlived its parent")
