"""Hybrid forms around a model: a corrected output, encoded parameters, nested stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.fields.hybrid import as_mask, as_scale
from hybridsam_bridge.fields.parameters import Param
from hybridsam_bridge.fields.roles import NEURAL, SCIENCE


class OutputCorrected(nn.Module):
    """prediction = science(...) + scale * mask * neural(science(...)): the network corrects what is predicted.

    The equations stay untouched; ``science`` may predict states or observables. The network is called on the
    last dimension of the prediction, with the time in front of it if ``with_time``.

    Args:
        science: an ``hsb.InitialValueModel`` or any module that returns ``(*batch, T, m)``.
        neural: (..., m) -> (..., m), or (..., 1 + m) -> (..., m) ``with_time``.
        mask: (m,) of bool, which observables are corrected; None for all. scale: as in ``hsb.Additive``.
        with_time: hand the time to the network; the first argument of the call must then be ``ts`` (T,).
    """

    hsb_roles = {"science": SCIENCE, "neural": NEURAL, "": NEURAL}  # noqa: RUF012 - never changed

    mask: torch.Tensor | None
    scale: torch.Tensor | None

    def __init__(
        self,
        science: nn.Module,
        neural: nn.Module,
        mask: torch.Tensor | Sequence[Any] | None = None,
        scale: float | torch.Tensor | None = None,
        *,
        with_time: bool = False,
    ):
        super().__init__()
        _check_modules(science=science, neural=neural)
        self.science, self.neural, self.with_time = science, neural, with_time
        self.register_buffer("mask", None if mask is None else as_mask(mask, tuple(torch.as_tensor(mask).shape)))
        value = None if scale is None else as_scale(scale)
        if isinstance(value, nn.Parameter):
            self.scale = value
        else:
            self.register_buffer("scale", value)

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The corrected prediction; arguments are those of ``science``."""
        predicted = self.science(*args, **kwargs)
        features = predicted
        if self.with_time:
            ts = args[0] if args else kwargs["ts"]
            column = ts.to(predicted.dtype).unsqueeze(-1).expand(*predicted.shape[:-1], 1)
            features = torch.cat([column, predicted], -1)
        added = call_network(self.neural, features)
        if added.shape != predicted.shape:
            raise InvalidInput(
                f"neural: must return the shape of the prediction {tuple(predicted.shape)}, it returned "
                f"{tuple(added.shape)}."
            )
        for factor in (self.mask, self.scale):
            if factor is not None:
                added = added * factor.to(added.dtype)
        return predicted + added


class ParameterEncoder(nn.Module):
    """A network maps each sample's inputs to its own parameters, initial state, or both.

    Parameters reach the field as its context, after what the batch brings of it: the field reads them from
    ``context`` in the order of their declarations. A network that returns zero gives the declared initial
    values, wherever its output goes the bounds hold.

    Args:
        model: called as ``model(ts, y0=..., context=...)``, such as an ``hsb.InitialValueModel``.
        encoder: (B, *inputs) -> (B, k), k the count of all declared numbers.
        parameters: declared per-sample parameters, by name. initial_state: the same for y0, which is their values
            in order.
    """

    hsb_roles = {"model": SCIENCE, "encoder": NEURAL}  # noqa: RUF012 - never changed

    parameters_: dict[str, Param]
    states_: dict[str, Param]

    def __init__(
        self,
        model: nn.Module,
        encoder: nn.Module,
        parameters: Mapping[str, Param] | None = None,
        initial_state: Mapping[str, Param] | None = None,
    ):
        super().__init__()
        _check_modules(model=model, encoder=encoder)
        self.model, self.encoder = model, encoder
        self.__dict__["parameters_"] = dict(parameters or {})
        self.__dict__["states_"] = dict(initial_state or {})
        if not self.parameters_ and not self.states_:
            raise InvalidInput("ParameterEncoder: declare parameters, initial_state, or both.")
        both = set(self.parameters_) & set(self.states_)
        if both:
            raise InvalidInput(f"{sorted(both)[0]}: is declared both as a parameter and as initial state.")
        for name, declaration in {**self.parameters_, **self.states_}.items():
            declaration.check(name)
            raw = declaration.inverse(torch.as_tensor(declaration.initial, dtype=torch.float64)).reshape(-1)
            self.register_buffer(f"start_{name}", raw)

    def encode(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Physical values of each sample, by name: (B, size of the declaration)."""
        raw = call_network(self.encoder, inputs).double()
        declared = {**self.parameters_, **self.states_}
        sizes = [getattr(self, f"start_{name}").numel() for name in declared]
        if raw.ndim != 2 or raw.shape[-1] != sum(sizes):
            raise InvalidInput(f"encoder: must return (B, {sum(sizes)}), it returned shape {tuple(raw.shape)}.")
        pieces = raw.split(sizes, -1)
        return {
            name: declaration.forward(getattr(self, f"start_{name}") + piece)
            for (name, declaration), piece in zip(declared.items(), pieces, strict=True)
        }

    def forward(
        self,
        ts: torch.Tensor,
        inputs: torch.Tensor,
        y0: torch.Tensor | None = None,
        context: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The model's prediction (B, T, ...) with each sample's own parameters; context (B, nc) or None."""
        values = self.encode(inputs)
        if self.parameters_:
            own = torch.cat([values[name] for name in self.parameters_], -1)
            context = own if context is None else torch.cat([context.double(), own], -1)
        if self.states_:
            y0 = torch.cat([values[name] for name in self.states_], -1)
        given = {"y0": y0, "context": context}
        return self.model(ts, **{key: value for key, value in given.items() if value is not None})


class Composed(nn.Module):
    """Stages one after the other: network of science of network, with or without a solve.

    A stage that returns a tuple hands its entries to the next as separate arguments.

    Args:
        stages: modules, called in order; the first gets the arguments of the call.
        roles: "neural" or "science" for each stage; None takes the usual rule (see ``hsb.neural_parameters``).
    """

    def __init__(self, *stages: nn.Module, roles: Sequence[str] | None = None):
        super().__init__()
        if not stages:
            raise InvalidInput("Composed: pass at least one stage.")
        _check_modules(**{f"stage_{i}": stage for i, stage in enumerate(stages)})
        if roles is not None and (len(roles) != len(stages) or set(roles) - {NEURAL, SCIENCE}):
            raise InvalidInput(f'roles: one of "neural" and "science" a stage is needed, got {list(roles)!r}.')
        self.stages = nn.ModuleList(stages)
        for stage, role in zip(stages, roles or [], strict=False):
            stage.hsb_role = role  # type: ignore[assignment]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The last stage's output."""
        value: Any = self.stages[0](*args, **kwargs)
        for stage in self.stages[1:]:
            value = stage(*value) if isinstance(value, tuple) else stage(value)
        return value


def call_network(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The network in its own precision, the result in that of ``x``."""
    first = next((p for p in network.parameters() if p.is_floating_point()), None)
    if first is None or first.dtype == x.dtype:
        return network(x)
    return network(x.to(first.dtype)).to(x.dtype)


def _check_modules(**modules: Any) -> None:
    for name, module in modules.items():
        if not isinstance(module, nn.Module):
            raise InvalidInput(f"{name}: must be a torch.nn.Module, got {type(module).__name__}.")
