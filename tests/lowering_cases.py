"""Right-hand sides for the lowering's tests: every operator of the registry alone, and models made of them."""

from __future__ import annotations

from lowering_arrays import products, rearranging, reductions
from lowering_case import Case
from lowering_elementwise import activations, binary, unary
from lowering_mixed import mixed
from lowering_models import composites, convolutions, modules

__all__ = ["CASES", "GROUPS", "Case"]

GROUPS: dict[str, list[Case]] = {
    "unary": unary(),
    "activations": activations(),
    "binary": binary(),
    "rearranging": rearranging(),
    "reductions": reductions(),
    "products": products(),
    "convolutions": convolutions(),
    "modules": modules(),
    "composites": composites(),
    "mixed": mixed(),
}
CASES = [case for group in GROUPS.values() for case in group]
