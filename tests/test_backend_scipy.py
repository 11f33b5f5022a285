"""The SciPy backend against the contract and the published numbers."""

from __future__ import annotations

import pytest
import torch
from contracts import BackendContract
from problems import Robertson, f64

import hybridsam_bridge as hsb


class TestSciPy(BackendContract):
    backend = "scipy"
    stiff_methods = ("LSODA", "Radau")
    explicit_method = "RK45"
    adjoints = ("gauss",)
    gradient_digits = 5
    forces_steps = False
    lacking_method = ("Rodas5P", "Radau")
    lacking_adjoint = "discrete"
    batch_tolerance = 0.0  # it solves one sample at a time anyway

    def test_bdf(self):
        # SciPy's BDF is the weakest of the three: it cannot do Van der Pol at rtol 1e-9.
        sol = self.solve(Robertson(), f64(1, 0, 0), f64(0, 40), method="BDF", rtol=1e-8, atol=f64(1e-11, 1e-15, 1e-11))
        assert sol.ys[-1, 1].item() == pytest.approx(9.185534764558e-6, rel=1e-6)

    def test_value_branching_runs_untraced(self):
        """A field that cannot be traced runs as it is, gradients too."""

        class Branching(hsb.VectorField):
            state_shape = (1,)

            def __init__(self):
                super().__init__()
                self.a = torch.nn.Parameter(f64(2.0))

            def forward(self, t, y, context=None):
                return -self.a * y if float(y) > 0 else self.a * y

        field = Branching()
        end = self.solve(field, f64(1.0), f64(0, 1), rtol=1e-8, atol=1e-10).ys[-1]
        end.sum().backward()
        assert end.item() == pytest.approx(0.1353352832, rel=1e-6)
        assert field.a.grad.item() == pytest.approx(-0.1353352832, rel=1e-5)
