"""How far to trust a model outside its training data.

The function space of the training data decides where a learned model generalises (Queiruga, Gutman-Solo and Jiang,
arXiv 2506.15199). This package has the spaces, that paper's setting with its theorems, Green's functions read from
models, and a report on any hybrid model with the solver in the loop.
"""

from hybridsam_bridge.trust.coverage import Coverage, VisitedInputs, network_inputs
from hybridsam_bridge.trust.crossval import CrossValidation, cross_validate
from hybridsam_bridge.trust.equations import Equation, exact_green, interior
from hybridsam_bridge.trust.fitting import SolverFit
from hybridsam_bridge.trust.greens import GreensFunction, Stencil, greens_function
from hybridsam_bridge.trust.operators import FNO, DeepONet, DifferenceFit, Linear, Network, standard_models
from hybridsam_bridge.trust.report import generalisation_report
from hybridsam_bridge.trust.result import GeneralisationReport
from hybridsam_bridge.trust.spaces import (
    Box,
    FunctionSpace,
    cosine,
    gaussian_field,
    hats,
    polynomial,
    sine,
    standard_spaces,
)
from hybridsam_bridge.trust.theory import fit_bias, linear_fit, linear_limit

__all__ = [
    "FNO",
    "Box",
    "Coverage",
    "CrossValidation",
    "DeepONet",
    "DifferenceFit",
    "Equation",
    "FunctionSpace",
    "GeneralisationReport",
    "GreensFunction",
    "Linear",
    "Network",
    "SolverFit",
    "Stencil",
    "VisitedInputs",
    "cosine",
    "cross_validate",
    "exact_green",
    "fit_bias",
    "gaussian_field",
    "generalisation_report",
    "greens_function",
    "hats",
    "interior",
    "linear_fit",
    "linear_limit",
    "network_inputs",
    "polynomial",
    "sine",
    "standard_models",
    "standard_spaces",
]
