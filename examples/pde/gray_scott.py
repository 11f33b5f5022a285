"""Gray-Scott reaction and diffusion: spots that grow and divide.

    python examples/pde/gray_scott.py

u_t = D_u ∇²u - u v² + F (1 - u),  v_t = D_v ∇²v + u v² - (F + k) v  on a periodic square
(J. E. Pearson, Complex Patterns in a Simple System, Science 261, 1993; his D_u = 2e-5, D_v = 1e-5, side 2.5).
"""

import torch

import hybridsam_bridge as hsb
from hybridsam_bridge import pde


class GrayScott(hsb.VectorField):
    """Concentrations (2, n, n) of the feed u and of the catalyst v."""

    def __init__(self, n: int = 32, feed: float = 0.04, kill: float = 0.06, side: float = 1.0):
        super().__init__()
        self.grid = pde.Grid((n, n), upper=side, boundary="periodic")
        self.state_shape = (2, n, n)
        self.rates = torch.nn.Parameter(torch.tensor([feed, kill], dtype=torch.float64))  # per time
        self.diffusion = torch.nn.Parameter(torch.tensor([2e-5, 1e-5], dtype=torch.float64))  # area per time

    def forward(self, t, y, context=None):
        u, v = y
        feed, kill = self.rates
        made = u * v * v
        reaction = torch.stack([feed * (1 - u) - made, made - (feed + kill) * v])
        return reaction + self.diffusion[:, None, None] * pde.laplacian(y, self.grid)

    def initial(self) -> torch.Tensor:
        """u = 1, v = 0 but for a smooth bump (Pearson: a noisy square) of (1/2, 1/2) in the middle."""
        x, y = self.grid.mesh()
        middle = self.grid.upper[0] / 2
        bump = torch.exp(-(((x - middle) ** 2 + (y - middle) ** 2) / 0.02))
        return torch.stack([1 - 0.5 * bump, 0.5 * bump])


if __name__ == "__main__":
    field = GrayScott(n=16)
    with torch.no_grad():
        ts = torch.tensor([0.0, 100.0, 300.0], dtype=torch.float64)
        sol = hsb.solve(field, field.initial(), ts)
    for t, y in zip(ts.tolist(), sol.ys, strict=True):
        print(f"t = {t:5.0f}: catalyst, mean {y[1].mean().item():.6f}, largest {y[1].max().item():.6f}")
