"""The backends by name, and what "auto" takes."""

from __future__ import annotations

import importlib
from functools import cache

from hybridsam_bridge.backends.base import Backend
from hybridsam_bridge.errors import BackendUnavailable
from hybridsam_bridge.fields.plan import Plan
from hybridsam_bridge.log import logger

_CLASSES = {
    "julia": ("hybridsam_bridge.backends.julia_backend", "JuliaBackend"),
    "torch": ("hybridsam_bridge.backends.torch_backend", "TorchBackend"),
    "scipy": ("hybridsam_bridge.backends.scipy_backend", "SciPyBackend"),
}
_said: set[str] = set()


@cache
def get(name: str) -> Backend:
    """The backend of that name, ready or not."""
    module, cls = _CLASSES[name]
    return getattr(importlib.import_module(module), cls)()


def auto() -> tuple[str, str]:
    """The name of the backend that "auto" takes here, and why."""
    julia = get("julia").availability()
    if julia.ready:
        return "julia", f"backend: julia ({julia.why})."
    return "torch", f"backend: the embedded torch solver, since Julia is not ready ({julia.why})."


def select(name: str, plan: Plan) -> tuple[Backend, str]:
    """The backend to use for ``plan`` and why; says once what "auto" took."""
    if name == "auto":
        chosen, why = auto()
        if chosen not in _said:
            _said.add(chosen)
            logger.info(why)
        if chosen != "julia" and not plan.is_torch:
            raise BackendUnavailable(f"{plan.name} has Julia source, which needs Julia. {why} {_fix('julia')}")
        return get(chosen), why
    engine = get(name)
    state = engine.availability()
    if not state.ready:
        raise BackendUnavailable(f'backend="{name}" was asked for and is not there: {state.why} {state.fix}')
    if name != "julia" and not plan.is_torch:
        raise BackendUnavailable(
            f'{plan.name} has Julia source, which backend="{name}" cannot run. Use backend="julia", or write the '
            "model as an hsb.VectorField."
        )
    return engine, ""


def _fix(name: str) -> str:
    return get(name).availability().fix
