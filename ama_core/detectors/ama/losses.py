"""The objective, term by term: tensors in, scalar out.

Signs follow the specification: y = +1 for a normal row and y = -lambda_neg for a negative one; the critic D and the
autoencoder (E, G) each *minimise* their sum of terms. Values of the critic are fp32 tensors (N,).
"""

from collections.abc import Callable

import torch
from torch import Tensor


def signs(n_normal: int, n_negative: int, lambda_neg: float, device: torch.device) -> Tensor:
    """y (n_normal + n_negative,): +1 for normal rows, then -lambda_neg for negative ones."""
    return torch.cat([torch.ones(n_normal, device=device), torch.full((n_negative,), -lambda_neg, device=device)])


def critic_wasserstein(d_real: Tensor, d_recon: Tensor, y: Tensor) -> Tensor:
    """Critic's side of the mirrored Wasserstein loss (Eq. 1): mean(-y D(x, x) + y D(x, x_hat)).

    The plain ablation is the same expression with D(x) and D(x_hat).
    """
    return (y * (d_recon - d_real)).mean()


def autoencoder_wasserstein(d_recon: Tensor, y: Tensor) -> Tensor:
    """E's and G's side of Eq. 1: mean(-y D(x, x_hat))."""
    return -(y * d_recon).mean()


def critic_simplex(d_real: Tensor, d_inter: Tensor) -> Tensor:
    """Critic's side of the simplex interpolation: mean D(x_i, G(e_hat)) - mean D(x, x), over normals and their parents.

    Args:
        d_real: D(x, x) of the normal rows, (n,).
        d_inter: D(x_i, G(e_hat)) for every parent i of every mixture, (n * parents,).
    """
    return d_inter.mean() - d_real.mean()


def autoencoder_simplex(d_inter: Tensor) -> Tensor:
    """E's and G's side of the simplex interpolation: -mean D(x_i, G(e_hat))."""
    return -d_inter.mean()


def latent_regulariser(z: Tensor, kind: str, radius: float) -> Tensor:
    """Mean over codes z (n, d) of ||z||_2 (`norm`) or max(||z||_2 - radius, 0) (`hinge`)."""
    norms = z.float().norm(dim=1)
    return (norms - radius).clamp_min(0).mean() if kind == "hinge" else norms.mean()


def gradient_penalty(
    critic: Callable[[Tensor], Tensor],
    pair: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    x_hat: Tensor,
    a: Tensor,
    *,
    per_pixel: bool = False,
) -> Tensor:
    """mean (||grad D|| - 1)^2 at the pairs (x, a x + (1 - a) x_hat), gradient with respect to the whole pair.

    Args:
        critic: D, from a pair to values (N,).
        pair: builds the critic's input from (x, y).
        x, x_hat: images (N, c, S, S), no gradient is passed on to them.
        a: mixing weights (N,) in [0, 1], one an image.
        per_pixel: the released code's reading: the norm is taken over channels only, for every pixel.
    """
    a = a.view(-1, 1, 1, 1)
    inputs = pair(x, a * x + (1 - a) * x_hat).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(inputs).sum(), inputs, create_graph=True)
    gradient = gradient.float()
    norms = gradient.norm(dim=1) if per_pixel else gradient.flatten(1).norm(dim=1)
    return (norms - 1).square().mean()
