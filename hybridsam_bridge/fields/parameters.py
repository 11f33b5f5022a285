"""Scientific parameters declared in one place: bounds, scale, transform, unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hybridsam_bridge.errors import InvalidInput

TRANSFORMS = ("identity", "log", "logit")


@dataclass(frozen=True)
class Param:
    """A parameter's start and how the optimizer's number is turned into the physical one.

    With x the number that is trained: "identity" is ``scale * x``, "log" is ``lower + scale * exp(x)``
    (always above ``lower``, 0 if not given), "logit" is ``lower + (upper - lower) * sigmoid(x)``.

    Attributes:
        initial: start in physical units, a number or an array.
        transform: "identity", "log" or "logit".
        bounds: (lower, upper) in physical units, None where open. "identity" has none, "log" a lower one.
        scale: typical size, in physical units, so that x is of order one.
        unit: for reports.
    """

    initial: float | Sequence[Any] | torch.Tensor
    transform: str = "identity"
    bounds: tuple[float | None, float | None] = (None, None)
    scale: float = 1.0
    unit: str = ""

    def check(self, name: str) -> None:
        """Raise ``InvalidInput`` naming the parameter where the declaration contradicts itself."""
        if self.transform not in TRANSFORMS:
            raise InvalidInput(f"{name}: transform={self.transform!r} is not known. Known: {', '.join(TRANSFORMS)}.")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise InvalidInput(f"{name}: scale must be positive and finite, got {self.scale!r}.")
        if len(self.bounds) != 2:
            raise InvalidInput(f"{name}: bounds must be (lower, upper), got {self.bounds!r}.")
        lower, upper = self.bounds
        if self.transform == "identity" and (lower is not None or upper is not None):
            raise InvalidInput(f'{name}: transform="identity" keeps no bounds; use "log" or "logit".')
        if self.transform == "log" and upper is not None:
            raise InvalidInput(f'{name}: transform="log" has no upper bound; use "logit" with both bounds.')
        if self.transform == "logit" and (lower is None or upper is None or not lower < upper):
            raise InvalidInput(f'{name}: transform="logit" needs bounds=(lower, upper), lower below upper.')
        value = torch.as_tensor(self.initial, dtype=torch.float64)
        if not bool(torch.isfinite(self.inverse(value)).all()):
            raise InvalidInput(f"{name}: initial value {value.tolist()} must be finite and strictly inside the bounds.")

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        """Physical value of the trained number."""
        if self.transform == "identity":
            return self.scale * raw
        lower = self.bounds[0] or 0.0
        if self.transform == "log":
            return lower + self.scale * torch.exp(raw)
        assert self.bounds[1] is not None, "checked when declared"
        return lower + (self.bounds[1] - lower) * torch.sigmoid(raw)

    def inverse(self, value: torch.Tensor) -> torch.Tensor:
        """The trained number of a physical value; not finite outside the bounds."""
        if self.transform == "identity":
            return value / self.scale
        lower = self.bounds[0] or 0.0
        if self.transform == "log":
            return torch.log((value - lower) / self.scale)
        assert self.bounds[1] is not None, "checked when declared"
        return torch.logit((value - lower) / (self.bounds[1] - lower))


class ParameterSet(nn.Module):
    """Named scientific parameters. ``rates.alpha`` is the physical value, differentiable.

    The trained numbers are the module's torch parameters, float64, named ``raw_alpha`` and so on.

    Example:
        ``self.rates = hsb.ParameterSet(alpha=hsb.Param(0.5, transform="log", unit="1/year"))``

    Raises:
        InvalidInput: a declaration contradicts itself; the message names the parameter.
    """

    def __init__(self, **declarations: Param):
        super().__init__()
        if not declarations:
            raise InvalidInput("ParameterSet: declare at least one parameter, such as alpha=hsb.Param(0.5).")
        self.__dict__["declared"] = dict(declarations)
        for name, declaration in declarations.items():
            if not isinstance(declaration, Param):
                raise InvalidInput(f"{name}: must be an hsb.Param, got {type(declaration).__name__}.")
            if hasattr(nn.Module, name) or name in ("declared", "values", "assign", "report"):
                raise InvalidInput(f"{name}: is taken by torch.nn.Module or ParameterSet; choose another name.")
            declaration.check(name)
            value = torch.as_tensor(declaration.initial, dtype=torch.float64)
            self.register_parameter(f"raw_{name}", nn.Parameter(declaration.inverse(value).clone()))

    def __getattr__(self, name: str) -> Any:
        declared = self.__dict__.get("declared", {})
        if name in declared:
            return declared[name].forward(super().__getattr__(f"raw_{name}"))
        return super().__getattr__(name)

    def values(self) -> dict[str, torch.Tensor]:
        """Physical values by name, connected to the graph."""
        return {name: getattr(self, name) for name in self.declared}

    @torch.no_grad()
    def assign(self, **values: Any) -> None:
        """Set physical values."""
        for name, value in values.items():
            if name not in self.declared:
                raise InvalidInput(f"{name}: is not declared. Declared: {', '.join(self.declared)}.")
            raw = self.declared[name].inverse(torch.as_tensor(value, dtype=torch.float64))
            parameter = getattr(self, f"raw_{name}")
            if raw.shape != parameter.shape or not bool(torch.isfinite(raw).all()):
                raise InvalidInput(
                    f"{name}: value {value!r} must have shape {tuple(parameter.shape)} and lie inside the bounds."
                )
            parameter.copy_(raw)

    def report(self) -> dict[str, tuple[Any, str]]:
        """Physical value (a number or nested lists) and unit, by name."""
        return {name: (value.detach().tolist(), self.declared[name].unit) for name, value in self.values().items()}

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}{' ' * bool(unit)}{unit}" for name, (value, unit) in self.report().items())


def physical_values(model: nn.Module) -> dict[str, tuple[Any, str]]:
    """All declared parameters anywhere in ``model``: name -> (physical value, unit).

    Names are those of the declarations, with the path of their set in front where two sets share one.
    """
    sets = [(path, sub) for path, sub in model.named_modules() if isinstance(sub, ParameterSet)]
    counts: dict[str, int] = {}
    for _, sub in sets:
        for name in sub.declared:
            counts[name] = counts.get(name, 0) + 1
    return {
        (name if counts[name] == 1 or not path else f"{path}.{name}"): value
        for path, sub in sets
        for name, value in sub.report().items()
    }
