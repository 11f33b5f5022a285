"""The paper's study in one call: both theorems, and every model trained on every function space."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hybridsam_bridge.trust.crossval import CrossValidation, cross_validate
from hybridsam_bridge.trust.equations import Equation, exact_green
from hybridsam_bridge.trust.figures import heat_map
from hybridsam_bridge.trust.greens import greens_function
from hybridsam_bridge.trust.operators import Linear, standard_models
from hybridsam_bridge.trust.result import write_json
from hybridsam_bridge.trust.spaces import cosine, hats, polynomial, sine, standard_spaces
from hybridsam_bridge.trust.theory import fit_bias, linear_fit, linear_limit

PUBLISHED_BIAS = {8: 6.1e-4, 16: 1.5e-4, 32: 3.9e-5, 64: 9.7e-6}


def reproduce(
    folder: Path, say: Callable[[str], Any], *, networks: bool = False, full: bool = False, steps: int = 1000
) -> dict[str, Any]:
    """Run the study; prints tables with ``say``, writes spatial-physics.json and a heat map a model to ``folder``.

    Args:
        networks: include the deep linear network, MLP, DeepONets and FNO (minutes instead of seconds).
        full: all orders 1 to 8 of each family (25 spaces and a Gaussian field) instead of orders 2, 4 and 8.
        steps: of training, for each network and space.
    """
    folder.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"bias": _biases(say), "projection": _projection(say), "green": _greens(say)}
    equation = Equation(n=24)
    spaces = standard_spaces(24) if full else standard_spaces(24, orders=(2, 4, 8))
    result["cross_validation"] = {}
    for make in standard_models(equation, steps)[: None if networks else 3]:
        matrix = cross_validate(make, equation, spaces)
        result["cross_validation"][matrix.model] = _record(matrix, folder)
        say(_line(matrix))
    write_json(folder / "spatial-physics.json", result)
    say(f"Written: {folder}")
    return result


def _biases(say: Callable[[str], Any]) -> dict[str, Any]:
    say("Bias of the fitted coefficient, difference stencil of order 2, polynomials of degree 2:")
    say(f"{'N':>4} {'published':>12} {'infinite data':>14} {'1000 samples':>24}")
    out = {}
    for n, published in PUBLISHED_BIAS.items():
        equation, space = Equation(n=n), polynomial(2, "monomial")
        limit = fit_bias(equation, space)
        draws = [fit_bias(equation, space, samples=1000, seed=seed) for seed in range(50)]
        low, high = np.quantile(draws, [0.025, 0.975])
        out[str(n)] = {"published": published, "limit": limit, "low": float(low), "high": float(high)}
        say(f"{n:>4} {published:>12.1e} {limit:>14.2e} {f'{low:.1e} to {high:.1e}':>24}")
    zero = fit_bias(Equation(n=64), polynomial(1, "monomial"))
    say(f"   degree 1, below the stencil's order: {zero:.0e}")
    return {**out, "below_order": zero}


def _projection(say: Callable[[str], Any]) -> dict[str, float]:
    """Largest difference of the fitted linear model from A U Uᵀ + W0 (I - U Uᵀ) on finite-element data."""
    equation, rng = Equation(n=24), np.random.default_rng(0)
    operator = equation.element_operator()
    out = {}
    for space in (polynomial(8), sine(8), cosine(8), hats(6)):
        basis, start = equation.forcings(space), rng.standard_normal(operator.shape)
        f = rng.standard_normal((500, basis.shape[1])) @ basis.T
        fitted = linear_fit(f, f @ operator.T, start)
        out[space.name] = float(np.abs(fitted - linear_limit(operator, basis, start)).max())
    say("Linear model against A U U' + W0 (I - U U'), largest difference: " + _list(out, ".0e"))
    return out


def _greens(say: Callable[[str], Any]) -> dict[str, float]:
    """Relative distance of the Green's function read from a linear model to the exact one, by training space."""
    equation = Equation(n=24)
    out = {}
    for space in (hats(24), sine(8), cosine(8), polynomial(8)):
        model = Linear()
        model.fit(*equation.data(space, 1000, 0))
        out[space.name] = greens_function(model, equation.grid).error(exact_green)
    say("Green's function read from the linear model, relative error by training space: " + _list(out, ".2g"))
    return out


def _record(matrix: CrossValidation, folder: Path) -> dict[str, Any]:
    name = matrix.model.replace(" ", "-")
    low = float(np.floor(matrix.skill.min()))
    heat_map(
        matrix.skill,
        matrix.names,
        folder / f"{name}.png",
        title=f"{matrix.model}: log10(error / size of the solution)",
        limits=(low, 0.0),
        colours="viridis",
    )
    return {"names": matrix.names, "skill": matrix.skill.round(4).tolist(), "drift": matrix.drift}


def _line(matrix: CrossValidation) -> str:
    own = np.diag(matrix.skill)
    off = matrix.skill[~np.eye(len(own), dtype=bool)]
    text = (
        f"{matrix.model}: median log10 error on its own space {np.median(own):.2f}, on the others {np.median(off):.2f}"
    )
    if matrix.drift is not None:
        worst = int(np.argmax(np.abs(np.array(matrix.drift) - 1)))
        text += f"; coefficient off by up to {abs(matrix.drift[worst] - 1):.1%} (trained on {matrix.names[worst]})"
    return text


def _list(values: dict[str, float], form: str) -> str:
    return ", ".join(f"{name} {value:{form}}" for name, value in values.items())
