"""Embedded torch backend against diffrax (Kvaerno5 under vmap) and the SciPy backend, in one run.

Two workloads, gradients by ``loss.backward()``, float64:

W1: Robertson's reaction, 40 log-spaced times 1e-5..1e5, gradient for the rates and the initial states of a
    weighted sum of all outputs, rtol 1e-6, atol 1e-10, as one sample and as a batch of 256.
W2: a batch of 32 of Robertson plus 1e-3 times a 3-64-64-3 tanh network, 20 log-spaced times 1e-3..1e2,
    rtol 1e-6, atol 1e-9.

Ratios of times in one run count; absolute times do not carry over to other machines. On two cores, busy with
other work, torch on one thread: W2 diffrax / torch 3.4 to 3.8, scipy / torch above 100; W1 x 256 diffrax / torch
1.9 to 10; a single W1 0.3 to 0.6 (one sample has nothing to share its overhead with). Usage:
``python benchmarks/embedded.py [--quick] [--threads N]``.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

import hybridsam_bridge as hsb

RATES = (0.04, 3e7, 1e4)
WEIGHTS = (1.0, 1e4, 1.0)
SCIPY_SAMPLES = 1


class Robertson(hsb.VectorField):
    state_shape = (3,)

    def __init__(self, network: bool) -> None:
        super().__init__()
        self.k = torch.nn.Parameter(torch.tensor(RATES, dtype=torch.float64))
        torch.manual_seed(0)
        linear, tanh = torch.nn.Linear, torch.nn.Tanh
        layers = [linear(3, 64), tanh(), linear(64, 64), tanh(), linear(64, 3)]
        self.net = torch.nn.Sequential(*layers).double() if network else None
        self.register_buffer("scale", torch.tensor(WEIGHTS, dtype=torch.float64))

    def forward(self, t, y, context=None):
        a, b, c = y
        k1, k2, k3 = self.k
        first, last = k1 * a - k3 * b * c, k2 * b * b
        dy = torch.stack([-first, first - last, last])
        return dy if self.net is None else dy + 1e-3 * self.net(y * self.scale) / self.scale


class Work:
    """One workload: its field, initial states (B, 3), times, tolerances."""

    def __init__(self, name: str, network: bool, size: int, ts: np.ndarray, atol: float):
        self.name, self.network, self.size, self.ts, self.atol = name, network, size, ts, atol
        self.rtol = 1e-6
        self.field = Robertson(network)
        self.y0 = np.tile([1.0, 0.0, 0.0], (size, 1))
        self.y0[:, 2] = np.linspace(0, 0.1, size)

    def torch_gradient(self, backend: str, method: str, size: int) -> Callable[[], tuple[float, np.ndarray]]:
        ts, weights = torch.tensor(self.ts), torch.tensor(WEIGHTS, dtype=torch.float64)

        def run() -> tuple[float, np.ndarray]:
            y0 = torch.tensor(self.y0[:size], requires_grad=True)
            self.field.zero_grad()
            sol = hsb.solve(self.field, y0, ts, method=method, rtol=self.rtol, atol=self.atol, backend=backend)
            loss = (sol.ys[:, 1:] * weights).sum()
            loss.backward()
            return loss.item(), self.field.k.grad.numpy().copy()

        return run

    def diffrax_gradient(self) -> Callable[[], tuple[float, np.ndarray]]:
        import diffrax
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_enable_x64", True)
        scale = jnp.array(WEIGHTS)
        params: dict = {"k": jnp.array(RATES)}
        if self.field.net is not None:
            linears = [layer for layer in self.field.net if isinstance(layer, torch.nn.Linear)]
            params["net"] = [
                (jnp.array(x.weight.detach().numpy()), jnp.array(x.bias.detach().numpy())) for x in linears
            ]

        def f(t, y, p):
            first, last = p["k"][0] * y[0] - p["k"][2] * y[1] * y[2], p["k"][1] * y[1] * y[1]
            dy = jnp.stack([-first, first - last, last])
            if "net" not in p:
                return dy
            z = y * scale
            for i, (w, b) in enumerate(p["net"]):
                z = w @ z + b
                z = jnp.tanh(z) if i + 1 < len(p["net"]) else z
            return dy + 1e-3 * z / scale

        controller = diffrax.PIDController(rtol=self.rtol, atol=self.atol)
        times = jnp.array(self.ts[1:])

        def one(y0, p):
            sol = diffrax.diffeqsolve(
                diffrax.ODETerm(f),
                diffrax.Kvaerno5(),
                float(self.ts[0]),
                float(self.ts[-1]),
                None,
                y0,
                p,
                saveat=diffrax.SaveAt(ts=times),
                stepsize_controller=controller,
                max_steps=4096,
            )
            return (sol.ys * scale).sum()

        def loss(y0, p):
            return jax.vmap(lambda y: one(y, p))(y0).sum()

        gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
        y0 = jnp.array(self.y0)

        def run() -> tuple[float, np.ndarray]:
            value, (_, dp) = gradient(y0, params)
            return float(value), np.asarray(dp["k"])

        return run


def measure(run: Callable[[], tuple[float, np.ndarray]], repeats: int) -> tuple[float, float, tuple[float, np.ndarray]]:
    """Seconds of the first call, median seconds of later ones, and the result."""
    start = time.perf_counter()
    result = run()
    first = time.perf_counter() - start
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return first, statistics.median(times), result


def compare(work: Work, repeats: int) -> None:
    tools: dict[str, Callable[[], tuple[float, np.ndarray]]] = {
        "torch": work.torch_gradient("torch", "Rodas5P", work.size)
    }
    if importlib.util.find_spec("diffrax"):
        tools["diffrax Kvaerno5"] = work.diffrax_gradient()
    print(f"{work.name}: batch {work.size}, {len(work.ts) - 1} outputs")
    base, reference = 0.0, np.zeros(3)
    for name, run in tools.items():
        first, steady, (value, dk) = measure(run, repeats)
        if name == "torch":
            base, reference = steady, dk
        gap = np.abs(dk / reference - 1).max()
        print(
            f"  {name:18} first {first:7.2f} s   steady {1e3 * steady:9.1f} ms   {steady / base:6.2f} x torch"
            f"   loss {value:.6f}   dk apart {gap:.1e}",
            flush=True,
        )
    part = min(work.size, SCIPY_SAMPLES)
    first, steady, _ = measure(work.torch_gradient("scipy", "auto", part), 1)
    steady *= work.size / part
    print(
        f"  {'scipy':18} first {first:7.2f} s   steady {1e3 * steady:9.1f} ms   {steady / base:6.2f} x torch"
        f"   (timed on {part} of {work.size} samples, which it solves one by one)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small batches, one repeat")
    parser.add_argument("--threads", type=int, default=1, help="torch threads; the tensors are small")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    w1 = np.concatenate([[0.0], np.logspace(-5, 5, 40)])
    w2 = np.concatenate([[0.0], np.logspace(-3, 2, 20)])
    works = [Work("W1", False, 1, w1, 1e-10), Work("W2", True, 4 if options.quick else 32, w2, 1e-9)]
    if not options.quick:
        works.insert(1, Work("W1 x 256", False, 256, w1, 1e-10))
    for work in works:
        compare(work, 1 if options.quick else 7)


if __name__ == "__main__":
    main()
