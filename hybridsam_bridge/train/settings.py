"""The configuration of a training run, validated; errors point at the key."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hybridsam_bridge import methods
from hybridsam_bridge.errors import InvalidInput

Positive = Field(gt=0)
NotNegative = Field(ge=0)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class TaskSettings(_Section):
    """``name``: a built-in task, a module's dotted name, or a .py file with ``build(options, solver)``."""

    name: str = "hare_lynx"
    options: dict[str, Any] = {}


class SolverSettings(_Section):
    """Options of ``hsb.solve`` for the task's models; what is left out is the task's own choice."""

    method: str | None = None
    rtol: float | None = Field(default=None, gt=0)
    atol: float | None = Field(default=None, ge=0)
    adjoint: Literal[methods.ADJOINTS] | None = None  # type: ignore[valid-type]
    backend: Literal[methods.BACKENDS] | None = None  # type: ignore[valid-type]
    max_steps: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _known_method(self) -> SolverSettings:
        if self.method not in (None, "auto"):
            methods.lookup(str(self.method))
        return self


class OptimizerSettings(_Section):
    """``kind`` "base" trains with the base optimizer alone. ``perturb`` is for the sharpness-aware kinds."""

    kind: Literal["SAM", "ASAM", "LookSAM", "base"] = "SAM"
    base: Literal["Adam", "AdamW", "SGD", "RMSprop"] = "Adam"
    lr: float = Field(default=1e-2, gt=0)
    science_lr: float | None = Field(default=None, ge=0)
    rho: float = Field(default=0.05, ge=0)
    perturb: Literal["neural", "all"] = "neural"
    every: int = Field(default=5, gt=0)
    alpha: float = Field(default=0.7, ge=0)
    eta: float = Field(default=0.01, ge=0)
    clip_grad_norm: float | None = Field(default=None, gt=0)


class TrainSettings(_Section):
    """``steps`` or ``epochs``; ``threads`` of torch (a solve has its own); the rest as in ``hsb.Trainer``."""

    steps: int | None = Field(default=None, ge=0)
    epochs: int | None = Field(default=None, ge=0)
    batch_size: int | None = Field(default=None, gt=0)
    validate_every: int | None = Field(default=None, gt=0)
    patience: int | None = Field(default=None, gt=0)
    seed: int = Field(default=0, ge=0)
    on_failure: Literal["skip", "drop", "stop"] = "skip"
    max_failures: int = Field(default=20, gt=0)
    checkpoint_every: int | None = Field(default=None, gt=0)
    log_every: int = Field(default=1, gt=0)
    threads: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_length(self) -> TrainSettings:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give one of steps and epochs")
        return self


class OutputSettings(_Section):
    """``folder``: where run folders are made."""

    folder: str = "runs"


class Settings(_Section):
    """A whole configuration; every section may be left out."""

    task: TaskSettings = TaskSettings()
    solver: SolverSettings = SolverSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    train: TrainSettings = TrainSettings()
    output: OutputSettings = OutputSettings()


def read(path: Path | None, changes: list[str], start: dict[str, Any] | None = None) -> dict[str, Any]:
    """A configuration file (TOML), or ``start``, with ``key=value`` changes applied, not yet checked."""
    data: dict[str, Any] = start or {}
    if path is not None:
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InvalidInput(f"config: {path} is not there.") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidInput(f"config: {path} is not valid TOML: {error}.") from error
    for change in changes:
        _apply(data, change)
    return data


def check(data: dict[str, Any], origin: str) -> Settings:
    """The settings, or ``InvalidInput`` with a line for each wrong key."""
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        lines = [f"  {'.'.join(str(k) for k in e['loc']) or 'config'}: {_say(e)}" for e in error.errors()]
        raise InvalidInput(f"{origin} is not valid:\n" + "\n".join(lines)) from None


def _say(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        section = Settings.model_fields.get(str(error["loc"][0])) if len(error["loc"]) > 1 else None
        kind = section.annotation if section is not None else Settings
        return f"is not a known key. Known here: {', '.join(getattr(kind, 'model_fields', {}))}."
    return f"{error['msg']}, got {error['input']!r}." if not isinstance(error["input"], dict) else f"{error['msg']}."


def _apply(data: dict[str, Any], change: str) -> None:
    key, sign, text = change.partition("=")
    if not sign or not key.strip():
        raise InvalidInput(f"--set {change!r}: write key=value, for example --set optimizer.rho=0.1.")
    names = key.strip().split(".")
    target = data
    for name in names[:-1]:
        target = target.setdefault(name, {})
        if not isinstance(target, dict):
            raise InvalidInput(f"--set {change!r}: {name} is a value, not a section.")
    target[names[-1]] = _value(text)


def _value(text: str) -> Any:
    """The value as TOML reads it; what is no TOML value is a string."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text.strip()
