"""The objective, term by term: tensors in, scalar out.

Signs follow the specification: y = +1 for a normal row and y = -lambda_neg for a negative one; the critic D and the
autoencoder (E, G) each *minimise* their sum of terms. Values of the critic are fp32 tensors (N,).

Where several processes share a batch, `rows` (`n`, `mixtures`) is the total number of rows over all processes, and the given
rows are this process's part (see `training.distributed`); by default the given rows are all.
"""

import torch
from torch import Tensor

from ama_core.detectors.ama.config import REGULARISERS
from ama_core.errors import ConfigError
from ama_core.training import distributed


def signs(n_normal: int, n_negative: int, lambda_neg: float, device: torch.device) -> Tensor:
    """y (n_normal + n_negative,): +1 for normal rows, then -lambda_neg for negative ones."""
    return torch.cat([torch.ones(n_normal, device=device), torch.full((n_negative,), -lambda_neg, device=device)])


def critic_wasserstein(d_real: Tensor, d_recon: Tensor, y: Tensor, rows: int | None = None) -> Tensor:
    """Critic's side of the mirrored Wasserstein loss (Eq. 1): mean(-y D(x, x) + y D(x, x_hat)).

    The plain ablation is the same expression with D(x) and D(x_hat).
    """
    return _mean(y * (d_recon - d_real), rows)


def critic_drift(d_real: Tensor, rows: int | None = None) -> Tensor:
    """Mean D(x, x)^2: keeps the offset that all values of D share near zero (Karras et al. 2018, Appendix A.1)."""
    return _mean(d_real.square(), rows)


def autoencoder_wasserstein(d_recon: Tensor, y: Tensor, rows: int | None = None) -> Tensor:
    """E's and G's side of Eq. 1: mean(-y D(x, x_hat))."""
    return -_mean(y * d_recon, rows)


def critic_simplex(d_real: Tensor, d_inter: Tensor, n: int | None = None, mixtures: int | None = None) -> Tensor:
    """Critic's side of the simplex interpolation: mean D(x_i, G(e_hat)) - mean D(x, x), over normals and their parents.

    Args:
        d_real: D(x, x) of the normal rows, (n,).
        d_inter: D(x_i, G(e_hat)) for every parent i of every mixture, (mixtures * parents,).
        n, mixtures: rows of d_real and of d_inter in all.
    """
    return _mean(d_inter, mixtures) - _mean(d_real, n)


def autoencoder_simplex(d_inter: Tensor, rows: int | None = None) -> Tensor:
    """E's and G's side of the simplex interpolation: -mean D(x_i, G(e_hat))."""
    return -_mean(d_inter, rows)


def latent_regulariser(z: Tensor, kind: str, radius: float, rows: int | None = None) -> Tensor:
    """Mean over codes z (n, d) of ||z||_2 (`norm`) or max(||z||_2 - radius, 0) (`hinge`).

    Raises ConfigError for another kind.
    """
    if kind not in REGULARISERS:
        raise ConfigError(f"There is no regulariser {kind!r}. Known: {', '.join(REGULARISERS)}.")
    norms = z.float().norm(dim=1)
    return _mean((norms - radius).clamp_min(0) if kind == "hinge" else norms, rows)


def _mean(values: Tensor, rows: int | None) -> Tensor:
    return values.mean() if rows is None else distributed.mean(values, rows)
