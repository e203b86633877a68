"""The released algorithm's arithmetic as it was written down: what `training.train` computes, without any of its short cuts.

It exists to be compared with: `speed` times it beside the product, a test holds both to the same weights. Every network is
called again at every use, one call for each kind of pair, in fp32, with batches from a loader on the host. `Shortcuts` switches
on, one by one, what `training.train` does instead.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from ama_core.detectors.ama import latent, losses
from ama_core.detectors.ama.config import Config
from ama_core.detectors.ama.trainer import AMATrainer
from ama_core.detectors.modules import PooledConv2d, UpsampledConv2d, gradient_penalty


@dataclass(frozen=True)
class Shortcuts:
    """What makes training cheaper at equal mathematics; all off is the reference.

    Attributes:
        cached: reconstruct once a step, since E and G stand still while the critic learns.
        joined: one critic call for all pairs.
        channels_last: memory layout of networks and images.
        fused: Adam in one kernel.
        resampled: convolutions that pool or upsample by themselves (see `detectors.modules`).
        bf16: autocast; the penalty's norm and the critic's values stay fp32.
    """

    cached: bool = False
    joined: bool = False
    channels_last: bool = False
    fused: bool = False
    resampled: bool = False
    bf16: bool = False


@dataclass(frozen=True)
class Draws:
    """The random numbers of one step, in the order in which `training.train` draws them."""

    z_neg: Tensor | None
    parents: Tensor | None
    weights: Tensor | None
    penalties: list[tuple[Tensor, Tensor]]  # rows and mixing weights, one pair a critic step

    @classmethod
    def of(cls, config: Config, n: int, n_neg: int, rng: torch.Generator) -> "Draws":
        z_neg = latent.atypical_codes(n_neg, config.nz, config.atypical, config.delta, rng) if n_neg else None
        parents = weights = None
        if config.lambda_inter > 0:
            n_inter = max(1, round(config.inter_fraction * n))
            parents = latent.simplex_parents(n, config.k, rng)[:n_inter]
            weights = latent.simplex_weights(n_inter, config.k, rng)
        n_penalty = max(1, round(config.gp_fraction * config.batch_size))
        penalties = []
        for _ in range(config.n_critic if config.lambda_gp > 0 else 0):
            some = torch.randperm(n + n_neg, generator=rng, device=rng.device)[:n_penalty]
            penalties.append((some, torch.rand(len(some), generator=rng, device=rng.device)))
        return cls(z_neg, parents, weights, penalties)


class Reference:
    """One training, step by step, in `mode="paper"`; networks and random state as of a new `AMATrainer`."""

    def __init__(self, config: Config, device: torch.device, shortcuts: Shortcuts = Shortcuts()):
        state = AMATrainer(config, device)
        self.config, self.device, self.shortcuts = config, device, shortcuts
        self.networks, self.rng = state.networks, state.rng
        layout = torch.channels_last if shortcuts.channels_last else torch.contiguous_format
        self.networks.to(memory_format=layout)
        self.layout = layout
        for layer in self.networks.modules():
            if isinstance(layer, (PooledConv2d, UpsampledConv2d)):
                layer.joined = shortcuts.resampled
        self.optimisers = [
            torch.optim.Adam(getattr(self.networks, name).parameters(), config.lr, betas, fused=shortcuts.fused or None)
            for name, betas in config.betas.items()
        ]

    def loader(self, images: np.ndarray) -> Iterator[Tensor]:
        """Batches of normals for ever, float (n, c, S, S) in [-1, 1], shuffled and scaled on the host."""
        data = TensorDataset(torch.from_numpy(images).permute(0, 3, 1, 2))
        n = self.config.batch_size - self.n_negatives
        while True:
            for (batch,) in DataLoader(data, n, shuffle=True, drop_last=True):
                yield (batch.float() / 127.5 - 1).contiguous(memory_format=self.layout).to(self.device)

    @property
    def n_negatives(self) -> int:
        """Negatives of a batch after the warm-up."""
        return self.config.n_negatives if self.config.uses_negatives else 0

    def step(self, x_normal: Tensor) -> None:
        """n_critic critic steps and one of E and G, on normals (n, c, S, S) and as many negatives as belong to them."""
        config, networks, short = self.config, self.networks, self.shortcuts
        n, n_neg = len(x_normal), self.n_negatives
        networks.train()
        draws = Draws.of(config, n, n_neg, self.rng)
        autocast = torch.autocast(self.device.type, torch.bfloat16) if short.bf16 else nullcontext()
        with autocast:
            if short.cached:
                x = self._batch(x_normal, draws)
                z = networks.E(x)
                x_hat, x_inter = networks.G(z), self._mixture(z[:n], draws)
            for i in range(config.n_critic):
                if not short.cached:
                    x = self._batch(x_normal, draws)
                    with torch.no_grad():
                        x_hat = networks.reconstruct(x)
                        x_inter = self._mixture(networks.E(x)[:n], draws)
                self._critic_step(x, x_hat.detach(), None if x_inter is None else x_inter.detach(), n, draws, i)
            if not short.cached:
                z = networks.E(x)
                x_hat, x_inter = networks.G(z), self._mixture(z[:n], draws)
            self._autoencoder_step(x, z, x_hat, x_inter, n, draws)

    def _critic_step(self, x: Tensor, x_hat: Tensor, x_inter: Tensor | None, n: int, draws: Draws, i: int) -> None:
        config, networks = self.config, self.networks
        networks.D.requires_grad_(True)
        y = losses.signs(n, len(x) - n, config.lambda_neg, self.device)
        inputs = [networks.pair(x, x), networks.pair(x, x_hat)]
        inputs += [] if x_inter is None else [self._with_parents(x[:n], x_inter, draws)]
        d_real, d_recon, *d_inter = self._values(inputs)
        loss = losses.critic_wasserstein(d_real, d_recon, y)
        if d_inter:
            loss = loss + config.lambda_inter * losses.critic_simplex(d_real[:n], d_inter[0])
        if config.lambda_gp > 0:
            some, a = draws.penalties[i]
            if not self.shortcuts.cached:
                with torch.no_grad():
                    x_hat = networks.reconstruct(x)
            loss = loss + config.lambda_gp * gradient_penalty(networks.D, networks.pair, x[some], x_hat[some].float(), a)
        _descend(loss, self.optimisers[2:])

    def _autoencoder_step(self, x: Tensor, z: Tensor, x_hat: Tensor, x_inter: Tensor | None, n: int, draws: Draws) -> None:
        config, networks = self.config, self.networks
        networks.D.requires_grad_(False)
        y = losses.signs(n, len(x) - n, config.lambda_neg, self.device)
        inputs = [networks.pair(x, x_hat)]
        inputs += [] if x_inter is None else [self._with_parents(x[:n], x_inter, draws)]
        d_recon, *d_inter = self._values(inputs)
        loss = losses.autoencoder_wasserstein(d_recon, y)
        if d_inter:
            loss = loss + config.lambda_inter * losses.autoencoder_simplex(d_inter[0])
        loss = loss + config.lambda_reg * losses.latent_regulariser(z[:n], config.reg, config.radius)
        _descend(loss, self.optimisers[:2])

    def _values(self, inputs: list[Tensor]) -> list[Tensor]:
        """D of each input; in training every call advances the spectral norm by one iteration, a joined one by one alone."""
        if not self.shortcuts.joined:
            return [self.networks.D(each.float()) for each in inputs]
        return list(self.networks.D(torch.cat([each.float() for each in inputs])).split([len(each) for each in inputs]))

    def _batch(self, x_normal: Tensor, draws: Draws) -> Tensor:
        """The normals and, behind them, the negatives x_neg = G(z_neg), in eval mode and without gradient."""
        if draws.z_neg is None:
            return x_normal
        self.networks.G.eval()
        with torch.no_grad():
            x_neg = self.networks.G(draws.z_neg).float()
        self.networks.G.train()
        return torch.cat([x_normal, x_neg])

    def _mixture(self, z: Tensor, draws: Draws) -> Tensor | None:
        if draws.parents is None:
            return None
        return self.networks.G(latent.simplex_interpolation(z, draws.parents, draws.weights))

    def _with_parents(self, x_normal: Tensor, x_inter: Tensor, draws: Draws) -> Tensor:
        if self.config.reconstruction == "plain":
            return x_inter
        return self.networks.pair(x_normal[draws.parents].flatten(0, 1), x_inter.repeat_interleave(self.config.k, dim=0))


def _descend(loss: Tensor, optimisers: list[torch.optim.Optimizer]) -> None:
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    loss.backward()
    for optimiser in optimisers:
        optimiser.step()
