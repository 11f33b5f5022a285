"""Test problems with published end points and gradients, as fields.

End points: Mazzia and Magherini, Test Set for Initial Value Problem Solvers (ROBER, HIRES, OREGO, VDPOL), and
Hairer and Wanner, Solving Ordinary Differential Equations II; ROBER's gradients from high-precision runs of
several codes. Every digit given is right.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

import hybridsam_bridge as hsb


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Robertson(hsb.VectorField):
    """Robertson's autocatalytic reaction; a, b, c sum to one for ever."""

    state_shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.k = torch.nn.Parameter(f64(0.04, 3e7, 1e4))

    def forward(self, t, y, context=None):
        a, b, c = y
        k1, k2, k3 = self.k
        first, last = k1 * a - k3 * b * c, k2 * b * b
        return torch.stack([-first, first - last, last])


class RobertsonIntegral(Robertson):
    """Robertson's reaction, and the integral of c as a fourth state."""

    state_shape = (4,)

    def forward(self, t, y, context=None):
        return torch.cat([super().forward(t, y[:3]), y[2:3]])


class HybridRobertson(Robertson):
    """W2 of the benchmarks: Robertson plus 1e-3 of a scaled network."""

    def __init__(self, width: int = 64, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(3, width),
            torch.nn.Tanh(),
            torch.nn.Linear(width, width),
            torch.nn.Tanh(),
            torch.nn.Linear(width, 3),
        ).double()
        self.register_buffer("into", f64(1, 1e4, 1))
        self.register_buffer("out", f64(1, 1e-4, 1))

    def forward(self, t, y, context=None):
        return super().forward(t, y) + 1e-3 * self.out * self.net(y * self.into)


class Hires(hsb.VectorField):
    """HIRES: how light shapes the growth of plants, eight reactants."""

    state_shape = (8,)

    def __init__(self) -> None:
        super().__init__()
        self.k = torch.nn.Parameter(f64(1.71, 0.43, 8.32, 280.0))

    def forward(self, t, y, context=None):
        a, b, c, d = self.k
        y1, y2, y3, y4, y5, y6, y7, y8 = y
        bound = d * y6 * y8 - 1.81 * y7
        return torch.stack(
            [
                -a * y1 + b * y2 + c * y3 + 0.0007,
                a * y1 - 8.75 * y2,
                -10.03 * y3 + b * y4 + 0.035 * y5,
                c * y2 + a * y3 - 1.12 * y4,
                -1.745 * y5 + b * y6 + b * y7,
                -d * y6 * y8 + 0.69 * y4 + a * y5 - b * y6 + 0.69 * y7,
                bound,
                -bound,
            ]
        )


class Oregonator(hsb.VectorField):
    """OREGO: the Belousov-Zhabotinsky reaction."""

    state_shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.k = torch.nn.Parameter(f64(77.27, 8.375e-6, 0.161))

    def forward(self, t, y, context=None):
        a, b, c = y
        s, q, w = self.k
        return torch.stack([s * (b + a * (1 - q * a - b)), (c - (1 + a) * b) / s, w * (a - c)])


class VanDerPol(hsb.VectorField):
    """Van der Pol's oscillator in the stiff scaling, eps = 1e-6."""

    state_shape = (2,)

    def __init__(self) -> None:
        super().__init__()
        self.eps = torch.nn.Parameter(f64(1e-6))

    def forward(self, t, y, context=None):
        return torch.stack([y[1], ((1 - y[0] ** 2) * y[1] - y[0]) / self.eps[0]])


class Relaxation(hsb.VectorField):
    """Two states pulled at rates of the context towards a moving target, with a small network: cheap, mildly
    stiff, with explicit time, a context and weights."""

    state_shape = (2,)

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
        self.rate = torch.nn.Parameter(f64(20.0))

    def forward(self, t, y, context=None):
        pull = self.rate * context * (torch.cos(2 * t) - y)
        return pull + y.flip(0) * y + self.net(torch.cat([y, t.reshape(1)]))


class Decay(hsb.VectorField):
    """y' = -c y with the rate from the context: everything about it is known in closed form."""

    state_shape = (1,)

    def forward(self, t, y, context=None):
        return -context * y


class Explosion(hsb.VectorField):
    """y' = a y², which blows up at t = 1/(a y0)."""

    state_shape = (1,)

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(f64(1.0))

    def forward(self, t, y, context=None):
        return self.a * y**2


class RunsOut(hsb.VectorField):
    """y' = sqrt(1 - t) has no value after t = 1."""

    state_shape = (1,)

    def forward(self, t, y, context=None):
        return torch.sqrt(1 - t) + 0 * y


class Ring(hsb.VectorField):
    """n cells in a ring that exchange, react and follow a weight each."""

    def __init__(self, n):
        super().__init__()
        self.state_shape = (n,)
        self.w = torch.nn.Parameter(torch.linspace(0.5, 1.5, n, dtype=torch.float64))

    def forward(self, t, y, context=None):
        flow = 50 * (y.roll(1) + y.roll(-1) - 2 * y)
        return flow + self.w * y * (1 - y) * torch.cos(t)


@dataclass
class EndPoint:
    """A published end point, and the atol that goes with rtol 1e-9."""

    name: str
    make: type[hsb.VectorField]
    y0: torch.Tensor
    t_end: float
    y_end: torch.Tensor
    atol: torch.Tensor | float


_ROBER = f64(1, 0, 0)
_HIRES = f64(1, 0, 0, 0, 0, 0, 0, 0.0057)
# atol is a fraction of the smallest size that a component passes through, so that rtol rules throughout.
END_POINTS = [
    EndPoint(
        "rober-40",
        Robertson,
        _ROBER,
        40,
        f64(0.7158270687194, 9.185534764558e-6, 0.2841637457458),
        f64(1e-12, 1e-16, 1e-12),
    ),
    EndPoint(
        "rober-1e5",
        Robertson,
        _ROBER,
        1e5,
        f64(0.0178659211421, 7.27475146844e-8, 0.98213400611),
        f64(1e-12, 1e-17, 1e-12),
    ),
    EndPoint(
        "rober-1e11",
        Robertson,
        _ROBER,
        1e11,
        f64(0.2083340149701255e-7, 0.8333360770334713e-13, 0.9999999791665050),
        f64(1e-17, 1e-22, 1e-12),
    ),
    EndPoint(
        "hires",
        Hires,
        _HIRES,
        321.8122,
        f64(
            0.7371312573325668e-3,
            0.1442485726316185e-3,
            0.5888729740967575e-4,
            0.1175651343283149e-2,
            0.2386356198831331e-2,
            0.6238968252742796e-2,
            0.2849998395185769e-2,
            0.2850001604814231e-2,
        ),
        1e-13,
    ),
    EndPoint("orego-30", Oregonator, f64(1, 2, 3), 30, f64(1.00066146718, 1512.77893735, 10358.5431277), 1e-10),
    EndPoint(
        "orego-360",
        Oregonator,
        f64(1, 2, 3),
        360,
        f64(1.000814870318523, 1228.178521549917, 132.0554942846706),
        1e-10,
    ),
    EndPoint("vdpol", VanDerPol, f64(2, 0), 2, f64(1.706167732170483, -0.8928097010247975), 1e-12),
]

# dy3(t)/d(k1, k2, k3) of ROBER.
ROBER_GRADIENTS = {
    40.0: f64(4.2475128597432, 2.2884688948566e-9, -1.3730572254235e-5),
    1e5: f64(0.79304859700886, 5.2818252605929e-10, -3.1690816983876e-6),
}
# G = integral of y3 over [0, 50], dG/dk, dG/dy0.
ROBER_INTEGRAL = (
    10.9486484805749,
    f64(173.414089145, 8.43234646542e-8, -5.05919140559e-4),
    f64(8.41916101, 16.09702330, 16.09715088),
)
