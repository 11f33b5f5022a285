"""Stiff scientific models with neural networks inside, solved and differentiated by DifferentialEquations.jl.

Importing this package starts nothing; Julia is started by the first solve that needs it.
"""

from hybridsam_bridge import pde, trust
from hybridsam_bridge.config import configure
from hybridsam_bridge.diagnostics.identifiability import identifiability
from hybridsam_bridge.diagnostics.profile import profile_likelihood
from hybridsam_bridge.diagnostics.share import explained_share
from hybridsam_bridge.diagnostics.sharpness import sharpness
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
from hybridsam_bridge.fields.signals import SampledSignal
from hybridsam_bridge.models.forms import Composed, OutputCorrected, ParameterEncoder
from hybridsam_bridge.models.initial_value import InitialValueModel
from hybridsam_bridge.objectives import (
    DataLoss,
    FunctionalNorm,
    Gaussian,
    GrowingHorizon,
    Laplace,
    LogNormal,
    MultipleShooting,
    Orthogonality,
    Relative,
    Trajectories,
    WeightDecay,
)
from hybridsam_bridge.optim import ASAM, SAM, LookSAM
from hybridsam_bridge.problem import Solution, Stats, Status
from hybridsam_bridge.solve import solve
from hybridsam_bridge.tasks.base import Task
from hybridsam_bridge.train.runs import RunFolder
from hybridsam_bridge.train.trainer import FitResult, Trainer
from hybridsam_bridge.trust import generalisation_report, greens_function

__version__ = "0.1.0"

__all__ = [
    "ASAM",
    "SAM",
    "Additive",
    "BackendCrashed",
    "BackendUnavailable",
    "Composed",
    "DataLoss",
    "Field",
    "FitResult",
    "FunctionalNorm",
    "Gaussian",
    "GrowingHorizon",
    "HybridSAMError",
    "InitialValueModel",
    "InvalidInput",
    "JuliaError",
    "JuliaField",
    "Laplace",
    "LogNormal",
    "LookSAM",
    "MultipleShooting",
    "Orthogonality",
    "OutputCorrected",
    "Param",
    "ParameterEncoder",
    "ParameterSet",
    "Relative",
    "RunFolder",
    "SampledSignal",
    "Solution",
    "SolveFailed",
    "Stats",
    "Status",
    "Task",
    "Trainer",
    "Trajectories",
    "UnsupportedOperation",
    "VectorField",
    "WeightDecay",
    "configure",
    "explained_share",
    "generalisation_report",
    "greens_function",
    "identifiability",
    "neural_parameters",
    "parameter_roles",
    "pde",
    "physical_values",
    "profile_likelihood",
    "scientific_parameters",
    "sharpness",
    "solve",
    "trust",
]
