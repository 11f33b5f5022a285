"""Table of W4: the Brusselator on growing grids, forward and gradient, against SciPy's BDF."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.sparse import csr_matrix, eye_array, kron

from hybridsam_bridge.backends import worker
from hybridsam_bridge.bench.gradients import need_julia
from hybridsam_bridge.bench.tables import Table
from hybridsam_bridge.config import settings
from hybridsam_bridge.errors import HybridSAMError
from hybridsam_bridge.fields.base import VectorField
from hybridsam_bridge.pde import Grid, laplacian
from hybridsam_bridge.problem import Stats
from hybridsam_bridge.solve import solve

TITLE = "Brusselator with diffusion on a periodic square, n x n x 2 unknowns, to t = 1, rtol 1e-5"
COLUMNS = (
    "n",
    "unknowns",
    "steps",
    "linear",
    "forward s",
    "forward µs an unknown",
    "gradient s",
    "gradient µs an unknown",
    "peak MB",
    "kB an unknown",
    "tape MB",
    "SciPy BDF s",
    "y apart",
)
SIZES = (16, 32, 64, 128)
TIMES = (0.0, 0.25, 0.5, 1.0)
RTOL, ATOL = 1e-5, 1e-7
LIMIT = 300.0  # seconds that a size may be expected to take


class Brusselator(VectorField):
    """u_t = 1 + u²v - 4.4 u + α ∇²u, v_t = 3.4 u - u²v + α ∇²v (Hairer and Wanner, Solving Ordinary Differential
    Equations II, section IV.10, before the source is switched on).
    """

    def __init__(self, n: int):
        super().__init__()
        self.grid = Grid((n, n), boundary="periodic", points="nodes")
        self.state_shape = (2, n, n)
        self.reaction = torch.nn.Parameter(torch.tensor([1.0, 3.4], dtype=torch.float64))
        self.alpha = torch.nn.Parameter(torch.tensor(0.1, dtype=torch.float64))

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        u, v = y
        a, b = self.reaction
        made = u * u * v
        return torch.stack([a + made - (b + 1) * u, b * u - made]) + self.alpha * laplacian(y, self.grid)

    def initial(self) -> torch.Tensor:
        """u = 22 y (1 - y)^(3/2), v = 27 x (1 - x)^(3/2)."""
        x, y = self.grid.mesh()
        return torch.stack([22 * y * (1 - y) ** 1.5, 27 * x * (1 - x) ** 1.5])


def table(rounds: int) -> Table:
    """Sizes in turn, as long as the next one can be expected to end within ``LIMIT``."""
    need_julia("W4")
    out = Table("W4", TITLE, COLUMNS)
    spent: list[float] = []
    for n in SIZES:
        expected = spent[-1] * max(spent[-1] / spent[-2], 4.0) if len(spent) > 1 else 0.0
        if expected > LIMIT:
            out.notes.append(f"n = {n} is left out: it can be expected to take {expected:.0f} s.")
            break
        began = time.perf_counter()
        try:
            _size(out, n, rounds)
        except (HybridSAMError, MemoryError) as error:
            out.notes.append(f"n = {n} failed: {error}")
            break
        spent.append(time.perf_counter() - began)
    for column in ("forward µs an unknown", "gradient µs an unknown", "kB an unknown"):
        values = [row[COLUMNS.index(column)] for row in out.rows]
        if len(values) > 1 and values[0] is not None:
            out.figures[f"{column}, largest over smallest size"] = values[-1] / values[0]
    out.notes.append(
        "Peak MB is the growth of the worker's resident memory over its state before the size was begun; the tape's "
        f"limit is {settings().tape_memory / 2**20:.0f} MB, whatever the number of steps."
    )
    return out


def _size(out: Table, n: int, rounds: int) -> None:
    field, ts = Brusselator(n), torch.tensor(TIMES, dtype=torch.float64)
    initial = field.initial()
    unknowns = initial.numel()

    def forward() -> torch.Tensor:
        with torch.no_grad():
            return solve(field, initial, ts, rtol=RTOL, atol=ATOL, backend="julia").ys

    def gradient() -> Stats:
        field.zero_grad()
        y0 = initial.clone().requires_grad_(True)
        sol = solve(field, y0, ts, rtol=RTOL, atol=ATOL, backend="julia")
        sol.ys[-1].square().mean().backward()
        return sol.stats

    forward()  # starts the worker, traces and compiles
    resident = _reset_peak()
    ys = forward()
    stats = gradient()
    peak = _peak()
    grown = None if peak is None or resident is None else peak - resident
    forwards, gradients = [], []
    for _ in range(max(1, min(rounds, 3))):
        began = time.perf_counter()
        forward()
        forwards.append(time.perf_counter() - began)
        gradient()
        gradients.append(time.perf_counter() - began - forwards[-1])
    one, both = float(np.median(forwards)), float(np.median(gradients))
    seconds, theirs = on_scipy(field, initial, ts)
    out.add(
        n,
        unknowns,
        int(stats.steps),
        stats.linear,
        one,
        1e6 * one / unknowns,
        both,
        1e6 * both / unknowns,
        None if grown is None else grown / 2**20,
        None if grown is None else grown / 1024 / unknowns,
        stats.tape_bytes / 2**20,
        seconds,
        float((ys.reshape(len(ts), -1) - theirs).abs().max()),
    )


def on_scipy(field: Brusselator, initial: torch.Tensor, ts: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Seconds and outputs (T, 2 n n) of SciPy's BDF, the right-hand side in NumPy, with the same sparsity."""
    n = initial.shape[-1]
    a, b = field.reaction.tolist()
    alpha = field.alpha.item() * n * n

    def rhs(t: float, flat: np.ndarray) -> np.ndarray:
        y = flat.reshape(2, n, n)
        u, v = y
        spread = np.roll(y, 1, 1) + np.roll(y, -1, 1) + np.roll(y, 1, 2) + np.roll(y, -1, 2) - 4 * y
        made = u * u * v
        return (np.stack([a + made - (b + 1) * u, b * u - made]) + alpha * spread).reshape(-1)

    ring = csr_matrix(np.eye(n) + np.roll(np.eye(n), 1, 0) + np.roll(np.eye(n), -1, 0))
    stencil = kron(ring, eye_array(n)) + kron(eye_array(n), ring)
    pattern = kron(eye_array(2), stencil) + kron(np.ones((2, 2)), eye_array(n * n))
    began = time.perf_counter()
    sol = solve_ivp(
        rhs,
        (TIMES[0], TIMES[-1]),
        initial.numpy().reshape(-1),
        method="BDF",
        t_eval=ts.numpy(),
        rtol=RTOL,
        atol=ATOL,
        jac_sparsity=pattern,
    )
    return time.perf_counter() - began, torch.tensor(sol.y.T)


def _worker_file(name: str) -> Path | None:
    process = worker.worker().process
    path = Path(f"/proc/{process.pid if process else os.getpid()}/{name}")
    return path if path.exists() else None


def _reset_peak() -> int | None:
    """Start measuring the worker's peak anew; its resident bytes now. None where the system does not tell."""
    reset, status = _worker_file("clear_refs"), _worker_file("status")
    if reset is None or status is None:
        return None
    reset.write_text("5")
    return _field(status, "VmRSS")


def _peak() -> int | None:
    status = _worker_file("status")
    return None if status is None else _field(status, "VmHWM")


def _field(status: Path, name: str) -> int:
    line = next(x for x in status.read_text(encoding="utf-8").splitlines() if x.startswith(name))
    return 1024 * int(line.split()[1])
