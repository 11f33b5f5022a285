"""Hybrid models with a hidden term, at module level so that other processes can import them."""

from __future__ import annotations

import torch
from torch import nn

import hybridsam_bridge as hsb
from hybridsam_bridge import trust

N = 8  # interior points of the heat equation
SOLVER = {"backend": "torch", "rtol": 1e-4, "atol": 1e-6}
HEAT_TIMES = torch.tensor([0, 0.05, 0.1, 0.2, 0.4, 0.8], dtype=torch.float64)


class Heat(hsb.VectorField):
    """u_t = D u_xx on [0, 1], u = 0 at both ends."""

    state_shape = (N,)

    def __init__(self, diffusion=0.03):
        super().__init__()
        self.rates = hsb.ParameterSet(D=hsb.Param(diffusion, transform="log"))

    def forward(self, t, y, context=None):
        padded = nn.functional.pad(y, (1, 1))
        return self.rates.D * (padded[2:] - 2 * y + padded[:-2]) * (N + 1) ** 2


class HeatWithSink(Heat):
    """The truth: a cubic sink that the model does not know of."""

    def __init__(self):
        super().__init__(0.02)

    def forward(self, t, y, context=None):
        return super().forward(t, y) - y**3


class Pointwise(nn.Module):
    def __init__(self, channels=1, width=8):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(channels, width), nn.Tanh(), nn.Linear(width, channels)).double()

    def forward(self, y):
        return self.net(y.unsqueeze(-1)).squeeze(-1)


def pointwise_heat(seed):
    torch.manual_seed(seed)
    return hsb.Additive(Heat(), Pointwise())


def dense_heat(seed):
    torch.manual_seed(seed)
    return hsb.Additive(KnownHeat(), nn.Sequential(nn.Linear(N, 16), nn.Tanh(), nn.Linear(16, N)).double())


class HeatWithLoss(Heat):
    """A linear truth: every mode decays by 1 more than diffusion explains."""

    def __init__(self):
        super().__init__(0.02)

    def forward(self, t, y, context=None):
        return super().forward(t, y) - y


class KnownHeat(hsb.VectorField):
    """Diffusion with nothing left to fit."""

    state_shape = (N,)

    def forward(self, t, y, context=None):
        padded = nn.functional.pad(y, (1, 1))
        return 0.02 * (padded[2:] - 2 * y + padded[:-2]) * (N + 1) ** 2


def linear_heat(seed):
    layer = nn.Linear(N, N, bias=False).double()
    nn.init.zeros_(layer.weight)
    return hsb.Additive(KnownHeat(), layer)


def corrected_heat(seed):
    torch.manual_seed(seed)
    return hsb.OutputCorrected(hsb.InitialValueModel(Heat(), **SOLVER), nn.Linear(N, N).double())


def observed_heat(seed):
    torch.manual_seed(seed)
    return hsb.InitialValueModel(hsb.Additive(Heat(), Pointwise()), observe=lambda ys: ys[..., :2], **SOLVER)


class Pendulum(hsb.VectorField):
    """x'' = -w² sin x + forcing; the context holds the forcing at 9 equally spaced times of [0, 4]."""

    state_shape = (2,)

    def __init__(self, frequency=1.2):
        super().__init__()
        self.rates = hsb.ParameterSet(w=hsb.Param(frequency, transform="log", unit="1/s"))

    def forward(self, t, y, context=None):
        push = 0.0
        if context is not None:
            nodes = torch.arange(context.shape[0], dtype=y.dtype)
            push = (torch.relu(1 - (2 * t - nodes).abs()) * context).sum()
        return torch.stack([y[1], -(self.rates.w**2) * torch.sin(y[0]) + push])


class DampedPendulum(Pendulum):
    def __init__(self):
        super().__init__(1.0)

    def forward(self, t, y, context=None):
        return super().forward(t, y, context) - torch.stack([0 * y[1], 0.3 * y[1] * (1 + y[1] ** 2)])


def hybrid_pendulum(seed):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    return hsb.Additive(Pendulum(), network, mask=[False, True])


class FitzHughNagumo(hsb.VectorField):
    """u_t = a u_xx + g(u) - v, v_t = b v_xx + u - v on 6 points, no flux; g is what the model does not know."""

    state_shape = (2, 6)

    def __init__(self, a=2e-2):
        super().__init__()
        self.rates = hsb.ParameterSet(a=hsb.Param(a, transform="log"))

    def forward(self, t, y, context=None):
        wide = nn.functional.pad(y[None], (1, 1), mode="replicate")[0]
        second = (wide[:, 2:] - 2 * y + wide[:, :-2]) * 36
        return torch.stack([self.rates.a * second[0] - y[1], 5e-3 * second[1] + y[0] - y[1]])


class FitzHughNagumoTruth(FitzHughNagumo):
    def __init__(self):
        super().__init__(1e-2)

    def forward(self, t, y, context=None):
        cubic = y[0] - y[0] ** 3 - 5e-3
        return super().forward(t, y) + torch.stack([cubic, 0 * cubic])


class OnFirst(nn.Module):
    """A pointwise network of u in the equation of u."""

    def __init__(self):
        super().__init__()
        self.inner = Pointwise()

    def forward(self, y):
        return torch.stack([self.inner(y[0]), torch.zeros_like(y[1])])


def hybrid_fitzhugh(seed):
    torch.manual_seed(seed)
    return hsb.Additive(FitzHughNagumo(), OnFirst())


def start_u(draws):
    """Draws of u, v at rest."""
    return torch.stack([draws, torch.zeros_like(draws)], dim=1)


class Explosive(hsb.VectorField):
    """Blows up in finite time from large states; one number fits nothing."""

    state_shape = (N,)

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, t, y, context=None):
        return self.rate * y.abs() * y


def explosive(seed):
    return Explosive()


def no_fit(model, data):
    """Leaves the model as it is."""


def failing_fit(model, data):
    hsb.solve(model, 50 * torch.ones(1, N, dtype=torch.float64), data.ts, **SOLVER)


def quick_fit(iterations=45, decay=1e-8, **options):
    return trust.SolverFit(iterations, {**SOLVER, **options}, decay)
