"""What torch says about a case: f and all derivatives by plain autograd, nothing traced."""

from __future__ import annotations

import numpy as np
import torch
from lowering_cases import Case

from hybridsam_bridge.fields.plan import TorchPart

Arrays = dict[str, np.ndarray]
OUTPUTS = {
    "f!": ("du",),
    "jac!": ("J",),
    "tgrad!": ("dT",),
    "vjpu!": ("gu",),
    "vjp!": ("gu", "gc", "gp", "gt"),
    "hvp!": ("gu", "gc", "gp"),
    "jvp!": ("jd",),
}


def inputs(case: Case, seed: int = 0) -> Arrays:
    """Random inputs in the case's domain; cotangents and directions are standard normal."""
    rng = np.random.default_rng(seed)
    size = sum(int(np.prod(shape)) for shape in case.shapes)
    return {
        "u": rng.uniform(case.low, case.high, case.n),
        "c": rng.uniform(0.3, 1.2, case.nc),
        "p": rng.uniform(max(case.low, -0.9), min(case.high, 0.9), size),
        "t": np.array(0.7),
        "v": rng.standard_normal(case.n),
        "d": rng.standard_normal(case.n),
        "tau": np.array(0.4),
    }


def _grad(output: torch.Tensor, points: list[torch.Tensor], create: bool = False) -> list[torch.Tensor]:
    if not output.requires_grad:
        return [torch.zeros_like(x) for x in points]
    found = torch.autograd.grad(output, points, create_graph=create, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, points, strict=True)]


def expected(part: TorchPart, values: Arrays) -> dict[str, Arrays]:
    """The outputs of every function of the program, by function and output."""
    x = {k: torch.tensor(v, dtype=torch.float64, requires_grad=k in "tucp") for k, v in values.items()}
    params, start = [], 0
    for spec in part.parameters:
        params.append(x["p"][start : start + spec.size].view(spec.shape))
        start += spec.size
    f = part.fn(x["t"], x["u"], x["c"], params)
    points = [x["u"], x["c"], x["p"], x["t"]]
    gu, gc, gp, gt = _grad((f * x["v"]).sum(), points, create=True)
    rows = [_grad(f[i], points) for i in range(f.numel())]
    jacobian = torch.stack([r[0] for r in rows])
    slope = torch.stack([r[3] for r in rows])
    hu, hc, hp, _ = _grad((gu * x["d"]).sum() + gt * x["tau"], points)

    def plain(tensor: torch.Tensor) -> np.ndarray:
        return tensor.detach().numpy(force=True).copy()  # force: torch's zeros may have no memory

    return {
        "f!": {"du": plain(f)},
        "jac!": {"J": plain(jacobian)},
        "tgrad!": {"dT": plain(slope)},
        "vjpu!": {"gu": plain(gu)},
        "vjp!": {"gu": plain(gu), "gc": plain(gc), "gp": plain(gp), "gt": plain(gt).reshape(1)},
        "hvp!": {"gu": plain(hu), "gc": plain(hc), "gp": plain(hp)},
        "jvp!": {"jd": plain(jacobian @ x["d"])},
    }
