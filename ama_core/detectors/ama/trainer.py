"""One training step of AMA, as the paper has it: critic against mirrored pairs, then encoder and generator."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ama_core.detectors.ama import inference, latent, losses
from ama_core.detectors.ama.config import Config
from ama_core.detectors.ama.networks import Networks, build_networks
from ama_core.detectors.ama.scores import Calibration, anomaly_scores
from ama_core.detectors.modules import gradient_penalty
from ama_core.tensors import scale
from ama_core.training import distributed
from ama_core.training.schedule import precision
from ama_core.training.trainer import Curve, Trainer, descend, fused

# Rounding may move the differences between the critic's values by this part of them (root mean square of both). Of 20 models of
# one class of MNIST it was 0.002 to 0.009 where nothing was amiss and 0.58 to 3.3 in four, three of which had lost A.
ROUNDED = 0.25


@dataclass(frozen=True)
class Batch:
    """What a step is computed on. With several processes, x, y and n_mine are this process's; the other fields cover all.

    Attributes:
        x: n_mine normals, then negatives. y: their signs (see `losses.signs`).
        normals: all n normal images. n_neg: how many negatives there are in all.
    """

    x: Tensor
    y: Tensor
    n_mine: int
    normals: Tensor
    n_neg: int

    @property
    def n(self) -> int:
        return len(self.normals)

    @property
    def rows(self) -> int:
        return self.n + self.n_neg

    def all_of(self, rows: Tensor) -> Tensor:
        """Rows that belong to those of x, of all processes: normals, then negatives."""
        if distributed.size() == 1:
            return rows
        normal, negative = rows[: self.n_mine], rows[self.n_mine :]
        return torch.cat([distributed.gather(normal, self.n), distributed.gather(negative, self.n_neg)])


class AMATrainer(Trainer):
    """Networks E, G and D with their optimisers, and what a step does to them."""

    Settings = Config
    networks: Networks
    uses_anomalies = True
    validated_by = "A"
    splits = True
    captures = True
    remedy = "Lower lr, raise lambda_gp, or, where the losses grew over thousands of steps, set lambda_drift to 0.001 or more."
    curves: ClassVar[tuple[Curve, ...]] = (
        Curve(
            "wasserstein",
            "Wasserstein estimate",
            "how far the critic tells (x, x) from (x, x̂): the quantity that E and G push down",
        ),
        Curve("loss_critic", "critic loss", "minus that, plus penalty and simplex term"),
        Curve(
            "loss_autoencoder",
            "autoencoder loss",
            "what E and G minimise, with the latent regulariser; its level says nothing, for D's values share a free offset",
        ),
        Curve("penalty", "gradient penalty", "how far the critic is from Lipschitz constant 1, before its weight"),
        Curve("regulariser", "latent regulariser", "before its weight", chart=""),
        Curve("z_ratio", "‖z‖ / √d", "mean length of the codes over the radius of the latent shell", chart="ratio"),
    )

    def build(self) -> nn.Module:
        return Networks(self.config)

    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            name: torch.optim.Adam(getattr(self.networks, name).parameters(), self.config.lr, betas, fused=fused(self.device))
            for name, betas in self.config.betas.items()
        }

    def bare_state(self) -> dict[str, Tensor]:
        return self.networks.bare_state()

    def phase(self) -> int:
        """How many negatives a step has."""
        config = self.config
        takes_part = self.anomalies is not None or config.uses_negatives
        at_once = self.anomalies is not None and config.mode == "released"  # real ones, in every batch of the released code
        begun = at_once or self.step >= config.warmup * self.total
        return config.n_negatives if takes_part and begun else 0

    def update(self, x: Tensor) -> dict[str, Tensor]:
        """`n_critic` critic steps and one of E and G on one batch of normals, of which a fraction gives way to negatives."""
        E, G, config = self.networks.E, self.networks.G, self.config
        batch = self._with_negatives(x)
        x, n_mine = batch.x, batch.n_mine

        # E and G stand still during the critic's steps: reconstruct once, with the graph that their own step needs.
        z = E(x)
        x_hat = G(z)
        # Codes of the normals; the released code takes them from a pass of their own, with their own batch statistics.
        z_normal = E(x[:n_mine]) if batch.n_neg and config.mode == "released" else z[:n_mine]
        x_parents, x_inter = self._mixtures(batch, z_normal)

        found = self._critic_steps(batch, x_hat.detach(), x_parents, x_inter)
        found |= self._autoencoder_step(batch, x_hat, x_parents, x_inter, z_normal)
        order = ("loss_critic", "loss_autoencoder", "wasserstein", "regulariser")
        curves = {name: found[name] for name in order}
        curves["z_ratio"] = distributed.mean(latent.shell_ratio(z_normal.detach()), batch.n)
        return curves | ({"penalty": found["penalty"]} if "penalty" in found else {})

    def _with_negatives(self, x: Tensor) -> Batch:
        """Normals and, behind them, negatives where these take part already.

        Real anomalies take the place of synthetic negatives (Section "Semi-supervised"); the released code has them in its
        batches from the first step on.
        """
        config, n_neg = self.config, self.phase()
        normals = x[: len(x) - n_neg]
        x = distributed.mine(normals)
        n_mine = len(x)
        if n_neg and self.anomalies is not None:
            picks = torch.randint(len(self.anomalies), (n_neg,), generator=self.rng, device=self.device)
            x = torch.cat([x, scale(self.anomalies[distributed.mine(picks)])])
        elif n_neg:
            x = torch.cat([x, self._synthetic_negatives(normals, n_neg)])
        y = losses.signs(n_mine, len(x) - n_mine, config.lambda_neg, self.device)
        return Batch(x, y, n_mine, normals, n_neg)

    def _synthetic_negatives(self, x_normal: Tensor, n: int) -> Tensor:
        """x_neg = G(z_neg): decodes of atypical codes, in eval mode and without gradient (Eq. 4 in the code's reading); this
        process's of the n.
        """
        config, networks = self.config, self.networks
        networks.E.eval()
        networks.G.eval()
        with torch.no_grad():
            if config.mode == "released":
                z_neg = latent.atypical_codes_released(networks.E(x_normal[:n]).float(), config.atypical, self.rng)
            else:
                z_neg = latent.atypical_codes(n, config.nz, config.atypical, config.delta, self.rng)
            x_neg = networks.G(distributed.mine(z_neg)).float()
        torch.clear_autocast_cache()  # copies of weights made here have no gradient
        networks.E.train()
        networks.G.train()
        return x_neg

    def _mixtures(self, batch: Batch, z: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Decoded mixtures of k codes and the images that each is paired with (Section "Simplex interpolation").

        Parents may be any normals of the batch, those of other processes too.
        """
        config, n = self.config, batch.n
        if config.lambda_inter == 0:
            return None, None
        n_inter, k = self._n_mixtures(batch), self._n_parents(batch)
        parents = distributed.mine(latent.simplex_parents(n, k, self.rng)[:n_inter])
        weights = distributed.mine(latent.simplex_weights(n_inter, k, self.rng, mode=config.mode))
        x_inter = self.networks.G(latent.simplex_interpolation(distributed.gather(z, n), parents, weights))
        if config.reconstruction == "plain":  # the decode alone needs no partner
            return None, x_inter
        return batch.normals[parents].flatten(0, 1), x_inter.repeat_interleave(k, dim=0)  # paired with every parent

    def _n_mixtures(self, batch: Batch) -> int:
        return max(1, round(self.config.inter_fraction * batch.n))

    def _n_parents(self, batch: Batch) -> int:
        """k, or as many as there are normal images: a mixture is never of an image with itself."""
        return min(self.config.k, batch.n)

    def _critic_steps(self, batch: Batch, x_hat: Tensor, x_parents: Tensor | None, x_inter: Tensor | None) -> dict[str, Tensor]:
        """`n_critic` steps of D on constants, all pairs in one call (no batch norm in D, so this is exact)."""
        config, D, pair, x = self.config, self.networks.D, self.networks.pair, batch.x
        n_pairs = self._n_mixtures(batch) * (self._n_parents(batch) if x_parents is not None else 1)
        pairs = [pair(x, x), pair(x, x_hat)] + ([pair(x_parents, x_inter.detach())] if x_inter is not None else [])
        pairs = torch.cat([p.float() for p in pairs])
        n_penalty = max(1, round(config.gp_fraction * config.batch_size))
        if config.lambda_gp > 0:
            x_all, x_hat_all = batch.all_of(x), batch.all_of(x_hat)
        found: dict[str, Tensor] = {}
        D.requires_grad_(True)
        for _ in range(config.n_critic):
            values = D(pairs)
            d_real, d_recon, d_inter = values[: len(x)], values[len(x) : 2 * len(x)], values[2 * len(x) :]
            wasserstein = losses.critic_wasserstein(d_real, d_recon, batch.y, batch.rows)
            loss = wasserstein
            if x_inter is not None:
                loss = loss + config.lambda_inter * losses.critic_simplex(d_real[: batch.n_mine], d_inter, batch.n, n_pairs)
            if config.lambda_drift > 0:
                loss = loss + config.lambda_drift * losses.critic_drift(d_real, batch.rows)
            if config.lambda_gp > 0:
                some = torch.randperm(batch.rows, generator=self.rng, device=self.device)[:n_penalty]
                a = torch.rand(len(some), generator=self.rng, device=self.device)
                some, a = distributed.mine(some), distributed.mine(a)
                penalty = gradient_penalty(
                    D, pair, x_all[some], x_hat_all[some].float(), a, per_pixel=config.mode == "released", rows=n_penalty
                )
                loss = loss + config.lambda_gp * penalty
                found["penalty"] = penalty
            descend(loss, self.optimisers["D"])
        return found | {"loss_critic": loss, "wasserstein": -wasserstein}

    def _autoencoder_step(
        self, batch: Batch, x_hat: Tensor, x_parents: Tensor | None, x_inter: Tensor | None, z_normal: Tensor
    ) -> dict[str, Tensor]:
        """One step of E and G through the reconstructions that the critic has just seen."""
        config, D, pair, x = self.config, self.networks.D, self.networks.pair, batch.x
        n_pairs = self._n_mixtures(batch) * (self._n_parents(batch) if x_parents is not None else 1)
        D.requires_grad_(False)
        has_simplex = x_inter is not None and config.mode == "paper"  # the released code detaches the decode
        pairs = [pair(x, x_hat)] + ([pair(x_parents, x_inter)] if has_simplex else [])
        values = D(torch.cat([p.float() for p in pairs]))
        loss = losses.autoencoder_wasserstein(values[: len(x)], batch.y, batch.rows)
        if has_simplex:
            loss = loss + config.lambda_inter * losses.autoencoder_simplex(values[len(x) :], n_pairs)
        regulariser = losses.latent_regulariser(z_normal, config.reg, config.radius, batch.n)
        loss = loss + config.lambda_reg * regulariser
        descend(loss, self.optimisers["E"], self.optimisers["G"])
        return {"loss_autoencoder": loss, "regulariser": regulariser}

    def warning(self, images: np.ndarray) -> str:
        if precision(self.config, self.device) != "bf16":
            return ""
        _, difference, rounding = inference.critic_rounding(self.networks, images)
        difference, rounding = (values.square().mean().sqrt().item() for values in (difference, rounding))
        if rounding <= ROUNDED * difference:
            return ""
        return (
            f"The critic is trained by differences between its values: they are about {difference:.2g}, and rounding to bf16 "
            f"moves them by {rounding:.2g}. Train again with {self._more_drift()}, or with precision=fp32."
        )

    def _more_drift(self) -> str:
        known = self.config.lambda_drift
        return f"lambda_drift above {known:g}" if known > 0 else "lambda_drift=0.001"

    def sample(self, images: np.ndarray) -> np.ndarray:
        return inference.reconstruct(self.networks, images)

    def anomaly_scores(self, weights: dict[str, Tensor], train: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
        """R, A, M, T and C, a preview: statistics are of training images alone, for none are held out for them here."""
        networks = build_networks(self.config, weights, self.device)
        of_train, of_images = (inference.statistics(networks, part) for part in (train, images))
        return anomaly_scores(Calibration.fit(of_train, of_train).score(of_images))
