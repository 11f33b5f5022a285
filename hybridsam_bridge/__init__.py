"""Stiff scientific models with neural networks inside, solved and differentiated by DifferentialEquations.jl.

Importing this package starts nothing; Julia is started by the first solve that needs it.
"""

from hybridsam_bridge.config import configure
from hybridsam_bridge.errors import (
    BackendCrashed,
    BackendUnavailable,
    HybridSAMError,
    InvalidInput,
    JuliaError,
    SolveFailed,
    UnsupportedOperation,
)
from hybridsam_bridge.fields.base import Field, VectorField
from hybridsam_bridge.fields.hybrid import Additive
from hybridsam_bridge.fields.julia import JuliaField
from hybridsam_bridge.fields.parameters import Param, ParameterSet, physical_values
from hybridsam_bridge.fields.roles import neural_parameters, parameter_roles, scientific_parameters
from hybridsam_bridge.optim import ASAM, SAM, LookSAM
from hybridsam_bridge.problem import Solution, Stats, Status
from hybridsam_bridge.solve import solve

__version__ = "0.1.0"

__all__ = [
    "ASAM",
    "SAM",
    "Additive",
    "BackendCrashed",
    "BackendUnavailable",
    "Field",
    "HybridSAMError",
    "InvalidInput",
    "JuliaError",
    "JuliaField",
    "LookSAM",
    "Param",
    "ParameterSet",
    "Solution",
    "SolveFailed",
    "Stats",
    "Status",
    "UnsupportedOperation",
    "VectorField",
    "configure",
    "neural_parameters",
    "parameter_roles",
    "physical_values",
    "scientific_parameters",
    "solve",
]
