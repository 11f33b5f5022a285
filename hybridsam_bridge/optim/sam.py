"""Sharpness-aware minimization over a chosen part of the parameters."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer

from hybridsam_bridge.errors import InvalidInput
from hybridsam_bridge.optim.ascent import Item, all_finite, ascent
from hybridsam_bridge.optim.replay import RandomState, frozen_statistics, with_grad


class SAM(Optimizer):
    """min over w of max over ||ε|| <= ρ of L(w + ε), where ε moves only the parameters in ``perturb``.

    A step takes the gradient, moves the perturbed subset by ε = ρ g / ||g|| (norm over that subset alone),
    takes all gradients there, restores the weights bit for bit (also when the closure raises) and lets the
    base optimizer step. It costs two gradients, so two solves forward and back. Both passes see the same
    random numbers; running statistics of batch norms move only in the first. With ρ = 0 it is the base
    optimizer, in one pass.

    Groups of the base may set their own ``rho`` and ``adaptive``: each group moves by its own ρ along the
    common direction, and a group with ρ = 0 is not part of the perturbed subset. ``step`` clears the
    gradients before each pass; to accumulate over micro-batches, call ``backward`` several times inside the
    closure. A hook for the gradients that the base will see: ``base.register_step_pre_hook``.

    Args:
        base_optimizer: an instance such as ``torch.optim.Adam(model.parameters(), lr=1e-3)``.
        rho: radius of the neighbourhood, in the units of the parameters.
        adaptive: scale ε by |w| element by element (see ``ASAM``).
        perturb: parameters to perturb, for example ``hsb.neural_parameters(model)``; None takes all.
        clip_grad_norm: bound on the norm of the gradient of all parameters before the base step.

    Attributes:
        gap: L(w + ε) - L(w) of the last step, nan where no second pass ran: a measure of sharpness.
        cost: time of the last step over that of a plain step of the base (its first pass and descent), nan where no
            second pass ran. The passes share compiled programs and buffers but no numbers, not even a first step
            size: a solve depends on its arguments alone, and choosing a step takes two of the 75 evaluations of a
            solve of the benchmark W3, below one percent of its gradient, and less of stiff ones.
        skipped: steps not taken because a gradient was not finite. flat: steps taken without a perturbation
            because the gradient of the perturbed subset was zero.

    Source: Foret et al., "Sharpness-aware minimization for efficiently improving generalization", ICLR 2021
    (arXiv:2010.01412); on the network of a hybrid model alone: Takeishi, arXiv:2602.06837.

    Raises:
        InvalidInput: an argument is unusable, or ``perturb`` names a parameter that the base does not train.
    """

    eta = 0.0

    def __init__(
        self,
        base_optimizer: Optimizer,
        rho: float = 0.05,
        adaptive: bool = False,
        perturb: Iterable[torch.Tensor] | None = None,
        *,
        clip_grad_norm: float | None = None,
    ):
        _check_base(base_optimizer)
        _check_number("rho", rho, least=0.0)
        if clip_grad_norm is not None:
            _check_number("clip_grad_norm", clip_grad_norm, least=0.0)
        self.base = base_optimizer
        self.clip_grad_norm = clip_grad_norm
        self.perturb = None if perturb is None else _check_perturb(perturb, base_optimizer)
        self.gap = math.nan
        self.cost = math.nan
        self.skipped = 0
        self.flat = 0
        super().__init__(base_optimizer.param_groups, {"rho": float(rho), "adaptive": bool(adaptive)})

    # Groups and state are the base's own, so that schedulers, clipping and GradScaler act on one object.
    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.base.param_groups

    @param_groups.setter
    def param_groups(self, value: Any) -> None:
        """Ignored: ``Optimizer.__init__`` sets an empty list."""

    @property
    def state(self) -> Any:
        return self.base.state

    @state.setter
    def state(self, value: Any) -> None:
        """Ignored: ``Optimizer.__init__`` sets an empty dict."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; the group may set ``rho`` and ``adaptive``. Not perturbed if ``perturb`` was given."""
        if not any(param_group is group for group in self.base.param_groups):
            self.base.add_param_group(param_group)
        for name, value in self.defaults.items():
            param_group.setdefault(name, value)
        _check_number("rho of a parameter group", param_group["rho"], least=0.0)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, grad_scaler: Any = None) -> Any:
        """One step. ``closure`` computes the loss and calls backward; its clean loss is returned.

        With mixed precision the closure calls ``scaler.scale(loss).backward()`` and returns the plain loss;
        call ``opt.step(closure, grad_scaler=scaler)`` (``scaler.step`` takes no closures), then
        ``scaler.update()`` as usual.
        """
        if not callable(closure):
            raise InvalidInput(
                "SAM.step: needs a closure that computes the loss, calls backward and returns the loss, since it "
                "evaluates the gradient twice: opt.step(closure)."
            )
        closure = with_grad(closure)
        self.gap = self.cost = math.nan
        items = self._items()
        if not items:
            return self._plain_step(closure, grad_scaler)
        return self._sharp_step(closure, grad_scaler, items)

    def _plain_step(self, closure: Callable[[], Any], grad_scaler: Any) -> Any:
        self.zero_grad()
        loss = closure()
        self._descend(grad_scaler, check=grad_scaler is not None)
        return loss

    def _sharp_step(self, closure: Callable[[], Any], grad_scaler: Any, items: list[Item]) -> Any:
        randomness = RandomState({p.device for p in self._params()})
        began = time.perf_counter()
        self.zero_grad()
        loss = closure()
        middle = time.perf_counter()
        norm = self._climb_and_look(closure, items, randomness, loss)
        extra = time.perf_counter() - middle
        if math.isfinite(norm):
            self._descend(grad_scaler, check=True)
        else:
            self._skip(grad_scaler)
        if norm > 0.0:  # neither zero nor nan: a second pass ran
            whole = time.perf_counter() - began
            self.cost = whole / (whole - extra)
        return loss

    def _climb_and_look(
        self, closure: Callable[[], Any], items: list[Item], randomness: RandomState, loss: Any
    ) -> float:
        """Replace the gradients by those at the perturbed point, unless the norm returned is 0 or not finite."""
        up = ascent(items, self.eta)
        if not up.moves:
            self.flat += up.norm == 0.0
            return up.norm
        kept = [(param, param.detach().clone()) for param, _ in up.moves]
        try:
            for param, move in up.moves:
                param.add_(move)
            with frozen_statistics():
                randomness.restore()
                self.zero_grad()
                perturbed = closure()
        finally:
            for param, value in kept:
                param.copy_(value)
        self.gap = _difference(perturbed, loss)
        return up.norm

    def _descend(self, grad_scaler: Any, check: bool) -> None:
        if grad_scaler is not None:
            grad_scaler.unscale_(self)
        if check and not all_finite(self._params()):
            self.skipped += 1
            return
        if self.clip_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._params(), self.clip_grad_norm)
        self.base.step()

    def _skip(self, grad_scaler: Any) -> None:
        self.skipped += 1
        if grad_scaler is not None:
            grad_scaler.unscale_(self)  # records the overflow, so that update() lowers the scale

    def _params(self) -> list[torch.Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _items(self) -> list[Item]:
        chosen = None if self.perturb is None else {id(p) for p in self.perturb}
        return [
            Item(p, float(group["rho"]), bool(group["adaptive"]))
            for group in self.param_groups
            if group["rho"] != 0
            for p in group["params"]
            if chosen is None or id(p) in chosen
        ]

    def state_dict(self) -> dict[str, Any]:
        """The base optimizer's state dict, with this optimizer's counters under "sam"."""
        return {**self.base.state_dict(), "sam": self._own_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict`` returned; the base optimizer's own state dict will do as well."""
        self.base.load_state_dict({key: value for key, value in state_dict.items() if key != "sam"})
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
        self._load_own_state(state_dict.get("sam", {}))

    def _own_state(self) -> dict[str, Any]:
        return {"skipped": self.skipped, "flat": self.flat}

    def _load_own_state(self, state: dict[str, Any]) -> None:
        self.skipped = int(state.get("skipped", 0))
        self.flat = int(state.get("flat", 0))

    def __getstate__(self) -> dict[str, Any]:
        # A scheduler puts a wrapper bound to this very object under "step"; hooks may hold anything.
        return {k: v for k, v in self.__dict__.items() if k != "step" and not k.startswith("_optimizer_")}


class ASAM(SAM):
    """Adaptive SAM: ε = ρ T² g / ||T g|| with T = |w| + eta, so that rescaling a layer changes nothing.

    Costs two gradients a step, as SAM. A larger ρ is usual (the paper's 0.5 against 0.05).

    Args:
        eta: added to |w|, so that weights at zero can move. The others are those of ``SAM``.

    Source: Kwon et al., "ASAM: Adaptive sharpness-aware minimization for scale-invariant learning of deep
    neural networks", ICML 2021 (arXiv:2102.11600), eq. 5, with the stabilising eta of its section 4.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        rho: float = 0.5,
        eta: float = 0.01,
        perturb: Iterable[torch.Tensor] | None = None,
        *,
        clip_grad_norm: float | None = None,
    ):
        _check_number("eta", eta, least=0.0)
        super().__init__(base_optimizer, rho, True, perturb, clip_grad_norm=clip_grad_norm)
        self.eta = float(eta)


def _check_base(base: Any) -> None:
    if isinstance(base, type) or not isinstance(base, Optimizer):
        got = base.__name__ if isinstance(base, type) else type(base).__name__
        raise InvalidInput(
            f"base_optimizer: must be an optimizer's instance, got {got}. "
            "Write hsb.SAM(torch.optim.Adam(model.parameters(), lr=1e-3))."
        )
    if isinstance(base, (SAM, torch.optim.LBFGS)):
        raise InvalidInput(
            f"base_optimizer: {type(base).__name__} evaluates the loss more than once a step and cannot be the "
            "base; take a first-order optimizer such as Adam or SGD."
        )


def _check_perturb(perturb: Iterable[torch.Tensor], base: Optimizer) -> list[torch.Tensor]:
    params = [perturb] if isinstance(perturb, torch.Tensor) else list(perturb)
    if not params:
        raise InvalidInput("perturb: is empty. Pass the parameters to perturb, None for all, or take the base alone.")
    known = {id(p) for group in base.param_groups for p in group["params"]}
    for i, p in enumerate(params):
        if not isinstance(p, torch.Tensor):
            raise InvalidInput(f"perturb: must hold parameters, entry {i} is of type {type(p).__name__}.")
        if id(p) not in known:
            raise InvalidInput(
                f"perturb: entry {i}, of shape {tuple(p.shape)}, is not a parameter of the base optimizer; "
                "pass it to the base as well."
            )
    return params


def _check_number(name: str, value: Any, least: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < least:
        raise InvalidInput(f"{name}: must be a finite number of at least {least:g}, got {value!r}.")


def _difference(perturbed: Any, clean: Any) -> float:
    """perturbed - clean; nan where the closure returns no loss."""
    if perturbed is None or clean is None:
        return math.nan
    return float(torch.as_tensor(perturbed).detach()) - float(torch.as_tensor(clean).detach())
