"""Models in Julia source: derivatives, composition with a torch network, and errors with Julia's own message."""

from __future__ import annotations

import pytest
import torch
from problems import ROBER_GRADIENTS, Robertson, f64
from torch import nn

import hybridsam_bridge as hsb

pytestmark = pytest.mark.julia

ROBER = """
function f!(du, u, p, t)
    a, b, c = u
    du[1] = -p.k[1] * a + p.k[3] * b * c
    du[2] = p.k[1] * a - p.k[2] * b^2 - p.k[3] * b * c
    du[3] = p.k[2] * b^2
    return nothing
end
"""
K = f64(0.04, 3e7, 1e4)


def rober(**options):
    return hsb.JuliaField(ROBER, state_shape=(3,), parameters={"k": K}, **options)


@pytest.mark.parametrize("adjoint", ["discrete", "gauss", "forward"])
def test_published_gradients(adjoint):
    field = rober()
    sol = hsb.solve(field, f64(1, 0, 0), f64(0, 40), rtol=1e-8, atol=f64(1e-11, 1e-15, 1e-11), adjoint=adjoint)
    sol.ys[-1, 2].backward()
    # Published to twelve digits; six are asked of rtol 1e-8.
    torch.testing.assert_close(field.k.grad, ROBER_GRADIENTS[40], rtol=1e-6, atol=0)


def test_same_numbers_as_torch():
    """The same steps of the same method: only the order of rounding in the right-hand side differs."""
    grads = []
    for field in (rober(), Robertson()):
        y0 = f64(1, 0, 0).requires_grad_()
        sol = hsb.solve(field, y0, f64(0, 1e-2, 3.0), backend="julia", rtol=1e-5, atol=1e-9)
        grads.append([sol.ys.detach(), *torch.autograd.grad(sol.ys[:, 1].sum() * 1e4, [y0, field.k])])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8 * b.abs().max().item())


def test_vector_parameters_context_time_and_file(tmp_path):
    path = tmp_path / "driven.jl"
    path.write_text(
        "rate(t) = 1 + t\ndriven!(du, u, p, t, c) = (du .= -rate(t) .* p[1] .* u .+ c[1] * sin(t); nothing)"
    )
    field = hsb.JuliaField(path, "driven!", (2,), f64(0.7), takes_context=True)
    y0, context = f64(1, 2).requires_grad_(), f64(0.5).requires_grad_()

    class Driven(hsb.VectorField):
        state_shape = (2,)

        def __init__(self):
            super().__init__()
            self.p = nn.Parameter(f64(0.7))

        def forward(self, t, y, context=None):
            return -(1 + t) * self.p * y + context * torch.sin(t)

    results = []
    for f in (field, Driven()):
        sol = hsb.solve(f, y0, f64(0, 0.4, 1), context=context, backend="julia", rtol=1e-6, atol=1e-9)
        results.append(torch.autograd.grad((sol.ys**2).sum(), [y0, context, f.p]))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=0)  # rounding


def test_matrices_are_indexed_as_in_torch():
    matrix = f64(1, 2, 3, 4, 5, 6).reshape(2, 3)
    source = "f!(du, u, p, t) = (du[1] = p.A[1, 3]; du[2] = p.A[2, 1] * p.s; nothing)"
    field = hsb.JuliaField(source, state_shape=(2,), parameters={"A": matrix, "s": torch.tensor(10.0)})
    sol = hsb.solve(field, f64(0, 0), f64(0, 1), backend="julia")
    sol.ys[-1].sum().backward()
    torch.testing.assert_close(sol.ys[-1].detach(), f64(3, 40), rtol=1e-9, atol=0)  # a constant slope
    assert field.A.grad[0, 2].item() == pytest.approx(1)
    assert field.A.grad[1, 0].item() == pytest.approx(10)
    assert field.s.grad.item() == pytest.approx(4)
    assert field.s.dtype == torch.float32


def test_supplied_derivatives_are_used():
    source = (
        ROBER
        + """
    const CALLS = Ref(0)
    function jac!(J, u, p, t)
        k, (a, b, c) = p.k, u
        J .= [-k[1] k[3]*c k[3]*b; k[1] -2*k[2]*b-k[3]*c -k[3]*b; 0 2*k[2]*b 0]
    end
    function paramjac!(P, u, p, t)
        a, b, c = u
        P .= [-a 0 b*c; a -b^2 -b*c; 0 b^2 0]
    end
    """
    )
    grads = []
    for options in ({}, {"jacobian": "jac!", "paramjac": "paramjac!"}):
        field = hsb.JuliaField(source, state_shape=(3,), parameters={"k": K}, **options)
        sol = hsb.solve(field, f64(1, 0, 0), f64(0, 1e-2, 3.0), backend="julia", rtol=1e-5, atol=1e-9)
        grads.append(torch.autograd.grad(sol.ys[-1, 2], field.k)[0])
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-9, atol=0)
    wrong = source.replace("-2*k[2]*b", "-3*k[2]*b")
    field = hsb.JuliaField(wrong, state_shape=(3,), parameters={"k": K}, jacobian="jac!", paramjac="paramjac!")
    sol = hsb.solve(field, f64(1, 0, 0), f64(0, 1e-2, 3.0), backend="julia", rtol=1e-5, atol=1e-9)
    assert not torch.allclose(torch.autograd.grad(sol.ys[-1, 2], field.k)[0], grads[0], rtol=1e-6)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).double()

    def forward(self, y):
        return self.layers(y)


@pytest.mark.parametrize("reverse", [False, True])
def test_additive_of_julia_and_torch(reverse):
    """Julia science with a torch network equals the same sum written in torch; the mask and scale hold."""
    mask, scale = f64(1, 0, 1), 1e-2
    grads = []
    for science in (rober(), Robertson()):
        net = Net()
        field = hsb.Additive(science, net, mask=mask, scale=scale)
        if reverse and isinstance(science, hsb.JuliaField):
            field = hsb.Additive(_Torch(net, mask, scale), science)
        y0 = f64(1, 0, 0)[None].repeat(3, 1).requires_grad_()
        sol = hsb.solve(field, y0, f64(0, 1e-2, 3.0), backend="julia", rtol=1e-5, atol=1e-9)
        loss = (sol.ys * f64(1, 1e4, 1)).sum()
        grads.append(torch.autograd.grad(loss, [y0, science.k, *net.parameters()]))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-8 * b.abs().max().item())


class _Torch(hsb.VectorField):
    state_shape = (3,)

    def __init__(self, net, mask, scale):
        super().__init__()
        self.net = net
        self.register_buffer("factor", mask * scale)

    def forward(self, t, y, context=None):
        return self.factor * self.net(y)


def test_errors_carry_message_file_and_line(tmp_path):
    path = tmp_path / "broken.jl"
    path.write_text("function f!(du, u, p, t)\n    du[1] = u[1] +\nend\n")
    with pytest.raises(hsb.JuliaError, match=r"(?s)broken\.jl.*"):
        hsb.solve(hsb.JuliaField(path, state_shape=(1,)), f64(1), f64(0, 1), backend="julia")
    path.write_text("function f!(du, u, p, t)\n    du[1] = u[1]\n    du[1] = missing_name * 2\nend\n")
    with pytest.raises(hsb.JuliaError, match=r"(?s)missing_name.*broken\.jl:3"):
        hsb.solve(hsb.JuliaField(path, state_shape=(1,)), f64(1), f64(0, 1), backend="julia")
    path.write_text("g!(du, u, p, t) = nothing")
    with pytest.raises(hsb.JuliaError, match=r"defines no function f!"):
        hsb.solve(hsb.JuliaField(path, state_shape=(1,)), f64(1), f64(0, 1), backend="julia")
    # and the worker lives on
    assert hsb.solve(Robertson(), f64(1, 0, 0), f64(0, 1), backend="julia").success.all()


def test_bad_arguments(tmp_path):
    with pytest.raises(hsb.InvalidInput, match=r"nowhere\.jl cannot be read"):
        hsb.JuliaField("nowhere.jl", state_shape=(1,))
    with pytest.raises(hsb.InvalidInput, match="state_shape"):
        hsb.JuliaField(ROBER)
    with pytest.raises(hsb.InvalidInput, match="identifier"):
        hsb.JuliaField(ROBER, state_shape=(3,), parameters={"k 1": K})
    with pytest.raises(hsb.InvalidInput, match="jacobian"):
        hsb.JuliaField(ROBER, state_shape=(3,), parameters={"k": K}, paramjac="p!")
    with pytest.raises(hsb.BackendUnavailable, match="VectorField"):
        hsb.solve(rober(), f64(1, 0, 0), f64(0, 1), backend="scipy")
