"""One step of a method for a batch of rows, each with its own time and step size."""

from __future__ import annotations

from typing import Any

import torch

from hybridsam_bridge.backends.embedded.functions import Functions
from hybridsam_bridge.backends.embedded.tableaus import Tableau

Tensor = torch.Tensor


class Stepper:
    """Steps of ``tableau`` for the plan behind ``functions``. Stages are stored (stages, N, n)."""

    def __init__(self, tableau: Tableau, functions: Functions):
        self.tableau, self.functions = tableau, functions
        like: Any = {"dtype": torch.float64, "device": functions.device}
        # Row i: the weights of earlier stages in u_i and, for Rosenbrock methods, C_ij.
        rows = [[tableau.A[i], tableau.C[i]] if tableau.stiff else [tableau.A[i]] for i in range(tableau.stages)]
        self._mix = [torch.tensor(row, **like) for row in rows]
        self._end = torch.tensor([tableau.b, tableau.e], **like)
        # States u_i of all used stages at once: (used, used).
        dense = [[*row, *[0.0] * (tableau.used - len(row))] for row in tableau.A[: tableau.used]]
        self._states = torch.tensor(dense, **like)
        self._c = torch.tensor(tableau.c[: tableau.used], **like)
        # Evaluations of f and of its Jacobian in one attempt.
        self.costs = (tableau.stages, 1 if tableau.stiff else 0)

    def attempt(self, t: Tensor, u: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From u (N, n) at t (N,) by h (N,): the new state, its error estimate (N, n) and the stages."""
        ks = self.stages(t, u, h, c)
        ends = torch.mm(self._end, ks.view(len(ks), -1)).view(2, *u.shape)
        return u + ends[0], ends[1], ks

    def stages(self, t: Tensor, u: Tensor, h: Tensor, c: Tensor) -> Tensor:
        """The stages k_i (stages, N, n)."""
        return self._rosenbrock(t, u, h, c) if self.tableau.stiff else self._explicit(t, u, h, c)

    def _rosenbrock(self, t: Tensor, u: Tensor, h: Tensor, c: Tensor) -> Tensor:
        tab = self.tableau
        f, jac, dt = self.functions.rhs_jac(t, u, c)
        lu, pivots = factorise(tab.gamma, h, jac)
        inverse = (1 / h)[:, None]
        ks = u.new_empty(tab.stages, *u.shape)
        for i in range(tab.stages):
            if i:
                mix = torch.mm(self._mix[i], ks[:i].view(i, -1)).view(2, *u.shape)
                f = torch.addcmul(self._slope(i, t, u + mix[0], h, c), mix[1], inverse)
            if dt is not None and tab.d[i] != 0:
                right = f + (tab.d[i] * h)[:, None] * dt
            else:
                right = f
            ks[i] = torch.linalg.lu_solve(lu, pivots, right[:, :, None])[:, :, 0]
        return ks

    def _slope(self, i: int, t: Tensor, u: Tensor, h: Tensor, c: Tensor) -> Tensor:
        time = torch.add(t, h, alpha=self.tableau.c[i]) if self.functions.timed else t
        return self.functions.rhs(time, u, c)

    def _explicit(self, t: Tensor, u: Tensor, h: Tensor, c: Tensor) -> Tensor:
        ks = u.new_empty(self.tableau.stages, *u.shape)
        step = h[:, None]
        for i in range(self.tableau.stages):
            state = u if i == 0 else u + torch.mm(self._mix[i], ks[:i].view(i, -1)).view(u.shape)
            torch.mul(self._slope(i, t, state, h, c), step, out=ks[i])
        return ks

    def stage_points(self, t: Tensor, u: Tensor, h: Tensor, ks: Tensor) -> tuple[Tensor, Tensor]:
        """Times (used, N) and states (used, N, n) of the stages that the solution depends on."""
        used = self.tableau.used
        states = torch.mm(self._states, ks[:used].reshape(used, -1)).view(used, *u.shape) + u
        return t + self._c[:, None] * h, states


def factorise(gamma: float, h: Tensor, jac: Tensor) -> tuple[Tensor, Tensor]:
    """LU of E = 1/(γh) - J, rows of (N, n, n). A singular E gives non-finite solutions, not an exception."""
    matrix = -jac
    matrix.diagonal(dim1=-2, dim2=-1).add_((1 / (gamma * h))[:, None])
    lu, pivots, _ = torch.linalg.lu_factor_ex(matrix)
    return lu, pivots
