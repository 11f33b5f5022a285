"""Viscous Burgers equation u_t + (u²/2)_x = ν u_xx, conservative, with a travelling front as exact solution.

python examples/pde/burgers.py
"""

import torch

import hybridsam_bridge as hsb
from hybridsam_bridge import pde


class Burgers(hsb.VectorField):
    """Velocity (n,) on -1..1, held at the values ``ends`` (left, right), or periodic if they are None."""

    def __init__(self, n: int = 100, nu: float = 0.05, ends: tuple[float, float] | None = (1.0, 0.0), order: int = 2):
        super().__init__()
        self.grid = pde.Grid(n, -1.0, 1.0, boundary="periodic" if ends is None else "dirichlet")
        self.state_shape = self.grid.shape
        self.nu = torch.nn.Parameter(torch.tensor(nu, dtype=torch.float64))  # viscosity, area per time
        self.ends = ends
        self.order = order

    def forward(self, t, y, context=None):
        carried = pde.transport(y, lambda u: 0.5 * u * u, self.grid, self.order, values=self.ends, speed=torch.abs)
        return carried + self.nu * pde.laplacian(y, self.grid, values=self.ends)


def front(x: torch.Tensor, t: float, nu: float) -> torch.Tensor:
    """The front between 1 on the left and 0 on the right, which moves at speed 1/2: an exact solution on the line."""
    return 0.5 * (1 - torch.tanh((x - 0.5 * t) / (4 * nu)))


if __name__ == "__main__":
    field = Burgers()
    nu = field.nu.item()
    x = field.grid.coordinates() + 0.4  # starts at -0.4
    ts = torch.tensor([0.0, 0.4, 0.8], dtype=torch.float64)
    sol = hsb.solve(field, front(x, 0.0, nu), ts, rtol=1e-7, atol=1e-9)
    for t, y in zip(ts.tolist(), sol.ys.detach(), strict=True):
        print(f"t = {t:.1f}: largest error {(y - front(x, t, nu)).abs().max().item():.1e}")
