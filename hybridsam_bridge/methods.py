"""The integration methods by their DifferentialEquations.jl names, and which backend has which."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from hybridsam_bridge.errors import InvalidInput, UnsupportedOperation

ADJOINTS = ("auto", "discrete", "gauss", "forward", "none")
LINEAR = ("auto", "dense", "sparse", "krylov")
BACKENDS = ("auto", "julia", "torch", "scipy")


@dataclass(frozen=True)
class Method:
    """One integration method.

    ``family`` is rosenbrock, bdf, sdirk, firk or explicit; ``nearest`` names, for a backend that lacks
    the method, the one of its own that comes nearest.
    """

    name: str
    family: str
    order: int
    backends: frozenset[str]

    @property
    def stiff(self) -> bool:
        return self.family != "explicit"


def _table() -> dict[str, Method]:
    rows = [
        ("rosenbrock", "julia torch", {"Rodas5P": 5, "Rodas4P": 4, "Rosenbrock23": 2}),
        ("rosenbrock", "julia torch", {"Rodas4": 4}),
        (
            "rosenbrock",
            "julia",
            {"Rodas5": 5, "Rodas5Pe": 5, "Rodas4P2": 4, "Rodas42": 4, "Rodas3": 3, "Rodas3P": 3},
        ),
        ("bdf", "julia", {"FBDF": 5, "QNDF": 5}),
        ("sdirk", "julia", {"TRBDF2": 2, "KenCarp3": 3, "KenCarp4": 4, "Kvaerno5": 5, "KenCarp5": 5}),
        ("firk", "julia", {"RadauIIA5": 5, "RadauIIA9": 9}),
        ("explicit", "julia torch", {"Tsit5": 5}),
        ("explicit", "julia", {"Vern7": 7, "Vern9": 9}),
        ("firk", "scipy", {"Radau": 5}),
        ("bdf", "scipy", {"BDF": 5, "LSODA": 5}),
        ("explicit", "scipy", {"RK45": 5, "DOP853": 8}),
    ]
    return {
        name: Method(name, family, order, frozenset(backends.split()))
        for family, backends, methods in rows
        for name, order in methods.items()
    }


METHODS: dict[str, Method] = _table()

# What each backend takes for a family that it has no exact match for.
_NEAREST = {
    "julia": {"firk": "RadauIIA5", "bdf": "FBDF", "explicit": "Tsit5"},
    "scipy": {"rosenbrock": "Radau", "sdirk": "Radau", "firk": "Radau", "bdf": "BDF", "explicit": "RK45"},
    "torch": {
        "rosenbrock": "Rodas5P",
        "sdirk": "Rodas5P",
        "firk": "Rodas5P",
        "bdf": "Rodas5P",
        "explicit": "Tsit5",
    },
}
_NEAREST_BY_NAME = {
    ("scipy", "Vern7"): "DOP853",
    ("scipy", "Vern9"): "DOP853",
    ("julia", "DOP853"): "Vern7",
}


def require_plain(backend: str, linear: str, has_mass: bool) -> None:
    """Refuse, for a backend with dense linear algebra and no mass matrices, what only Julia does."""
    if has_mass:
        raise UnsupportedOperation(
            f'mass_matrix: the {backend} backend solves dy/dt = f only; backend="julia" takes mass matrices.'
        )
    if linear not in ("auto", "dense"):
        raise UnsupportedOperation(
            f'linear="{linear}": the {backend} backend has dense linear algebra only; backend="julia" has the others.'
        )


def of_backend(backend: str) -> list[str]:
    """Names of the methods that a backend has."""
    return [m.name for m in METHODS.values() if backend in m.backends]


def lookup(name: str) -> Method:
    """The method of that name. Raises ``InvalidInput`` listing the known ones."""
    if name in METHODS:
        return METHODS[name]
    close = difflib.get_close_matches(name, METHODS, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise InvalidInput(f"method={name!r} is not known.{hint} Known methods: auto, {', '.join(METHODS)}.")


def require(name: str, backend: str) -> Method:
    """The method of that name if ``backend`` has it, else an error naming the nearest it has."""
    method = lookup(name)
    if backend in method.backends:
        return method
    nearest = _NEAREST_BY_NAME.get((backend, name)) or _NEAREST[backend].get(method.family, "auto")
    raise UnsupportedOperation(
        f"The {backend} backend has no method {name!r}; the nearest it has is {nearest!r}. "
        f"It has: auto, {', '.join(of_backend(backend))}. "
        f"{name} is available on: {', '.join(sorted(method.backends))}."
    )
