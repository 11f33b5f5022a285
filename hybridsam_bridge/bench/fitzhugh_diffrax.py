"""W3 in diffrax: Tsit5 under vmap, compiled by XLA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from hybridsam_bridge.bench.fitzhugh import Result, Workload

MAX_STEPS = 256


def gradient(work: Workload, rtol: float) -> Callable[[], Result]:
    """A run of the workload's gradient. Raises ImportError where diffrax or jax is missing."""
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    n = work.y0.shape[-1]
    spacing = 2 / (n - 1)
    params = [jnp.array(p.detach().numpy()) for p in work.parameters()]
    y0, ts = jnp.array(work.y0.numpy()), jnp.array(work.ts.numpy())
    controller = diffrax.PIDController(rtol=rtol, atol=1e-2 * rtol)

    def laplacian(y: Any) -> Any:
        p = jnp.pad(y, ((0, 0), (1, 1), (1, 1)), mode="edge")
        around = p[:, 2:, 1:-1] + p[:, :-2, 1:-1] + p[:, 1:-1, 2:] + p[:, 1:-1, :-2]
        return (around - 4 * y) / spacing**2

    def field(t: Any, y: Any, p: Any) -> Any:
        diffusion, k, *layers = p
        u, v = y
        h = y[None]
        for i in range(0, len(layers), 2):
            h = jax.lax.conv(h, layers[i], (1, 1), "SAME") + layers[i + 1][:, None, None]
            h = jnp.tanh(h) if i + 2 < len(layers) else h
        return diffusion[:, None, None] * laplacian(y) + jnp.stack([u - u**3 - k - v, u - v]) + h[0]

    def one(y: Any, p: Any) -> Any:
        sol = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Tsit5(),
            ts[0],
            ts[-1],
            None,
            y,
            p,
            saveat=diffrax.SaveAt(ts=ts),
            stepsize_controller=controller,
            max_steps=MAX_STEPS,
        )
        return sol.ys

    def loss(params: Any, y0: Any) -> Any:
        ys = jax.vmap(one, (0, None))(y0, params)
        return (ys**2).mean(), ys

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))

    def run() -> Result:
        (grads, gy0), ys = jax.block_until_ready(compiled(params, y0))
        flat = np.concatenate([np.asarray(g).reshape(-1) for g in [*grads, gy0]])
        return Result(torch.tensor(np.asarray(ys)).transpose(0, 1), torch.tensor(flat))

    return run
