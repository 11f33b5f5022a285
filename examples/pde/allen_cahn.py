"""Allen-Cahn equation u_t = ε² ∇²u + u - u³: two phases, ±1, part and coarsen.

python examples/pde/allen_cahn.py
"""

import torch

import hybridsam_bridge as hsb
from hybridsam_bridge import pde


class AllenCahn(hsb.VectorField):
    """Phase (n, n) on a box of side ``side`` without flux through its walls."""

    def __init__(self, n: int = 24, epsilon: float = 0.1, side: float = 2.0, order: int = 2):
        super().__init__()
        self.grid = pde.Grid((n, n), upper=side, boundary="neumann")
        self.state_shape = self.grid.shape
        self.epsilon = torch.nn.Parameter(torch.tensor(epsilon, dtype=torch.float64))  # width of interfaces, a length
        self.order = order

    def forward(self, t, y, context=None):
        return self.epsilon**2 * pde.laplacian(y, self.grid, self.order) + y - y * y * y

    def energy(self, y: torch.Tensor) -> torch.Tensor:
        """The free energy that the equation descends, ∫ ε²/2 |∇u|² + (u² - 1)²/4, of ``y`` (*batch, n, n)."""
        cell = self.grid.spacing[0] * self.grid.spacing[1]
        bent = -0.5 * self.epsilon**2 * (y * pde.laplacian(y, self.grid, self.order)).sum((-2, -1))
        return cell * (bent + 0.25 * ((y * y - 1) ** 2).sum((-2, -1)))


if __name__ == "__main__":
    field = AllenCahn()
    torch.manual_seed(0)
    y0 = 0.1 * torch.randn(field.state_shape, dtype=torch.float64)
    ts = torch.tensor([0.0, 1.0, 4.0, 16.0], dtype=torch.float64)
    with torch.no_grad():
        sol = hsb.solve(field, y0, ts)
        for t, e in zip(ts.tolist(), field.energy(sol.ys).tolist(), strict=True):
            print(f"t = {t:4.1f}: free energy {e:.6f}")
