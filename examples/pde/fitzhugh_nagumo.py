"""FitzHugh-Nagumo reaction and diffusion, alone and with a convolutional network for what is missing.

    python examples/pde/fitzhugh_nagumo.py

u_t = a ∇²u + u - u³ - k - v,  v_t = b ∇²v + u - v  on -1..1 squared without flux through its walls
(the reaction-diffusion task of Yin et al., Augmenting Physical Models with Deep Networks, ICLR 2021).
"""

import torch

import hybridsam_bridge as hsb
from hybridsam_bridge import pde


class FitzHughNagumo(hsb.VectorField):
    """Activator and inhibitor (2, n, n), at points from -1 to 1 along both axes."""

    def __init__(self, n: int = 32, a: float = 1.5e-3, b: float = 5e-3, k: float = 5e-3, reacts: bool = True):
        super().__init__()
        half = 1 / (n - 1)  # the first and last points are the middles of their cells
        self.grid = pde.Grid((n, n), -1 - half, 1 + half, boundary="neumann")
        self.state_shape = (2, n, n)
        self.diffusion = torch.nn.Parameter(torch.tensor([a, b], dtype=torch.float64))  # area per time
        self.k = torch.nn.Parameter(torch.tensor(k, dtype=torch.float64))
        self.reacts = reacts  # without: the incomplete physics, diffusion alone

    def forward(self, t, y, context=None):
        spread = self.diffusion[:, None, None] * pde.laplacian(y, self.grid)
        if not self.reacts:
            return spread
        u, v = y
        return spread + torch.stack([u - u * u * u - self.k - v, u - v])


class ConvolutionalNet(torch.nn.Module):
    """What is missing, from a neighbourhood: 2-16-16-2 channels, 3x3, edges replicated."""

    def __init__(self, channels: int = 16):
        super().__init__()

        def conv(a: int, b: int) -> torch.nn.Conv2d:
            return torch.nn.Conv2d(a, b, 3, padding=1, padding_mode="replicate", dtype=torch.float64)

        self.layers = torch.nn.Sequential(
            conv(2, channels), torch.nn.ReLU(), conv(channels, channels), torch.nn.ReLU(), conv(channels, 2)
        )

    def forward(self, y):
        return self.layers(y)


if __name__ == "__main__":
    torch.manual_seed(0)
    field = FitzHughNagumo(n=8)
    y0 = torch.rand(field.state_shape, dtype=torch.float64)
    sol = hsb.solve(field, y0, torch.linspace(0, 1.5, 4, dtype=torch.float64), rtol=1e-4, atol=1e-6)
    for t, y in zip(sol.ts.tolist(), sol.ys, strict=True):
        print(f"t = {t:.1f}: mean u = {y[0].mean().item():.6f}, mean v = {y[1].mean().item():.6f}")
    hybrid = hsb.Additive(FitzHughNagumo(n=8, reacts=False), ConvolutionalNet())
    loss = (hsb.solve(hybrid, y0, sol.ts, rtol=1e-4, atol=1e-6).ys - sol.ys.detach()).square().mean()
    loss.backward()
    print(f"diffusion with an untrained network: mean square error {loss.item():.4f}")
