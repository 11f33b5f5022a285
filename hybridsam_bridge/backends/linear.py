"""How the Julia backend solves the linear systems of implicit steps: dense, sparse or Krylov, by size."""

from __future__ import annotations

from typing import Any

import numpy as np

from hybridsam_bridge import methods
from hybridsam_bridge.errors import UnsupportedOperation
from hybridsam_bridge.fields.plan import Entries, Plan, TorchPart
from hybridsam_bridge.lowering.sparsity import sparsity

# Measured on two-dimensional reaction-diffusion: from here on a sparse LU beats a dense one.
DENSE_UNKNOWNS = 128
# A Jacobian of more than this share of nonzeros is treated as dense: its factors fill up anyway.
DENSE_SHARE = 0.25
# Memory of a dense Jacobian and its factors: 0.8 GB a thread.
MAX_DENSE = 7_000
# Measured on problems in one to three dimensions: a sparse LU is the faster way as long as the rows of the reordered
# Jacobian are no wider than this many times their number of nonzeros. Beyond it the factors fill up.
NARROW = 2.0


def choose(plan: Plan, method: str, adjoint: str, asked: str) -> tuple[str, str]:
    """What to take for ``asked`` ("auto", "dense", "sparse" or "krylov"), and why if that was left open.

    Raises ``UnsupportedOperation`` where the method, the adjoint or the field does not go with it.
    """
    family = methods.lookup(method).family
    if family == "explicit":
        return "none", ""
    only_dense = ""
    if family not in ("rosenbrock", "sdirk"):
        only_dense = f"{method} takes dense Jacobians only; methods such as Rodas5P and KenCarp4 take sparse ones"
    elif adjoint in ("gauss", "forward"):
        only_dense = f'adjoint="{adjoint}" takes dense Jacobians only; "discrete" takes sparse ones'
    if asked in ("sparse", "krylov"):
        if only_dense:
            raise UnsupportedOperation(f'linear="{asked}": {only_dense}.')
        if entries(plan) is None:
            raise UnsupportedOperation(f'linear="{asked}": {_NO_PATTERN}')
        return asked, ""
    if asked == "dense" or plan.n <= DENSE_UNKNOWNS:
        return "dense", ""
    if only_dense:
        return _dense(plan, only_dense)
    found = entries(plan)
    if found is None:
        return _dense(plan, _NO_PATTERN)
    share = len(found[0]) / plan.n**2
    if share > DENSE_SHARE:
        return _dense(plan, f"{share:.0%} of the Jacobian's entries may be nonzero")
    if plan.mass is not None or width(plan, found) <= NARROW * len(found[0]) / plan.n:
        return "sparse", f"linear: sparse LU, {share:.2g} of the Jacobian's entries may be nonzero."
    return "krylov", "linear: GMRES with a multigrid cycle, since the Jacobian's factors would fill up."


_NO_PATTERN = "the sparsity of a Jacobian in Julia source is not known; pass sparsity=(rows, columns) to hsb.JuliaField"


def _dense(plan: Plan, why: str) -> tuple[str, str]:
    if plan.n > MAX_DENSE:
        gigabytes = 16e-9 * plan.n**2
        raise UnsupportedOperation(
            f"{plan.n} unknowns with dense Jacobians would take {gigabytes:.1f} GB a thread, and {why}. An explicit "
            'method (method="Tsit5") needs no Jacobian; linear="dense" insists.'
        )
    return "dense", f"linear: dense LU, since {why}."


def entries(plan: Plan) -> Entries | None:
    """Rows and columns of the nonzeros of the plan's Jacobian; None where a part's are not known."""
    if "jacobian entries" not in plan.memo:
        plan.memo["jacobian entries"] = _entries(plan)
    found: Entries | None = plan.memo["jacobian entries"]
    return found


def width(plan: Plan, found: Entries) -> float:
    """Mean over rows of how far entries are from the diagonal, in the reverse Cuthill-McKee order."""
    from scipy.sparse import csr_matrix  # here, since small problems need not wait for it
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    if "jacobian width" not in plan.memo:
        n = plan.n
        graph = csr_matrix((np.ones(len(found[0]), dtype=bool), found), (n, n))
        graph = (graph + graph.T).tocsr()
        place = np.empty(n, dtype=np.int64)
        place[reverse_cuthill_mckee(graph, symmetric_mode=True)] = np.arange(n)
        rows, columns = graph.nonzero()
        reach = np.zeros(n, dtype=np.int64)
        np.maximum.at(reach, rows, np.abs(place[rows] - place[columns]))
        plan.memo["jacobian width"] = float(reach.mean())
    out: float = plan.memo["jacobian width"]
    return out


def handed_over(samples: int, batch: int) -> dict[str, Any]:
    """What stats say where GMRES did not converge in some samples, which a sparse LU then solved; else nothing."""
    if samples == 0:
        return {}
    why = f'GMRES did not converge in {samples} of {batch} samples, a sparse LU took over: linear="sparse" is faster.'
    return {"linear": "krylov, sparse", "why": why}


def _entries(plan: Plan) -> Entries | None:
    rows, columns = [], []
    for part in plan.parts:
        if isinstance(part, TorchPart):
            found = sparsity(part, plan.n, plan.nc)
        elif part.sparsity is not None:
            found = (np.array(part.sparsity[0], dtype=np.int64), np.array(part.sparsity[1], dtype=np.int64))
        else:
            return None
        rows.append(found[0])
        columns.append(found[1])
    flat = np.unique(np.concatenate(rows) * plan.n + np.concatenate(columns))
    return flat // plan.n, flat % plan.n


def describe(plan: Plan, linear: str) -> dict[str, Any]:
    """What Julia is to know of the plan's matrices and jumps, as plain data."""
    empty = np.zeros(0, dtype=np.int64)
    found = entries(plan) if linear in ("sparse", "krylov") else None
    rows, columns, values = (empty, empty, np.zeros(0)) if plan.mass is None else plan.mass
    return {
        "linear": linear,
        "pattern": (empty, empty) if found is None else found,
        "mass": (rows, columns, values),
        "stops": plan.stops,
    }


def refuse_dae(plan: Plan, method: str, adjoint: str) -> None:
    """Mass matrices need a Rosenbrock method with an interpolant of its own, and its discrete adjoint."""
    if plan.mass is None:
        return
    if method not in WITH_MASS:
        raise UnsupportedOperation(f"mass_matrix: {method} does not take one here; use {', '.join(WITH_MASS)}.")
    if adjoint not in ("discrete", "none"):
        raise UnsupportedOperation(f'mass_matrix: adjoint="{adjoint}" does not take one; use adjoint="discrete".')


# Stiffly accurate, and with an interpolant that needs no slopes (a mass matrix may have none to give).
WITH_MASS = ("Rodas5P", "Rodas5Pe", "Rodas5", "Rodas4P", "Rodas4P2", "Rodas4", "Rodas42")
