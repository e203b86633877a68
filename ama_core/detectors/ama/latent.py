"""The latent space: the shell |z| = sqrt(d), simplex interpolation, atypical selection.

Codes are float tensors (N, d). Random draws come from the generator that is passed in, so that a resumed training repeats
them exactly.
"""

import math

import torch
from torch import Tensor

from ama_core.detectors.ama.config import DIRECTIONS, MODES
from ama_core.errors import ConfigError


def shell_ratio(z: Tensor) -> Tensor:
    """|z| / sqrt(d) for every code: (N,), fp32; 1 on the shell."""
    return z.float().norm(dim=1) / math.sqrt(z.shape[1])


def simplex_weights(n: int, k: int, rng: torch.Generator, *, mode: str = "paper") -> Tensor:
    """Mixing weights (n, k) whose rows sum to 1 (Section "Simplex interpolation").

    paper: alpha_i ~ U[0, 0.5], divided by their sum. released: all but the last ~ U[0, 0.5] scaled to keep it non-negative
    for k = 3 (a_1, a_2, 1 - a_1 - a_2).

    Raises ConfigError for another mode.
    """
    if mode not in MODES:
        raise ConfigError(f"There is no mode {mode!r}. Known: {', '.join(MODES)}.")
    if mode == "released":
        free = torch.rand(n, k - 1, generator=rng, device=rng.device) / (k - 1)
        return torch.cat([free, 1 - free.sum(dim=1, keepdim=True)], dim=1)
    # A row of zeros has probability 2^-24k; the clamp keeps even that one finite.
    alpha = (0.5 * torch.rand(n, k, generator=rng, device=rng.device)).clamp_min(1e-12)
    return alpha / alpha.sum(dim=1, keepdim=True)


def simplex_parents(n: int, k: int, rng: torch.Generator) -> Tensor:
    """Parents of n mixtures among n images: indices (n, k), each row k different images, every image used k times.

    Raises ConfigError where there are fewer than k images.
    """
    if n < k:
        raise ConfigError(f"{k} different images cannot be mixed from {n}.")
    order = torch.randperm(n, generator=rng, device=rng.device)
    return torch.stack([order.roll(-j) for j in range(k)], dim=1)


def simplex_interpolation(z: Tensor, parents: Tensor, weights: Tensor) -> Tensor:
    """e_hat = sum_i alpha_i E(x_i) / sum_i alpha_i (m, d), for codes z (N, d), parents and normalised weights (m, k).

    At least in fp32, also under autocast, which would round the weights of a matrix product to bf16: then they no longer sum
    to 1.
    """
    precise = torch.promote_types(z.dtype, torch.float32)
    return (weights.to(precise).unsqueeze(2) * z[parents].to(precise)).sum(dim=1)


def atypical_codes(n: int, d: int, direction: str, delta: float, rng: torch.Generator) -> Tensor:
    """Codes z_neg (n, d) beside the typical shell (Section "Atypical selection", paper's reading).

    Uniform in direction; radius uniform in [sqrt(d) - delta, sqrt(d)] (inward, never below 0) or [sqrt(d), sqrt(d) + delta]
    (outward). sipple: uniform in the cube [-1, 1]^d around the origin.

    Raises ConfigError for another direction.
    """
    _check_direction(direction)
    if direction == "sipple":
        return 2 * torch.rand(n, d, generator=rng, device=rng.device) - 1
    unit = torch.nn.functional.normalize(torch.randn(n, d, generator=rng, device=rng.device), dim=1)
    depth = delta * torch.rand(n, 1, generator=rng, device=rng.device)
    radius = math.sqrt(d)
    return unit * ((radius - depth).clamp_min(0) if direction == "inward" else radius + depth)


def atypical_codes_released(z: Tensor, direction: str, rng: torch.Generator) -> Tensor:
    """Codes z_neg like `z` (n, d), as the released code draws them.

    a ~ U(0, 0.5): inward a z, outward z / a; sipple: U(0, 1)^d times the smallest absolute entry of the batch's codes.

    Raises ConfigError for another direction.
    """
    _check_direction(direction)
    if direction == "sipple":
        return torch.rand(z.shape, generator=rng, device=z.device) * z.abs().min()
    a = (0.5 * torch.rand(len(z), 1, generator=rng, device=z.device)).clamp_min(1e-3)  # z / 0 is no code
    return a * z if direction == "inward" else z / a


def _check_direction(direction: str) -> None:
    if direction not in DIRECTIONS:
        raise ConfigError(f"There is no direction {direction!r}. Known: {', '.join(DIRECTIONS)}.")
