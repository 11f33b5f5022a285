"""Brusselator with diffusion in one dimension, the stiff test problem of Hairer and Wanner.

    python examples/pde/brusselator_1d.py

u_t = a + u²v - (b + 1) u + α u_xx,  v_t = b u - u²v + α v_xx  on 0 < x < 1 with u = 1, v = 3 at the ends
(Solving Ordinary Differential Equations II, section IV.10, BRUSS; there N = 500, 0 <= t <= 10). The book starts from
u = 1 + sin 2πx, the published end point from u = 1 + sin(2πx)/2, as here.
"""

import math

import torch

import hybridsam_bridge as hsb
from hybridsam_bridge import pde


class Brusselator1D(hsb.VectorField):
    """Concentrations (2, n) of u and v at the n inner points of a lattice; they are a and b/a at its ends."""

    def __init__(self, n: int = 500, a: float = 1.0, b: float = 3.0, alpha: float = 1 / 50):
        super().__init__()
        self.grid = pde.Grid(n, boundary="dirichlet", points="nodes")
        self.state_shape = (2, n)
        self.reaction = torch.nn.Parameter(torch.tensor([a, b], dtype=torch.float64))
        self.alpha = torch.nn.Parameter(torch.tensor(alpha, dtype=torch.float64))  # diffusivity, area per time
        self.register_buffer("ends", torch.tensor([a, b / a], dtype=torch.float64))

    def forward(self, t, y, context=None):
        u, v = y
        a, b = self.reaction
        made = u * u * v
        reaction = torch.stack([a + made - (b + 1) * u, b * u - made])
        return reaction + self.alpha * pde.laplacian(y, self.grid, values=self.ends)

    def initial(self) -> torch.Tensor:
        """u = 1 + sin(2πx)/2, v = 3."""
        x = self.grid.coordinates()
        return torch.stack([1 + 0.5 * torch.sin(2 * math.pi * x), torch.full_like(x, 3.0)])


if __name__ == "__main__":
    field = Brusselator1D(n=40)
    with torch.no_grad():
        ts = torch.tensor([0.0, 2.5, 5.0, 7.5, 10.0], dtype=torch.float64)
        sol = hsb.solve(field, field.initial(), ts)
    for t, y in zip(ts.tolist(), sol.ys, strict=True):
        print(f"t = {t:4.1f}: in the middle u = {y[0, 20].item():.6f}, v = {y[1, 20].item():.6f}")
