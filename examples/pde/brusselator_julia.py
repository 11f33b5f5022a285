"""The Brusselator of brusselator_1d.py in Julia source: how a stiff PDE that exists in Julia swaps in.

    python examples/pde/brusselator_julia.py

Needs Julia (hybridsam-bridge setup-julia). Solutions and gradients are those of the torch version.
"""

import math

import torch

import hybridsam_bridge as hsb

SOURCE = """
# u holds both species, one after the other: (2, n) in torch arrives flattened in row-major order.
function brusselator!(du, u, p, t)
    n = length(u) ÷ 2
    a, b = p.reaction
    c = p.alpha * (n + 1)^2
    for i in 1:n
        x, y = u[i], u[n + i]
        xl, yl = i == 1 ? (1.0, 3.0) : (u[i - 1], u[n + i - 1])
        xr, yr = i == n ? (1.0, 3.0) : (u[i + 1], u[n + i + 1])
        made = x^2 * y
        du[i] = a + made - (b + 1) * x + c * (xl - 2x + xr)
        du[n + i] = b * x - made + c * (yl - 2y + yr)
    end
    return nothing
end
"""


def brusselator(n: int = 40) -> hsb.JuliaField:
    """The field of concentrations (2, n), with parameters ``reaction`` (2,) and ``alpha``."""
    parameters = {
        "reaction": torch.tensor([1.0, 3.0], dtype=torch.float64),
        "alpha": torch.tensor(1 / 50, dtype=torch.float64),
    }
    return hsb.JuliaField(SOURCE, "brusselator!", (2, n), parameters)


def initial(n: int) -> torch.Tensor:
    """u = 1 + sin(2πx)/2, v = 3 at the n inner points."""
    x = torch.arange(1, n + 1, dtype=torch.float64) / (n + 1)
    return torch.stack([1 + 0.5 * torch.sin(2 * math.pi * x), torch.full_like(x, 3.0)])


if __name__ == "__main__":
    field = brusselator()
    ts = torch.tensor([0.0, 5.0, 10.0], dtype=torch.float64)
    sol = hsb.solve(field, initial(40), ts)
    sol.ys[-1, 0].mean().backward()
    print(f"t = 10: mean u = {sol.ys[-1, 0].mean().item():.6f}, d / d alpha = {field.alpha.grad.item():.6f}")
