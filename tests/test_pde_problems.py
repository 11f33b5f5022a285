"""The ready PDE problems: against NumPy and SciPy, exact solutions, invariants, published numbers."""

from __future__ import annotations

import itertools
import math
import runpy

import numpy as np
import pde_reference as reference
import pytest
import torch
from pde_reference import EXAMPLES, example
from problems import f64
from scipy.integrate import solve_ivp

import hybridsam_bridge as hsb
from hybridsam_bridge import pde
from hybridsam_bridge.fields.numpy_functions import NumpyFunctions
from hybridsam_bridge.lowering.program import lower

BACKENDS = ["scipy", "torch", pytest.param("julia", marks=pytest.mark.julia)]

# Name, class, points an axis, end time.
PROBLEMS = [
    ("heat", "Heat", 7, 1.0),
    ("burgers", "Burgers", 30, 0.5),
    ("allen_cahn", "AllenCahn", 6, 2.0),
    ("brusselator_1d", "Brusselator1D", 12, 3.0),
    ("brusselator_2d", "Brusselator2D", 6, 1.5),
    ("gray_scott", "GrayScott", 6, 50.0),
    ("fitzhugh_nagumo", "FitzHughNagumo", 6, 1.5),
]

# Brusselator with N = 500 at t = 10: y1, y8, y15, ... y78 of the interleaved state (E. Hairer's test set).
PUBLISHED = [
    *(0.9949197002317599, 3.0213845767604077, 0.9594350193986054, 3.0585989778165419, 0.9243010095428502),
    *(3.0952478919989637, 0.8897959106772672, 3.1310118289054731, 0.8561653620284367, 3.1656101198770159),
    *(0.8236197147449046, 3.1988043370624344),
]


def start(field, name):
    """A smooth initial state."""
    if hasattr(field, "initial"):
        return field.initial()
    if name == "burgers":
        return example(name).front(field.grid.coordinates() + 0.4, 0.0, 0.05)
    x, y = field.grid.mesh()
    u = torch.sin(2 * x + 1) * torch.cos(3 * y)
    return u if len(field.state_shape) == 2 else torch.stack([u, 0.5 * u.T])


def make(name, cls, n):
    field = getattr(example(name), cls)(n)
    return field, start(field, name)


@pytest.mark.parametrize(("name", "cls", "n", "end"), PROBLEMS)
def test_right_hand_side_is_the_one_of_numpy(name, cls, n, end):
    field, _ = make(name, cls, n)
    rhs = getattr(reference, name)(n)
    torch.manual_seed(0)
    for t in (0.0, 2.0):
        y = torch.rand(field.state_shape).double()
        expected = rhs(t, y.numpy().reshape(-1)).reshape(field.state_shape)
        ours = field(f64(t)[0], y).detach().numpy()
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12 * np.abs(expected).max())  # rounding


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "cls", "n", "end"), PROBLEMS)
def test_solution_is_the_one_of_scipy(name, cls, n, end, backend):
    field, y0 = make(name, cls, n)
    ts = f64(0, 1.1, end) if name == "brusselator_2d" else f64(0, end)  # its push sets in at 1.1
    with torch.no_grad():
        ours = hsb.solve(field, y0, ts, rtol=1e-7, atol=1e-9, backend=backend).ys[-1].numpy().reshape(-1)
    rhs, y = getattr(reference, name)(n), y0.numpy().reshape(-1)
    for a, b in zip(ts[:-1].tolist(), ts[1:].tolist(), strict=True):
        # The push acts from the start of its segment; LSODA must not see the one after it.
        clip = b if b == ts[-1] else np.nextafter(b, 0)
        y = solve_ivp(lambda t, y, c=clip: rhs(min(t, c), y), (a, b), y, method="LSODA", rtol=1e-10, atol=1e-12).y[
            :, -1
        ]
    # Global errors are some tens of the tolerance 1e-7 of values of order one.
    np.testing.assert_allclose(ours, y, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [row[0] for row in PROBLEMS])
def test_lowers_to_a_compiled_program(name):
    """Every operator of the problems has an entry; beyond tiny grids the code's length does not grow with them."""
    cls = next(row[1] for row in PROBLEMS if row[0] == name)
    lines = []
    for n in (32, 64):
        plan, _ = make(name, cls, n)[0].plan(None)
        lines.append(lower(plan.parts[0], plan.n, plan.nc).source.count("\n"))
    assert lines[0] == pytest.approx(lines[1], rel=0.02)


@pytest.mark.parametrize("backend", BACKENDS)
def test_heat_decays_as_the_lowest_mode(backend):
    """sin πx sin πy is an eigenvector of the discrete Laplacian too: amplitude and d/dκ in closed form."""
    field = example("heat").Heat(8, kappa=0.1)
    x, y = field.grid.mesh()
    y0 = torch.sin(math.pi * x) * torch.sin(math.pi * y)
    rate = 2 * (2 - 2 * math.cos(math.pi / 8)) * 64
    end = hsb.solve(field, y0, f64(0, 1), rtol=1e-7, atol=1e-9, backend=backend).ys[-1]
    amplitude = end[3, 3] / y0[3, 3]
    assert amplitude.item() == pytest.approx(math.exp(-0.1 * rate), rel=1e-5)  # some tens of rtol
    amplitude.backward()
    assert field.kappa.grad.item() == pytest.approx(-rate * math.exp(-0.1 * rate), rel=1e-4)


@pytest.mark.parametrize("order", [2, 4])
def test_order_of_the_heat_equation(order):
    """Space error of the whole solve against exp(-2 κ π² t) sin πx sin πy."""
    errors = []
    for n in (12, 24):
        field = example("heat").Heat(n, order=order)
        x, y = field.grid.mesh()
        y0 = torch.sin(math.pi * x) * torch.sin(math.pi * y)
        with torch.no_grad():
            end = hsb.solve(field, y0, f64(0, 0.5), rtol=1e-9, atol=1e-11, backend="scipy").ys[-1]
        errors.append((end - math.exp(-0.1 * math.pi**2) * y0).abs().max().item())
    assert all(math.log2(a / b) > order - 0.3 for a, b in itertools.pairwise(errors)), errors


def test_order_of_the_burgers_front():
    """Second order against the travelling front; its tails miss the values held at the ends by 3e-7."""
    module = example("burgers")
    errors = []
    for n in (80, 160, 320):
        field = module.Burgers(n, nu=0.02)
        x = field.grid.coordinates() + 0.4
        with torch.no_grad():
            y0 = module.front(x, 0.0, 0.02)
            end = hsb.solve(field, y0, f64(0, 0.5), rtol=1e-8, backend="scipy").ys[-1]
        errors.append((end - module.front(x, 0.5, 0.02)).abs().max().item())
    assert all(math.log2(a / b) > 1.8 for a, b in itertools.pairwise(errors)), errors


def test_burgers_on_a_ring_conserves_and_dissipates():
    field = example("burgers").Burgers(40, ends=None, order=3)
    x = field.grid.coordinates()
    with torch.no_grad():
        ys = hsb.solve(field, 0.5 + torch.sin(math.pi * x), f64(0, 0.3, 0.6, 0.9), backend="scipy").ys
    # Linear invariants are kept by every linear multistep and Runge-Kutta method, to the rounding of their solves.
    torch.testing.assert_close(ys.sum(-1), ys[0].sum().expand(4), rtol=1e-9, atol=0)
    assert (ys.square().sum(-1).diff() < 0).all()


def test_allen_cahn_descends_its_energy():
    field = example("allen_cahn").AllenCahn(8)
    torch.manual_seed(0)
    y0 = torch.randn(8, 8).double()
    with torch.no_grad():
        energy = field.energy(hsb.solve(field, y0, torch.linspace(0, 3, 7).double(), backend="scipy").ys)
    assert (energy.diff() < 0).all()
    assert energy[-1] > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_of_the_brusselator(backend):
    """d/d(a, b, α) and d/dy0 of the mean of u against differences of SciPy's solutions of the NumPy version."""
    n, span, step = 8, (0.0, 2.0), 1e-4
    field, y0 = make("brusselator_1d", "Brusselator1D", n)
    y0.requires_grad_()
    hsb.solve(field, y0, f64(*span), rtol=1e-8, atol=1e-10, backend=backend).ys[-1, 0].mean().backward()

    flat = y0.detach().numpy().reshape(-1)

    def mean(y=flat, **changes):
        # The values at the ends stay those of a = 1, b = 3 when the reaction changes.
        base = reference.brusselator_1d(n, alpha=changes.pop("alpha", 0.02))
        da, db = changes.get("a", 0.0), changes.get("b", 0.0)

        def rhs(t, y):
            return base(t, y) + np.concatenate([da - db * y[:n], db * y[:n]])

        return solve_ivp(rhs, span, y, method="LSODA", rtol=1e-11, atol=1e-13).y[:n, -1].mean()

    differences = [(mean(**{k: step}) - mean(**{k: -step})) / (2 * step) for k in ("a", "b")]
    # Truncation of central differences is of order step² = 1e-8, their noise 1e-11 / step = 1e-7.
    np.testing.assert_allclose(field.reaction.grad.numpy(), differences, rtol=2e-5, atol=2e-6)
    slope = (mean(alpha=0.02 + step) - mean(alpha=0.02 - step)) / (2 * step)
    assert field.alpha.grad.item() == pytest.approx(slope, rel=1e-4)
    direction = np.cos(np.arange(2 * n))
    slope = (mean(flat + step * direction) - mean(flat - step * direction)) / (2 * step)
    assert (y0.grad.numpy().reshape(-1) @ direction) == pytest.approx(slope, rel=2e-5, abs=2e-6)


class Everything(hsb.VectorField):
    """Every operator at its higher orders, on axes of every kind, with values from time, parameters and context."""

    def __init__(self):
        super().__init__()
        self.grid = pde.Grid((5, 6), upper=(1.0, 2.0), boundary=(("dirichlet", "neumann"), "periodic"))
        self.state_shape = (2, 5, 6)
        self.edge = torch.nn.Parameter(f64(0.5, -0.3).reshape(2, 1))
        self.register_buffer("wind", torch.linspace(0.5, 1.5, 30).double().reshape(5, 6))

    def forward(self, t, y, context=None):
        values = ((self.edge * torch.cos(t), context), None)
        spread = 0.05 * pde.laplacian(y, self.grid, 4, values)
        carried = pde.advection(y, (self.wind, 0.3), self.grid, 3, values)
        burgers = pde.transport(y, lambda u: 0.1 * u * u, self.grid, 2, values)
        steep = pde.gradient(y, self.grid, 4, values).square().sum(0)
        return spread + carried + burgers - 0.01 * steep


def test_higher_orders_lower_too():
    """Boundary closures by constant matrices, slices on two axes, values from context: all have entries."""
    plan, _ = Everything().plan(())
    program = lower(plan.parts[0], plan.n, plan.nc)
    assert program.time_dependent
    assert program.uses_context


def everything(backend, gradients):
    torch.manual_seed(0)
    y0, context = torch.rand(2, 5, 6).double().requires_grad_(), f64(0.2)[0].requires_grad_()
    field = Everything()
    with torch.set_grad_enabled(gradients):
        end = hsb.solve(field, y0, f64(0, 0.3), context=context, rtol=1e-6, atol=1e-8, backend=backend).ys[-1]
    loss = (end * torch.linspace(-1, 1, 60).double().reshape(2, 5, 6)).sum()
    return end.detach(), *(torch.autograd.grad(loss, [y0, context, field.edge]) if gradients else ())


def test_every_operator_against_scipy():
    # Some tens of rtol.
    torch.testing.assert_close(everything("torch", False)[0], everything("scipy", False)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.julia
def test_every_operator_compiled():
    """Solutions and gradients of y0, context and a parameter, compiled and in torch."""
    for a, b in zip(everything("julia", True), everything("torch", True), strict=True):
        # Other steps and other methods, each with discrete gradients: some tens of rtol.
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def interleaved(y):
    return np.ascontiguousarray(y.reshape(2, -1).T).reshape(-1)


def test_published_end_point_of_the_brusselator():
    """The traced right-hand side with N = 500 under SciPy's LSODA, told the band of the interleaved state."""
    field = example("brusselator_1d").Brusselator1D()
    plan, p = field.plan(None)
    functions = NumpyFunctions(plan, np.zeros(0), p.detach().numpy())

    def rhs(t, y):
        return interleaved(functions.f(t, np.ascontiguousarray(y.reshape(-1, 2).T).reshape(-1)))

    y0 = interleaved(field.initial().numpy())
    end = solve_ivp(rhs, (0, 10), y0, method="LSODA", lband=2, uband=2, rtol=1e-9, atol=1e-10).y[:, -1]
    np.testing.assert_allclose(end[: 7 * len(PUBLISHED) : 7], PUBLISHED, rtol=2e-8)  # measured: 1e-9 at rtol 1e-9


@pytest.mark.parametrize(
    ("backend", "method"),
    [
        ("scipy", "LSODA"),
        pytest.param("scipy", "Radau", marks=pytest.mark.slow),  # 20 s, dense complex factorisations
        pytest.param("torch", "auto", marks=pytest.mark.slow),
        pytest.param("julia", "auto", marks=[pytest.mark.julia, pytest.mark.slow]),
    ],
)
def test_published_end_point_through_solve(backend, method):
    field = example("brusselator_1d").Brusselator1D()
    with torch.no_grad():
        sol = hsb.solve(field, field.initial(), f64(0, 10), rtol=1e-6, atol=1e-8, backend=backend, method=method)
    end = interleaved(sol.ys[-1].numpy())[: 7 * len(PUBLISHED) : 7]
    np.testing.assert_allclose(end, PUBLISHED, rtol=3e-5)  # some tens of rtol


@pytest.mark.julia
def test_the_julia_version_is_the_same_field():
    """A user's stiff PDE in Julia source: solutions and gradients of the torch version, to the tolerances."""
    n = 16
    module = example("brusselator_julia")
    fields = module.brusselator(n), example("brusselator_1d").Brusselator1D(n)
    y0 = fields[1].initial()
    torch.testing.assert_close(module.initial(n), y0)
    results = []
    for field in fields:
        end = hsb.solve(field, y0, f64(0, 2), rtol=1e-7, atol=1e-9, backend="julia").ys[-1]
        results.append([end.detach(), *torch.autograd.grad(end[0].mean(), [field.reaction, field.alpha])])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_run(path, capsys):
    from hybridsam_bridge import backends

    if "julia" in path.stem and not backends.get("julia").availability().ready:
        pytest.skip("Julia is not ready")
    runpy.run_path(str(path), run_name="__main__")
    assert len(capsys.readouterr().out.splitlines()) >= 1
