"""Every hyper-parameter of AMA, once (see `settings`)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from ama_core.errors import ConfigError
from ama_core.settings import TrainingSettings, setting

MODES = ("paper", "released")
REGULARISERS = ("norm", "hinge")
DIRECTIONS = ("inward", "outward", "sipple")  # of atypical codes
# Where the released code has another default than the paper.
MODE_DEFAULTS: dict[str, dict[str, Any]] = {"released": {"warmup": 0.11}}

# Learns a small grey set on 2 CPU cores in about 2 minutes. Short runs want a late and light push away from the negatives: with
# the paper's weight from 10 % on, normal images are un-learned as well (measured on FashionMNIST).
_SHORT: dict[str, Any] = dict(
    batch_size=64,
    n_critic=1,
    gp_fraction=0.25,
    inter_fraction=0.25,
    reg="hinge",
    atypical="outward",
    delta=1.0,
    lambda_neg=1.0,
    warmup=0.6,
    epochs=1000,
    lr=5e-4,
    lr_schedule="linear",
    lambda_drift=0.001,  # without, rounding hid the critic's differences in 4 of 20 trainings on one class of MNIST
)
_TINY = dict(_SHORT, nz=32, width_encoder=16, width_generator=24, width_critic=24, max_steps=700)

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": _TINY,
    # CPU in under half an hour, GPU in a minute.
    "small": dict(_SHORT, nz=64, width_encoder=32, width_generator=40, width_critic=40, max_steps=2500),
    # Own photographs at 64 pixels, at about the cost of tiny at 32: the networks see 2x2 pixels as channels.
    "fast64": dict(_TINY, image_size=64, fold=2),
    # The sizes and settings of the paper and of the released code.
    "paper": {},
}


@dataclass(frozen=True)
class Config(TrainingSettings):
    """Hyper-parameters of one AMA training; immutable and validated when made.

    Raises:
        ConfigError: a value has the wrong type, lies outside its range, or contradicts another one.
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = PRESETS

    mode: str = setting(
        "paper",
        "Follow the paper's text, or the released code where it departs from it (detached simplex decode, penalty per "
        "pixel, simplex weights 1-a1-a2, atypical codes as scaled encodings, regulariser and simplex codes from the normal "
        "images alone, real anomalies from the first step).",
        "What is trained",
        choices=MODES,
    )
    reconstruction: str = setting(
        "mirrored",
        "Mirrored Wasserstein loss on image pairs (Eq. 1), or the plain Wasserstein ablation on single images.",
        "What is trained",
        choices=("mirrored", "plain"),
    )

    fold: int = setting(
        1,
        "Side of the squares of pixels that the networks see as channels: with 2, an image of 64 costs what one of 32 does. "
        "Not in the paper.",
        "Networks",
        choices=(1, 2),
    )
    nz: int = setting(128, "Latent dimension d; the shell has radius sqrt(d). [C] 128.", "Networks", low=2, high=4096)
    width_encoder: int = setting(
        64, "Channels of the encoder's first layer; doubled twice. [C] 64.", "Networks", low=4, high=1024
    )
    width_generator: int = setting(256, "Channels of every generator block. [C] 256.", "Networks", low=4, high=1024)
    width_critic: int = setting(
        128, "Channels of every critic block = length of the feature f. [C] 128.", "Networks", low=4, high=1024
    )

    lambda_gp: float = setting(10.0, "Weight of the gradient penalty; 0 leaves it out. [C] 10.", "Objective", low=0.0)
    lambda_drift: float = setting(
        0.0,
        "Weight of the mean squared value that the critic gives to (x, x). The Wasserstein loss does not fix the offset that "
        "all values share; where it grows to thousands, as over many steps, the rounding of bf16 hides the differences. Not in "
        "the paper; Karras et al. (2018) take 0.001, as the presets tiny, small and fast64 do.",
        "Objective",
        low=0.0,
    )
    lambda_inter: float = setting(
        0.2, "Weight of the simplex interpolation term; 0 leaves it out. [C] 0.2.", "Objective", low=0.0
    )
    k: int = setting(
        3,
        "Number of images mixed by the simplex interpolation, at most the normal images of a batch. [P] 3.",
        "Objective",
        low=2,
        high=8,
    )
    gp_fraction: float = setting(
        1.0,
        "Fraction of the batch on which the gradient penalty is estimated; less is cheaper. [C] 1.",
        "Objective",
        low=0.01,
        high=1.0,
    )
    inter_fraction: float = setting(
        1.0,
        "Fraction of the batch on which the simplex term is estimated; less is cheaper. [C] 1.",
        "Objective",
        low=0.01,
        high=1.0,
    )
    lambda_reg: float = setting(1.0, "Weight of the latent regulariser. [C] 1.", "Objective", low=0.0)
    reg: str = setting(
        "norm",
        "Latent regulariser: mean ||z|| (shrinks every code) or hinge max(||z|| - sqrt(d), 0) (only those outside the shell).",
        "Objective",
        choices=REGULARISERS,
    )
    atypical: str = setting(
        "inward",
        "Where synthetic negatives are drawn: just inside or outside the shell ||z|| = sqrt(d), from a cube at the origin "
        "(sipple), or nowhere. [C] inward; the paper's directions per data set are in an appendix that is not available.",
        "Objective",
        choices=(*DIRECTIONS, "none"),
    )
    delta: float = setting(
        3.0,
        "Thickness of the layer of atypical codes beside the shell, in latent units. [D] 3: the paper's values per data set "
        "are in an appendix that is not available.",
        "Objective",
        low=0.0,
    )
    lambda_neg: float = setting(5.0, "Weight of negative images, with opposite sign. [C] 5.", "Objective", low=0.0)
    negative_fraction: float = setting(
        0.1, "Fraction of each batch that is negative after the warm-up. [C] 0.1.", "Objective", low=0.0, high=0.5
    )
    warmup: float = setting(
        0.1,
        "Fraction of the training before negatives are used. [C] epoch 11 of 100: 0.1; "
        "0.11 with --set mode=released and preset paper.",
        "Objective",
        low=0.0,
        high=1.0,
    )

    n_critic: int = setting(5, "Critic steps per E/G step, on the same batch. [C] 5.", "Training", low=1, high=100)
    beta1_encoder: float = setting(0.5, "Adam's decay of the mean gradient for E. [C] 0.5.", "Training", low=0.0, high=0.9999)
    beta1_generator: float = setting(0.0, "Adam's decay of the mean gradient for G. [C] 0.", "Training", low=0.0, high=0.9999)
    beta1_critic: float = setting(0.0, "Adam's decay of the mean gradient for D. [C] 0.", "Training", low=0.0, high=0.9999)
    beta2: float = setting(
        0.9, "Adam's decay of the mean squared gradient, for all three. [C] 0.9.", "Training", low=0.0, high=0.9999
    )

    def __post_init__(self):
        super().__post_init__()
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
        """Negative rows of a batch once negatives take part, real or synthetic, at most half of it: 0 where these have no part
        or no weight.
        """
        if self.negative_fraction == 0 or self.lambda_neg == 0:
            return 0
        return min(max(1, round(self.negative_fraction * self.batch_size)), self.batch_size // 2)

    def with_batch_size(self, size: int) -> Self:
        """As `TrainingSettings.with_batch_size`, with a `k` that a batch of `size` images, negatives left out, allows."""
        smaller = self.replace(batch_size=size, k=2)
        return smaller.replace(k=max(2, min(self.k, size - smaller.n_negatives)))

    @property
    def betas(self) -> dict[str, tuple[float, float]]:
        """Adam's (beta1, beta2) of each network."""
        first = {"E": self.beta1_encoder, "G": self.beta1_generator, "D": self.beta1_critic}
        return {name: (beta1, self.beta2) for name, beta1 in first.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """As `Settings.from_dict`; what is left out has the default of its `mode`. Raises ConfigError."""
        mode = values.get("mode") if isinstance(values, Mapping) else None
        defaults = MODE_DEFAULTS.get(mode, {}) if isinstance(mode, str) else {}
        return super().from_dict({**defaults, **values} if defaults else values)


def preset(name: str, **changes: Any) -> Config:
    """AMA's hyper-parameters of a preset (`tiny`, `small`, `fast64`, `paper`) with `changes`. Raises ConfigError."""
    return Config.preset(name, **changes)
