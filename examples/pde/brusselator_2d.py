"""Brusselator with diffusion on a periodic square, pushed for a while in a disc.

    python examples/pde/brusselator_2d.py

u_t = 1 + u²v - 4.4 u + α ∇²u + f(x, y, t),  v_t = 3.4 u - u²v + α ∇²v,  f = 5 on the disc of radius 0.1 about
(0.3, 0.6) for t >= 1.1 (Hairer and Wanner, Solving Ordinary Differential Equations II, section IV.10, BRUSS-2D).
"""

import torch

import hybridsam_bridge as hsb
from hybridsam_bridge import pde


class Brusselator2D(hsb.VectorField):
    """Concentrations (2, n, n) of u and v on the unit square, on the lattice i/n, j/n."""

    def __init__(self, n: int = 16, alpha: float = 0.1, push: float = 5.0, start: float = 1.1):
        super().__init__()
        self.grid = pde.Grid((n, n), boundary="periodic", points="nodes")
        self.state_shape = (2, n, n)
        self.reaction = torch.nn.Parameter(torch.tensor([1.0, 3.4], dtype=torch.float64))
        self.alpha = torch.nn.Parameter(torch.tensor(alpha, dtype=torch.float64))  # diffusivity, area per time
        x, y = self.grid.mesh()
        self.register_buffer("disc", push * ((x - 0.3) ** 2 + (y - 0.6) ** 2 <= 0.1**2).double())
        self.start = start
        self.jumps = (start,)

    def forward(self, t, y, context=None):
        u, v = y
        a, b = self.reaction
        made = u * u * v
        on = torch.where(t >= self.start, 1.0, 0.0)
        reaction = torch.stack([a + made - (b + 1) * u + on * self.disc, b * u - made])
        return reaction + self.alpha * pde.laplacian(y, self.grid)

    def initial(self) -> torch.Tensor:
        """u = 22 y (1 - y)^(3/2), v = 27 x (1 - x)^(3/2)."""
        x, y = self.grid.mesh()
        return torch.stack([22 * y * (1 - y) ** 1.5, 27 * x * (1 - x) ** 1.5])


if __name__ == "__main__":
    field = Brusselator2D(n=8)
    with torch.no_grad():
        ts = torch.tensor([0.0, 1.1, 4.0, 11.5], dtype=torch.float64)
        sol = hsb.solve(field, field.initial(), ts)
    for t, y in zip(ts.tolist(), sol.ys, strict=True):
        print(f"t = {t:4.1f}: mean u = {y[0].mean().item():.6f}, mean v = {y[1].mean().item():.6f}")
