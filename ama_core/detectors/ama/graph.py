"""AMA's scores as tensor operations, in the arithmetic of `inference` and `scores`: for export, and nothing else."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from ama_core.detectors.ama.networks import Networks
from ama_core.detectors.ama.scores import TINY, Calibration, Gaussian
from ama_core.detectors.graph import Outputs


class AMAScores(nn.Module):
    """E, G and D with the calibration, in double precision where scores are formed."""

    def __init__(self, networks: Networks, calibration: Calibration):
        super().__init__()
        self.networks = networks
        self.mu, self.sigma = calibration.mu, calibration.sigma
        self.combination = calibration.combination
        gaussians = {"m": calibration.gaussian_m, "t": calibration.gaussian_t}
        if self.combination:
            gaussians["i"] = self.combination.gaussian_i
        for name, gaussian in gaussians.items():
            for key, value in vars(gaussian).items():
                self.register_buffer(f"{name}_{key}", torch.from_numpy(np.asarray(value, np.float64)))

    def forward(self, x: Tensor) -> Outputs:
        """Scores (N,) float64, `map` (N, g, g) and `reconstruction`, uint8 (N, S, S, C), of x (N, C, S, S) in [-1, 1]."""
        n = self.networks
        z = n.E(x)
        x_hat = n.G(z)
        real, block_means = n.D.feature_map_and_block_means(n.pair(x, x))
        real, recon = real.float(), n.D.feature_map(n.pair(x, x_hat)).float()
        delta = real - recon
        f_real, f_recon = real.sum(dim=(2, 3)), recon.sum(dim=(2, 3))
        d = (f_real - f_recon).double()
        r = d.abs().sum(dim=1)
        log_a = -0.5 * ((r - self.mu) / self.sigma) ** 2 - math.log(self.sigma * math.sqrt(2 * math.pi))
        m = self._mahalanobis("m", d)
        sizes = (r, (x - x_hat).abs().mean(dim=(1, 2, 3)).double(), (z * z).sum(dim=1).sqrt().double())
        critic = (n.D.value(f_real).double(), n.D.value(f_recon).double())
        t = self._mahalanobis("t", torch.stack([*(v.clamp_min(TINY).log() for v in sizes), *critic, m], dim=1))
        signs = delta.sum(dim=(2, 3), keepdim=True).sign()
        pixels = ((x_hat.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
        c = {}
        if self.combination:
            i = self._mahalanobis("i", block_means.double())
            c = {"C": (t / self.combination.median_t) ** 2 + (i / self.combination.median_i) ** 2}
        return {
            "R": r,
            "A": log_a.exp(),
            "log_A": log_a,
            "M": m,
            "T": t,
            **c,
            "map": (signs * delta).sum(dim=1),
            "reconstruction": pixels,
        }

    def _mahalanobis(self, name: str, vectors: Tensor) -> Tensor:
        gaussian = Gaussian(*(getattr(self, f"{name}_{key}") for key in ("mean", "precision", "scale")))
        centred = (vectors - gaussian.mean) / gaussian.scale
        return ((centred @ gaussian.precision) * centred).sum(dim=1).clamp_min(0).sqrt()
