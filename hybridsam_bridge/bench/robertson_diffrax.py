"""W1 and W2 in diffrax: Kvaerno5, under vmap for a batch, compiled by XLA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from hybridsam_bridge.bench.robertson import RATES, WEIGHTS, Result, RobertsonNet, Workload

MAX_STEPS = 4096


def gradient(work: Workload) -> Callable[[], Result]:
    """A run of the workload's gradient. Raises ImportError where diffrax or jax is missing."""
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    weights = jnp.array(WEIGHTS)
    params, y0 = (jnp.array(RATES), _layers(work, jnp)), jnp.array(work.y0)
    controller = diffrax.PIDController(rtol=work.rtol, atol=work.atol)
    saved = diffrax.SaveAt(ts=jnp.array(work.ts))

    def field(t: Any, y: Any, args: Any) -> Any:
        k, layers = args
        a, b, c = y
        dy = jnp.stack([-k[0] * a + k[2] * b * c, k[0] * a - k[1] * b * b - k[2] * b * c, k[1] * b * b])
        if not layers:
            return dy
        h = y * weights
        for i, (matrix, bias) in enumerate(layers):
            h = matrix @ h + bias
            h = jnp.tanh(h) if i + 1 < len(layers) else h
        return dy + 1e-3 * h / weights

    def loss(params: Any, y0: Any) -> Any:
        def one(y: Any) -> Any:
            sol = diffrax.diffeqsolve(
                diffrax.ODETerm(field),
                diffrax.Kvaerno5(),
                work.ts[0],
                work.ts[-1],
                None,
                y,
                params,
                saveat=saved,
                stepsize_controller=controller,
                max_steps=MAX_STEPS,
            )
            return (sol.ys * weights).sum()

        return one(y0) if work.y0.ndim == 1 else jax.vmap(one)(y0).sum()

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1)))

    def run() -> Result:
        (gk, _), gy0 = jax.block_until_ready(compiled(params, y0))
        return {"k": np.asarray(gk), "y0": np.asarray(gy0)}

    return run


def _layers(work: Workload, jnp: Any) -> list[Any]:
    if not isinstance(work.model, RobertsonNet):
        return []
    linears = [m for m in work.model.net if isinstance(m, nn.Linear)]
    return [(jnp.array(m.weight.detach().numpy()), jnp.array(m.bias.detach().numpy())) for m in linears]
