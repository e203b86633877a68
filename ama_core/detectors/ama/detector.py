"""AMA behind the contract of `detectors.base`: what its networks and statistics say of images."""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ama_core.detectors.ama import inference
from ama_core.detectors.ama.config import Config
from ama_core.detectors.ama.graph import AMAScores
from ama_core.detectors.ama.networks import Stage, build_networks, summary
from ama_core.detectors.ama.scores import Calibration, Combination, Gaussian, Statistics
from ama_core.detectors.ama.trainer import AMATrainer
from ama_core.detectors.base import AnomalyDetector, Examination, Progress, Score, check_finite, checked_codes
from ama_core.detectors.graph import Graph
from ama_core.errors import DataError
from ama_core.storage.bundle import half_precision


class AMADetector(AnomalyDetector):
    """The Adversarial Mirrored AutoEncoder (Somepalli et al., UAI 2021) with calibrated scores.

    Args:
        config: hyper-parameters; default: the paper's.
        score: which of R, A, M, T, C decides (`anomaly_score`, `p_value`, `predict`). T by default, fixed beforehand.
        device: where the networks live; CUDA first by default.
        verbose: whether `fit` shows a progress bar where nobody follows its events.

    Attributes:
        networks_: E, G and D in eval mode. calibration_: statistics behind the scores (see `scores.Calibration`).
        held_out_scores_, info_: see `AnomalyDetector`.

    References:
        Somepalli, Wu, Balaji, Vinzamuri, Feizi: Unsupervised Anomaly Detection with Adversarial Mirrored AutoEncoders,
        UAI 2021, arXiv 2003.10713. R and A are the paper's (Eqs. 5 and 6); M, T and C come from the same forward pass.

    Examples:
        >>> from ama_core import AMADetector, preset
        >>> detector = AMADetector(preset("tiny", channels=1)).fit(images)  # doctest: +SKIP
        >>> detector.p_value(new_images)  # doctest: +SKIP
    """

    name = "ama"
    title = "Adversarial Mirrored AutoEncoder"
    reference = "Somepalli et al., UAI 2021, arXiv 2003.10713"
    Settings = Config
    trainer_class = AMATrainer
    decides = "T"
    MEASURED = ("codes", "response")
    STORED = ("R", "log_A", "M", "T", "C", "z_norm", "pixel_l1")
    ADDED = ("C",)
    SCORES: ClassVar[tuple[Score, ...]] = (
        Score(
            "R",
            "the raw score: how differently the critic sees the pairs (image, image) and (image, reconstruction). "
            "Meant to be high for what is unlike the training data; what else moves it, the lesson shows.",
            r"R(x) = \lVert f(x, x) - f(x, G(E(x))) \rVert_1",
            source="Eq. 5",
        ),
        Score(
            "A",
            "the paper's score: how usual that R is among the training images. Low = unusually high *or* low.",
            r"A(x) = \mathcal{N}\!\left(R(x);\ \mu, \sigma^2\right),\quad \mu, \sigma \text{ of the training images' } R",
            low=True,
            ranks_by="log_A",  # the density underflows to 0 and so ties beyond about 38 sigma
            log_axis=False,
            source="Eq. 6",
        ),
        Score(
            "M",
            "how unusual the difference is in size *and direction*, where R only adds up magnitudes.",
            r"M(x) = \sqrt{(d - \bar d)^\top \Sigma^{-1} (d - \bar d)},\quad d = f(x, x) - f(x, G(E(x)))",
        ),
        Score(
            "T",
            "how unusual R, pixel error, code length, both critic values and M are *together*.",
            r"T(x) = \mathrm{Mahalanobis}\left[\log R,\ \log \lVert x - \hat x \rVert_1,\ \log \lVert z \rVert,"
            r"\ D(x, x),\ D(x, \hat x),\ M\right]",
        ),
        Score(
            "C",
            "T combined with I, how unusual what the critic sees in the image alone is: the means of its blocks' outputs h at "
            "(x, x). Each in units of its median over normal images.",
            r"\begin{gathered} C(x) = \left(\frac{T(x)}{\operatorname{med} T}\right)^2 + "
            r"\left(\frac{I(x)}{\operatorname{med} I}\right)^2 \\ "
            r"I(x) = \mathrm{Mahalanobis}\left[\bar h_1(x, x),\ \ldots,\ \bar h_b(x, x)\right] \end{gathered}",
        ),
    )

    # The contract

    def use_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Rounded to what `save` stores, so that statistics are of the very weights that are loaded later."""
        self.networks_ = build_networks(self.settings, half_precision(weights), self.torch_device)

    def fit_statistics(self, train: np.ndarray, held_out: np.ndarray) -> None:
        of_train, of_held_out = (inference.statistics(self.networks_, images) for images in (train, held_out))
        for found in (of_train, of_held_out):
            check_finite(vars(found))
        self._statistics = Calibration.fit(of_train, of_held_out)

    def raw_scores(self, images: np.ndarray, progress: Progress | None = None) -> dict[str, np.ndarray]:
        """R, A, log_A, M, T, C, z_norm and pixel_l1, in one forward pass."""
        return self._statistics.score(inference.statistics(self.networks_, images, progress=progress))

    def state(self) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
        weights = {name: t.detach().cpu().contiguous() for name, t in self.networks_.state_dict().items()}
        c = self._statistics
        arrays = {"mu": np.float64(c.mu), "sigma": np.float64(c.sigma), "train_r": c.train_r}
        gaussians = {"m": c.gaussian_m, "t": c.gaussian_t}
        if c.combination:
            gaussians["i"] = c.combination.gaussian_i
            arrays |= {key: np.float64(getattr(c.combination, key)) for key in ("median_t", "median_i")}
        for key, gaussian in gaussians.items():
            arrays |= {f"gaussian_{key}.{name}": value for name, value in vars(gaussian).items()}
        return half_precision(weights), arrays

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        width = self.settings.width_critic
        gaussians = [_gaussian(arrays, "m", width), _gaussian(arrays, "t", 6)]
        mu, sigma, train_r = float(arrays["mu"]), float(arrays["sigma"]), arrays["train_r"]
        if train_r.ndim != 1 or not len(train_r):
            raise ValueError("train_r is missing")
        combination = None
        if self.gives("C"):
            blocks = len(self.networks_.D.blocks) - 1
            medians = float(arrays["median_t"]), float(arrays["median_i"])
            combination = Combination(_gaussian(arrays, "i", blocks * width), *medians)
            if not min(medians) > 0:
                raise ValueError("medians must be positive")
        if not sigma > 0:
            raise ValueError("scales must be positive")
        self._statistics = Calibration(mu, sigma, *gaussians, {}, train_r, combination)

    @property
    def calibration_(self) -> Calibration:
        """Statistics of the scores, with the anomaly scores of held-out normals."""
        return replace(self._fitted()._statistics, scores=self.held_out_scores_)

    # What AMA can do beside scoring

    def statistics(self, X, *, progress: Progress | None = None) -> Statistics:
        """What the networks say of the images, before any score is formed."""
        return inference.statistics(self._fitted().networks_, self.prepared(X), progress=progress)

    def r_score(self, X) -> np.ndarray:
        """R(x) (Eq. 5), (N,), high = the critic tells x from its reconstruction."""
        return self.scores(X)["R"]

    def a_score(self, X) -> np.ndarray:
        """A(x) (Eq. 6), (N,): Gaussian density of R(x) under the training data; low = anomalous on either side."""
        return self.scores(X)["A"]

    def encode(self, X) -> np.ndarray:
        """Codes z = E(x), (N, nz) float32."""
        return inference.encode(self._fitted().networks_, self.prepared(X))

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Images G(z), uint8 (N, S, S, c), of codes (N, nz). Raises DataError on another shape or non-finite values."""
        self._fitted()
        return inference.decode(self.networks_, checked_codes(z, self.settings.nz))

    def reconstruct(self, X) -> np.ndarray:
        """G(E(x)), uint8 (N, S, S, c)."""
        return inference.reconstruct(self._fitted().networks_, self.prepared(X))

    def critic(self, x, y) -> np.ndarray:
        """D(x, y), (N,), of as many images x as y: high = the critic takes y for x itself. A plain critic sees y alone."""
        x, y = self.prepared(x), self.prepared(y)
        if len(x) != len(y):
            raise DataError(f"The critic sees images in pairs, got {len(x)} and {len(y)}.")
        return inference.critic_values(self._fitted().networks_, x, y)

    def maps(self, X) -> np.ndarray:
        """What each place of the critic's grid adds to R (positive) or takes from it: (N, g, g) float32 that sums to R."""
        return inference.examine(self._fitted().networks_, self.prepared(X)).maps

    def features(self, X) -> np.ndarray:
        """The critic's features f(x, x), (N, width_critic) float32."""
        return inference.features(self._fitted().networks_, self.prepared(X))

    def examine(self, X) -> Examination:
        """Scores, reconstructions, critic maps and features of N images, all from one forward pass."""
        self._fitted()
        images = self.prepared(X)
        seen = inference.examine(self.networks_, images)
        scores = self.with_p_values(self._statistics.score(seen.statistics))
        return Examination(images, scores, seen.reconstructions, seen.maps, seen.features)

    def graph(self) -> Graph:
        """Scores, critic map, reconstruction and p-value of the deciding score, as one module on the CPU."""
        self._fitted()
        networks = build_networks(self.settings, self.networks_.state_dict(), torch.device("cpu"))
        score = self.deciding_score()
        return Graph(
            AMAScores(networks, self._statistics),
            lambda network, x: network(x),
            score.ranks_by or score.name,
            score.low,
            self.held_out_scores_[self.by],
        ).eval()

    def card_remark(self) -> str:
        return f", {self.settings.reconstruction} Wasserstein loss"

    def stages(self) -> list[Stage]:
        """The stages of E, G and D in order, with their shapes and parameters."""
        return summary(self._fitted().networks_)


def _gaussian(arrays: Mapping[str, np.ndarray], key: str, size: int) -> Gaussian:
    """The stored Gaussian of vectors (size,). Raises ValueError or KeyError where it does not fit."""
    parts = {name: arrays[f"gaussian_{key}.{name}"] for name in ("mean", "precision", "scale")}
    if parts["mean"].shape != (size,) or parts["precision"].shape != (size, size) or parts["scale"].shape != (size,):
        raise ValueError(f"gaussian_{key} has the wrong shape")
    if not (parts["scale"] > 0).all():
        raise ValueError("scales must be positive")
    return Gaussian(**parts)
