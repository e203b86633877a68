"""Settings of a detector, once: dataclass fields that are at the same time the options of the command line (`--set
name=value`), the inputs of the app's training form, and the header stored beside the weights. Each field carries its own
explanation, its group and its allowed values, so that none of the three repeats them.

"[P]" marks what the paper states (arXiv 2003.10713v3), "[C]" what the authors' released code uses, "[D]" our decision.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from ama_core.errors import ConfigError

FALSE_ALARM_RATE = 0.05  # where nothing else is asked for
LEAST_RATE = 1e-6  # a smaller one would need over a million held-out images; the largest is as far from 1


def setting(default, doc: str, group: str, *, choices: tuple = (), low: float | None = None, high: float | None = None):
    """A dataclass field with its explanation, its group and the values it may take (bounds are inclusive)."""
    metadata = {"doc": doc, "group": group, "choices": choices, "low": low, "high": high}
    return dataclasses.field(default=default, metadata=metadata)


def schedule_setting(**more: str):
    """The field `lr_schedule`, with further choices: their names, and what each of them does."""
    doc = (
        "How lr falls: x0.1 at 30, 60 and 90 % of the steps [C]; linearly to zero over the last lr_fall of the run, which "
        "suits short runs; or not at all."
    )
    doc += "".join(f" {name}: {what}" for name, what in more.items())
    return setting("steps", doc, "Training", choices=("steps", "linear", "constant", *more))


@dataclass(frozen=True)
class InputSpec:
    """How a detector sees images: square, `size` pixels a side, 1 or 3 `channels`, made to fit by `fit`."""

    size: int
    channels: int
    fit: str


@dataclass(frozen=True)
class Settings:
    """What every detector has: how it sees images, its seed, and how it is calibrated; immutable, validated when made.

    A detector's own settings are fields of a subclass, each made by `setting`.

    Raises:
        ConfigError: a value has the wrong type, lies outside its range, or contradicts another one.
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {}, "small": {}, "paper": {}}

    image_size: int = setting(
        32, "Side of the square input in pixels; 64 and 128 add one stage each.", "Images", choices=(32, 64, 128)
    )
    channels: int = setting(3, "1 for grey, 3 for colour.", "Images", choices=(1, 3))
    fit: str = setting(
        "crop",
        "How other sizes become square: pad on black (28x28 to 32x32), crop the centre and resize, or stretch. "
        "The same for normal and anomalous images.",
        "Images",
        choices=("pad", "crop", "stretch"),
    )
    seed: int = setting(
        0, "Seed of initialisation, batches, noise and of the held-out split.", "Training", low=0, high=2**31 - 1
    )
    calibration_fraction: float = setting(
        0.1,
        "Fraction of the normal training images held out: half to fit the scores' statistics, half for p-values. [D] 0.1.",
        "Calibration",
        low=0.01,
        high=0.5,
    )
    false_alarm_rate: float = setting(
        FALSE_ALARM_RATE,
        "The alpha of this model where none is asked for: an image is flagged when its conformal p-value is at most alpha.",
        "Calibration",
        low=LEAST_RATE,
        high=1 - LEAST_RATE,
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check_value(field, getattr(self, field.name))

    @property
    def input(self) -> InputSpec:
        """How the detector sees images: side in pixels, channels, fit."""
        return InputSpec(self.image_size, self.channels, self.fit)

    def replace(self, **changes: Any) -> Self:
        """A copy with `changes`; strings are parsed to each field's type. Raises ConfigError."""
        return type(self).from_dict({**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Every setting by its name; `from_dict` reads it."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """The same as `to_dict`, as an indented JSON object."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from names and values, which may be strings as typed by a user. Raises ConfigError."""
        if not isinstance(values, Mapping):
            raise ConfigError(f"Hyper-parameters must be names with values, got {type(values).__name__}.")
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(fields))
        if unknown:
            raise ConfigError(f"Unknown hyper-parameter {', '.join(unknown)}. Known: {', '.join(fields)}.")
        return cls(**{name: _parse(fields[name], value) for name, value in values.items()})

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """The settings of a preset, a key of PRESETS, with `changes`. Raises ConfigError."""
        if name not in cls.PRESETS:
            raise ConfigError(f"This detector has no preset {name!r}. Known: {', '.join(cls.PRESETS)}.")
        return cls.from_dict({**cls.PRESETS[name], **changes})


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """What every detector that is trained by gradient steps has besides: length, batches, learning rate, arithmetic."""

    epochs: int = setting(100, "Passes over the training data. [C] 100.", "Training", low=1, high=100_000)
    max_steps: int = setting(0, "Stop after this many steps even if epochs remain; 0: epochs alone decide.", "Training", low=0)
    batch_size: int = setting(
        256, "Images per step; the last incomplete batch is dropped. [C] 256.", "Training", low=2, high=65_536
    )
    lr: float = setting(3e-4, "Adam's learning rate. [C] 3e-4.", "Training", low=1e-8, high=1.0)
    lr_schedule: str = schedule_setting()
    lr_fall: float = setting(
        0.5, "Fraction of the run in which lr falls, with lr_schedule=linear. [D] 0.5.", "Training", low=0.01, high=1.0
    )
    average: float = setting(
        0.0,
        "Decay of an exponential moving average of the weights, which is then what scores images; 0: the last step's "
        "weights. [C] 0.",
        "Training",
        low=0.0,
        high=0.99999,
    )
    precision: str = setting(
        "auto",
        "Arithmetic of the networks while training: bf16 autocast or fp32. auto takes bf16 where the hardware has it. "
        "Penalty norm, scores and calibration are always fp32.",
        "Training",
        choices=("auto", "fp32", "bf16"),
    )

    def total_steps(self, n_images: int) -> int:
        """Steps of a whole run on `n_images` training images."""
        steps = self.epochs * (n_images // self.batch_size)
        return min(steps, self.max_steps) if self.max_steps else steps

    def with_batch_size(self, size: int) -> Self:
        """A copy with batches of `size` images, and what else has to follow from that. Raises ConfigError."""
        return self.replace(batch_size=size)


def _parse(field: dataclasses.Field, value: Any) -> Any:
    """Strings to the field's type; everything else is left to validation."""
    kind = type(field.default)
    if isinstance(value, str) and kind is not str:
        try:
            return kind(value)
        except ValueError:
            raise ConfigError(f"{field.name} = {value!r} is not a{'n integer' if kind is int else ' number'}.") from None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ConfigError(f"{field.name} is far too large.") from None
    return value


def _check_value(field: dataclasses.Field, value: Any) -> None:
    kind, meta = type(field.default), field.metadata
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
        raise ConfigError(f"{field.name} = {value!r} must be of type {kind.__name__}.")
    if meta["choices"] and value not in meta["choices"]:
        raise ConfigError(f"{field.name} = {value!r} must be one of {', '.join(map(str, meta['choices']))}.")
    if isinstance(value, (int, float)):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{field.name} = {value} must be finite.")
        if meta["low"] is not None and value < meta["low"]:
            raise ConfigError(f"{field.name} = {value} must be at least {meta['low']}.")
        if meta["high"] is not None and value > meta["high"]:
            raise ConfigError(f"{field.name} = {value} must be at most {meta['high']}.")
