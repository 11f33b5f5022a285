"""Which parameters belong to the network and which to the science, on any composition.

The innermost statement wins: an attribute ``hsb_role`` ("neural" or "science") of a module, else what the
hybrid form around it says (``hsb_roles``, by the child's name; "" for the form's own parameters), else what
surrounds it. Without any statement, the parameters of torch's own layers are neural and all others are
scientific.
"""

from __future__ import annotations

from torch import nn

from hybridsam_bridge.errors import InvalidInput

NEURAL = "neural"
SCIENCE = "science"


def neural_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of the networks in ``model``, in the order of ``model.parameters()``.

    Raises:
        InvalidInput: ``model`` is no module, or an ``hsb_role`` in it is unknown.
    """
    return _of_role(model, NEURAL)


def scientific_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of the science in ``model``: all that ``neural_parameters`` leaves out."""
    return _of_role(model, SCIENCE)


def parameter_roles(model: nn.Module) -> dict[str, str]:
    """Name of each parameter (as in ``model.named_parameters()``) -> "neural" or "science"."""
    if not isinstance(model, nn.Module):
        raise InvalidInput(f"model: must be a torch.nn.Module, got {type(model).__name__}.")
    found: dict[int, str] = {}
    _walk(model, None, SCIENCE, found)
    return {name: found[id(param)] for name, param in model.named_parameters()}


def _of_role(model: nn.Module, role: str) -> list[nn.Parameter]:
    roles = parameter_roles(model)
    return [param for name, param in model.named_parameters() if roles[name] == role]


def _walk(module: nn.Module, stated: str | None, default: str, found: dict[int, str]) -> None:
    own = getattr(module, "hsb_role", None)
    if own not in (None, NEURAL, SCIENCE):
        raise InvalidInput(f'{type(module).__name__}.hsb_role={own!r} is not known. Known: "neural", "science".')
    stated = own or stated
    if not isinstance(module, (nn.ParameterDict, nn.ParameterList)):  # these only hold what is their owner's
        default = NEURAL if type(module).__module__.startswith("torch.nn.modules.") else SCIENCE
    roles = getattr(module, "hsb_roles", {})
    for param in module._parameters.values():
        if param is not None:
            found.setdefault(id(param), roles.get("") or stated or default)
    for name, child in module.named_children():
        _walk(child, roles.get(name) or stated, default, found)
