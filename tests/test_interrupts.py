"""Ctrl-C, a killed parent and time limits, each in a process of its own."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from fresh import run


def gone(pid: int) -> bool:
    """Whether the process ends within the time that a worker takes to see that its parent did."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.1)
    os.kill(pid, 9)
    return False


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
    assert gone(int(result.stdout))


@pytest.mark.julia
def test_worker_ends_with_its_parent():
    code = """
    gradient()
    print(worker.worker().process.pid, flush=True)
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)
    """
    assert gone(int(run(code, check=False).stdout.split()[-1]))


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
