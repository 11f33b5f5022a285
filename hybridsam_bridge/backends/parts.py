"""A plan's parts as the plain data that the Julia runtime registers."""

from __future__ import annotations

import hashlib
from typing import Any

from hybridsam_bridge.fields.plan import Plan, SourcePart, TorchPart
from hybridsam_bridge.lowering.program import Program, lower

# Outputs and inputs of an emitted function, in order (see lowering/program.py).
SIGNATURES = {
    "f": (("du",), ("u", "c", "p", "t")),
    "tgrad": (("dT",), ("u", "c", "p", "t")),
    "jac": (("J",), ("u", "c", "p", "t")),
    "vjpu": (("gu",), ("v", "u", "c", "p", "t")),
    "vjp": (("gu", "gc", "gp", "gt"), ("v", "u", "c", "p", "t")),
    "hvp": (("gu", "gc", "gp"), ("v", "d", "tau", "u", "c", "p", "t")),
}


def describe(plan: Plan) -> list[dict[str, Any]]:
    """Every part of ``plan``, torch parts traced and lowered on first use."""
    if "julia parts" not in plan.memo:
        plan.memo["julia parts"] = [
            _torch(part, plan) if isinstance(part, TorchPart) else _source(part, plan) for part in plan.parts
        ]
    return plan.memo["julia parts"]


def _torch(part: TorchPart, plan: Plan) -> dict[str, Any]:
    return of_program(lower(part, plan.n, plan.nc), sum(spec.size for spec in part.parameters))


def of_program(program: Program, size: int) -> dict[str, Any]:
    """A traced program of ``size`` parameters."""
    return {
        "kind": "program",
        "key": program.key,
        "source": program.source,
        "workspace": program.workspace,
        "time_dependent": program.time_dependent,
        "constants": program.constants,
        "size": size,
    }


def _source(part: SourcePart, plan: Plan) -> dict[str, Any]:
    described = {
        "kind": "source",
        "source": part.source,
        "filename": part.filename,
        "function": part.function,
        "names": [spec.name for spec in part.parameters],
        "shapes": [",".join(map(str, spec.shape)) for spec in part.parameters],
        "named": part.named,
        "takes_context": part.takes_context,
        "jacobian": part.jacobian,
        "paramjac": part.paramjac,
        "size": sum(spec.size for spec in part.parameters),
    }
    digest = hashlib.sha256(repr((plan.n, plan.nc, described)).encode()).hexdigest()
    return {**described, "key": f"source-{digest}", "gain": part.gain}
