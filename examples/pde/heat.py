"""Heat equation u_t = κ ∇²u on a square plate whose edges are held at given temperatures.

python examples/pde/heat.py
"""

import torch

import hybridsam_bridge as hsb
from hybridsam_bridge import pde


class Heat(hsb.VectorField):
    """Temperature (n, n) on the unit square. The edges x = 0 and x = 1 are held at ``edges``, the others at zero."""

    def __init__(self, n: int = 16, kappa: float = 0.1, edges: tuple[float, float] = (0.0, 0.0), order: int = 2):
        super().__init__()
        self.grid = pde.Grid((n, n), lower=0.0, upper=1.0, boundary="dirichlet")
        self.state_shape = self.grid.shape
        self.kappa = torch.nn.Parameter(torch.tensor(kappa, dtype=torch.float64))  # diffusivity, area per time
        self.edges = edges
        self.order = order

    def forward(self, t, y, context=None):
        return self.kappa * pde.laplacian(y, self.grid, self.order, values=(self.edges, 0.0))


if __name__ == "__main__":
    field = Heat(edges=(1.0, 0.0))
    y0 = torch.zeros(field.state_shape, dtype=torch.float64)
    sol = hsb.solve(field, y0, torch.tensor([0.0, 0.1, 1.0, 10.0], dtype=torch.float64), rtol=1e-6, atol=1e-8)
    for t, y in zip(sol.ts, sol.ys, strict=True):
        print(f"t = {t.item():5.1f}: mean temperature {y.mean().item():.6f}")
    sol.ys[1].mean().backward()
    print(f"d mean(t = 0.1) / d kappa = {field.kappa.grad.item():.6f}")
