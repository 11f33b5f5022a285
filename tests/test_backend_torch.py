"""The embedded torch backend against the contract, published numbers, and finite differences."""

from __future__ import annotations

from contracts import BackendContract


class TestTorch(BackendContract):
    backend = "torch"
    stiff_methods = ("auto",)
    explicit_method = "Tsit5"
    adjoints = ("discrete",)
    lacking_method = ("Radau", "Rodas5P")
    lacking_adjoint = "gauss"
