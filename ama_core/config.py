"""Every hyper-parameter, once.

The fields of `Config` are at the same time the options of the command line (`--set name=value`), the inputs of the app's
training form, and the header stored beside the weights. Each carries its own explanation and its allowed values, so that
none of the three repeats them.

"[P]" marks what the paper states (arXiv 2003.10713v3), "[C]" what the authors' released code uses, "[D]" our decision.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ama_core.errors import ConfigError


def _field(default, doc: str, *, choices: tuple = (), low: float | None = None, high: float | None = None):
    """A dataclass field with its explanation and the values it may take (bounds are inclusive)."""
    return dataclasses.field(default=default, metadata={"doc": doc, "choices": choices, "low": low, "high": high})


@dataclass(frozen=True)
class Config:
    """Hyper-parameters of one AMA training; immutable and validated when made.

    Raises:
        ConfigError: a value has the wrong type, lies outside its range, or contradicts another one.
    """

    # What is trained
    mode: str = _field(
        "paper",
        "Follow the paper's text, or the released code where it departs from it (detached simplex decode, penalty per "
        "pixel, simplex weights 1-a1-a2, atypical codes as scaled encodings, regulariser and simplex codes from the normal "
        "images alone, real anomalies from the first step).",
        choices=("paper", "released"),
    )
    reconstruction: str = _field(
        "mirrored",
        "Mirrored Wasserstein loss on image pairs (Eq. 1), or the plain Wasserstein ablation on single images.",
        choices=("mirrored", "plain"),
    )

    # Images
    image_size: int = _field(32, "Side of the square input in pixels; 64 and 128 add one stage each.", choices=(32, 64, 128))
    channels: int = _field(3, "1 for grey, 3 for colour.", choices=(1, 3))
    fit: str = _field(
        "crop",
        "How other sizes become square: pad on black (28x28 to 32x32), crop the centre and resize, or stretch. "
        "The same for normal and anomalous images.",
        choices=("pad", "crop", "stretch"),
    )

    # Networks
    nz: int = _field(128, "Latent dimension d; the shell has radius sqrt(d). [C] 128.", low=2, high=4096)
    width_encoder: int = _field(64, "Channels of the encoder's first layer; doubled twice. [C] 64.", low=4, high=1024)
    width_generator: int = _field(256, "Channels of every generator block. [C] 256.", low=4, high=1024)
    width_critic: int = _field(128, "Channels of every critic block = length of the feature f. [C] 128.", low=4, high=1024)

    # Objective
    lambda_gp: float = _field(10.0, "Weight of the gradient penalty; 0 leaves it out. [C] 10.", low=0.0)
    lambda_inter: float = _field(0.2, "Weight of the simplex interpolation term; 0 leaves it out. [C] 0.2.", low=0.0)
    k: int = _field(3, "Number of images mixed by the simplex interpolation. [P] 3.", low=2, high=8)
    gp_fraction: float = _field(
        1.0, "Part of the batch on which the gradient penalty is estimated; less is cheaper. [C] 1.", low=0.01, high=1.0
    )
    inter_fraction: float = _field(
        1.0, "Part of the batch on which the simplex term is estimated; less is cheaper. [C] 1.", low=0.01, high=1.0
    )
    lambda_reg: float = _field(1.0, "Weight of the latent regulariser. [C] 1.", low=0.0)
    reg: str = _field(
        "norm",
        "Latent regulariser: mean ||z|| (shrinks every code) or hinge max(||z|| - sqrt(d), 0) (only those outside the shell).",
        choices=("norm", "hinge"),
    )
    atypical: str = _field(
        "inward",
        "Where synthetic negatives are drawn: just inside or outside the shell ||z|| = sqrt(d), from a cube at the origin "
        "(sipple), or nowhere. [C] inward; the paper's directions per data set are in an appendix that is not at hand.",
        choices=("inward", "outward", "sipple", "none"),
    )
    delta: float = _field(
        3.0,
        "Thickness of the layer of atypical codes beside the shell, in latent units. [D] 3: the paper's values per data set "
        "are in an appendix that is not at hand.",
        low=0.0,
    )
    lambda_neg: float = _field(5.0, "Weight of negative images, with opposite sign. [C] 5.", low=0.0)
    negative_fraction: float = _field(0.1, "Part of each batch that is negative after the warm-up. [C] 0.1.", low=0.0, high=0.5)
    warmup: float = _field(
        0.1,
        "Fraction of the training before negatives are used. [C] epoch 11 of 100: 0.1; 0.11 where only mode=released is given.",
        low=0.0,
        high=1.0,
    )

    # Training
    epochs: int = _field(100, "Passes over the training data. [C] 100.", low=1, high=100_000)
    max_steps: int = _field(0, "Stop after this many E/G steps even if epochs remain; 0: epochs alone decide.", low=0)
    batch_size: int = _field(256, "Images per step; the last incomplete batch is dropped. [C] 256.", low=2, high=65_536)
    n_critic: int = _field(5, "Critic steps per E/G step, on the same batch. [C] 5.", low=1, high=100)
    lr: float = _field(3e-4, "Adam's learning rate. [C] 3e-4.", low=1e-8, high=1.0)
    beta1_encoder: float = _field(0.5, "Adam's decay of the mean gradient for E. [C] 0.5.", low=0.0, high=0.9999)
    beta1_generator: float = _field(0.0, "Adam's decay of the mean gradient for G. [C] 0.", low=0.0, high=0.9999)
    beta1_critic: float = _field(0.0, "Adam's decay of the mean gradient for D. [C] 0.", low=0.0, high=0.9999)
    beta2: float = _field(0.9, "Adam's decay of the mean squared gradient, for all three. [C] 0.9.", low=0.0, high=0.9999)
    lr_schedule: str = _field(
        "steps",
        "How lr falls: x0.1 at 30, 60 and 90 % of the steps [C]; linearly to zero over the last lr_fall of the run, which "
        "suits short runs; or not at all.",
        choices=("steps", "linear", "constant"),
    )
    lr_fall: float = _field(0.5, "Fraction of the run in which lr falls, with lr_schedule=linear. [D] 0.5.", low=0.01, high=1.0)
    average: float = _field(
        0.0,
        "Decay of an exponential moving average of the weights, which is then what scores images; 0: the last step's weights. "
        "[C] 0.",
        low=0.0,
        high=0.99999,
    )
    seed: int = _field(0, "Seed of initialisation, batches, noise and of the held-out split.", low=0, high=2**31 - 1)
    precision: str = _field(
        "auto",
        "Arithmetic of the networks while training: bf16 autocast or fp32. auto takes bf16 where the hardware has it. "
        "Penalty norm, scores and calibration are always fp32.",
        choices=("auto", "fp32", "bf16"),
    )

    # Calibration
    calibration_fraction: float = _field(
        0.1,
        "Part of the normal training images held out: half to fit the scores' statistics, half for p-values. [D] 0.1.",
        low=0.01,
        high=0.5,
    )
    false_alarm_rate: float = _field(
        0.05, "Default alpha: an image is flagged when its conformal p-value is at most alpha.", low=1e-6, high=0.5
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check_value(field, getattr(self, field.name))
        if self.k > self.batch_size:
            raise ConfigError(f"k = {self.k} images cannot be mixed from a batch of {self.batch_size}: raise batch_size.")

    @property
    def radius(self) -> float:
        """Radius sqrt(d) of the latent shell."""
        return math.sqrt(self.nz)

    @property
    def uses_negatives(self) -> bool:
        """Whether synthetic negatives take part at all (Section "Atypical selection")."""
        return self.atypical != "none" and self.n_negatives > 0

    @property
    def n_negatives(self) -> int:
        """Negative rows of a batch once negatives take part, real or synthetic: 0 where they have no part or no weight."""
        if self.negative_fraction == 0 or self.lambda_neg == 0:
            return 0
        return max(1, round(self.negative_fraction * self.batch_size))

    @property
    def betas(self) -> dict[str, tuple[float, float]]:
        """Adam's (beta1, beta2) of each network."""
        first = {"E": self.beta1_encoder, "G": self.beta1_generator, "D": self.beta1_critic}
        return {name: (beta1, self.beta2) for name, beta1 in first.items()}

    def replace(self, **changes: Any) -> "Config":
        """A copy with `changes`; strings are parsed to each field's type. Raises ConfigError."""
        return Config.from_dict({**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """Build from names and values, which may be strings as typed by a user; what is left out has the default of its mode.

        Raises ConfigError.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"Hyper-parameters must be names with values, got {type(values).__name__}.")
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(fields))
        if unknown:
            raise ConfigError(f"Unknown hyper-parameter {', '.join(unknown)}. Known: {', '.join(fields)}.")
        mode = values.get("mode")
        values = {**(MODE_DEFAULTS.get(mode, {}) if isinstance(mode, str) else {}), **values}
        return cls(**{name: _parse(fields[name], value) for name, value in values.items()})


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


# Where the released code has another default than the paper.
MODE_DEFAULTS: dict[str, dict[str, Any]] = {"released": {"warmup": 0.11}}

PRESETS: dict[str, dict[str, Any]] = {
    # Learns a small grey set on 2 CPU cores in about 2 minutes. Short runs want a late and light push away from the
    # negatives: with the paper's weight from 10 % on, normal images are un-learned as well (measured on FashionMNIST).
    "tiny": dict(
        nz=32, width_encoder=16, width_generator=24, width_critic=24, batch_size=64, n_critic=1, gp_fraction=0.25,
        inter_fraction=0.25, reg="hinge", atypical="outward", delta=1.0, lambda_neg=1.0, warmup=0.6, epochs=1000,
        max_steps=700, lr=5e-4, lr_schedule="linear",
    ),
    # CPU in under an hour, GPU in a minute or two.
    "small": dict(
        nz=64, width_encoder=32, width_generator=40, width_critic=40, batch_size=64, n_critic=1, gp_fraction=0.25,
        inter_fraction=0.25, reg="hinge", atypical="outward", delta=1.0, lambda_neg=1.0, warmup=0.6, epochs=1000,
        max_steps=2500, lr=5e-4, lr_schedule="linear",
    ),
    # The sizes and settings of the paper and of the released code.
    "paper": {},
}  # fmt: skip


def preset(name: str, **changes: Any) -> Config:
    """The configuration of a preset (`tiny`, `small`, `paper`) with `changes`. Raises ConfigError."""
    if name not in PRESETS:
        raise ConfigError(f"Unknown preset {name!r}. Known: {', '.join(PRESETS)}.")
    return Config.from_dict({**PRESETS[name], **changes})
