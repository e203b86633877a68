"""R, A, M, T, C and conformal p-values: NumPy arrays in, arrays out.

Two directions occur. The paper's scores keep the paper's: R is high, A is low for an anomaly. Everything that ranks,
thresholds or tests uses the *anomaly score* of `anomaly_scores`, where larger always means more anomalous.
"""

from dataclasses import dataclass, replace

import numpy as np
from sklearn.covariance import LedoitWolf

from ama_core.detectors.conformal import conformal_p_value, conformal_threshold

SCORES = ("R", "A", "M", "T", "C")

TINY = 1e-12  # keeps logarithms of exact zeros finite
_RELATIVE_SPREAD = 1e-6  # standard deviation below which fp32 statistics of one size do not differ


@dataclass(frozen=True)
class Statistics:
    """What one forward pass of E, G and D says about N images; all arrays fp32 or fp64.

    Attributes:
        difference: d = f(x, x) - f(x, x_hat), (N, width_critic).
        d_real, d_recon: critic values D(x, x) and D(x, x_hat), (N,).
        pixel_l1: mean absolute difference of x and x_hat on the [-1, 1] scale, (N,).
        z_norm: ||E(x)||_2, (N,).
        block_means: spatial means of the outputs of the critic's residual blocks at (x, x), (N, blocks * width_critic).
    """

    difference: np.ndarray
    d_real: np.ndarray
    d_recon: np.ndarray
    pixel_l1: np.ndarray
    z_norm: np.ndarray
    block_means: np.ndarray

    def __len__(self) -> int:
        return len(self.d_real)

    def __getitem__(self, rows) -> "Statistics":
        return Statistics(**{name: values[rows] for name, values in vars(self).items()})

    @staticmethod
    def concatenate(parts: list["Statistics"]) -> "Statistics":
        return Statistics(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in vars(parts[0])})


def r_score(difference: np.ndarray) -> np.ndarray:
    """R(x) = ||f(x, x) - f(x, x_hat)||_1 (Eq. 5): (N, width) to (N,), >= 0."""
    return np.abs(np.asarray(difference, dtype=np.float64)).sum(axis=1)


def log_a_score(r: np.ndarray, mu: float, sigma: float) -> np.ndarray:
    """log A(x), A = N(R(x); mu, sigma^2) (Eq. 6). The density itself underflows, and ties, beyond about 38 sigma."""
    return -0.5 * ((r - mu) / sigma) ** 2 - np.log(sigma * np.sqrt(2 * np.pi))


def a_distance(r: np.ndarray, mu: float, sigma: float) -> np.ndarray:
    """|R - mu| / sigma (N,): orders images as A does, the lowest A farthest out, on a scale that can be looked at.

    At least 0.01: what lies nearer says nothing, and would spread over decades of a logarithmic axis.
    """
    return np.maximum(np.abs(np.asarray(r, dtype=np.float64) - mu) / sigma, 0.01)


def mu_sigma_behind(r: np.ndarray, log_a: np.ndarray) -> tuple[float, float]:
    """mu and sigma with which `log_a_score` made log A (N,) from R (N,): log A is a parabola in R.

    Where R varies too little to tell, the mean and standard deviation of R.
    """
    r, log_a = np.asarray(r, np.float64), np.asarray(log_a, np.float64)
    slope = bend = 0.0
    if len(np.unique(r)) > 2:
        parabola = np.polynomial.Polynomial.fit(r, log_a, 2).convert()
        _, slope, bend = np.pad(parabola.coef, (0, 3 - len(parabola.coef)))
    if not bend < 0:
        return float(r.mean()), float(max(r.std(), TINY))
    return float(-slope / (2 * bend)), float(np.sqrt(-0.5 / bend))


@dataclass(frozen=True)
class Gaussian:
    """Mean (p,) and Ledoit-Wolf shrunk precision (p, p) of a cloud of vectors; after `scale` (p,) if that is given."""

    mean: np.ndarray
    precision: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, vectors: np.ndarray, *, robust: bool = False) -> "Gaussian":
        """Fit to (n, p). robust: each column is first divided by its interquartile range, so that no unit dominates."""
        vectors = np.asarray(vectors, dtype=np.float64)
        scale = np.ones(vectors.shape[1])
        if robust:
            low, high = np.percentile(vectors, [25, 75], axis=0)
            scale = np.where(high > low, high - low, 1.0)
        scaled = vectors / scale
        estimate = LedoitWolf().fit(scaled)
        # A direction in which the vectors do not vary at all must count as narrow, where the pseudo-inverse would ignore it.
        floor = (_RELATIVE_SPREAD * max(float(np.sqrt(np.mean(scaled**2))), TINY)) ** 2
        if np.linalg.eigvalsh(estimate.covariance_)[0] >= floor:
            return cls(estimate.location_ * scale, estimate.precision_, scale)
        covariance = estimate.covariance_ + floor * np.eye(len(scale))
        return cls(estimate.location_ * scale, np.linalg.inv(covariance), scale)

    def mahalanobis(self, vectors: np.ndarray) -> np.ndarray:
        """Mahalanobis distance to the mean: (N, p) to (N,), >= 0."""
        centred = (np.asarray(vectors, dtype=np.float64) - self.mean) / self.scale
        return np.sqrt(np.maximum(np.einsum("np,pq,nq->n", centred, self.precision, centred, optimize=True), 0))


def t_vector(statistics: Statistics, m: np.ndarray) -> np.ndarray:
    """t = [log R, log pixel-L1, log ||z||, D(x, x), D(x, x_hat), M]: (N, 6)."""
    s = statistics
    logs = [np.log(np.maximum(v, TINY)) for v in (r_score(s.difference), s.pixel_l1, s.z_norm)]
    return np.stack([*logs, s.d_real, s.d_recon, m], axis=1).astype(np.float64)


@dataclass(frozen=True)
class Combination:
    """C = (T / med T)^2 + (I / med I)^2, where I is the Mahalanobis distance of the critic's block means at (x, x).

    T asks what the networks make of an image together with its reconstruction, I what the critic sees in the image alone.
    Not from the paper; the form was fixed before the models were trained that confirmed it (docs/scores.md).

    Attributes:
        gaussian_i: of the block means of training images. median_t, median_i: of T and I on held-out normals, > 0.
    """

    gaussian_i: Gaussian
    median_t: float
    median_i: float

    @classmethod
    def fit(cls, train: Statistics, held_out: Statistics, t: np.ndarray) -> "Combination":
        """From training images, held-out normals and their T (N,)."""
        gaussian_i = Gaussian.fit(train.block_means)
        i = gaussian_i.mahalanobis(held_out.block_means)
        return cls(gaussian_i, *(float(max(np.median(values), TINY)) for values in (t, i)))

    def c_score(self, t: np.ndarray, block_means: np.ndarray) -> np.ndarray:
        """C (N,), >= 0 and near 2 for normal images, of T (N,) and block means (N, p)."""
        return (t / self.median_t) ** 2 + (self.gaussian_i.mahalanobis(block_means) / self.median_i) ** 2


@dataclass(frozen=True)
class Calibration:
    """What the scores need to know of normal data.

    Attributes:
        mu, sigma: mean and standard deviation of the training data's R-scores (Eq. 6).
        gaussian_m: of d, on held-out normals. gaussian_t: of t, on the same.
        scores: anomaly score name -> values on further held-out normals, for p-values.
        train_r: R of a sample of the training images, for densities and percentiles.
        combination: what C needs; None in a model calibrated by a version without C, which gives none.
    """

    mu: float
    sigma: float
    gaussian_m: Gaussian
    gaussian_t: Gaussian
    scores: dict[str, np.ndarray]
    train_r: np.ndarray
    combination: Combination | None = None

    @classmethod
    def fit(cls, train: Statistics, held_out: Statistics, calibration: Statistics | None = None) -> "Calibration":
        """From training images, held-out ones for M's and T's statistics, and further held-out ones for p-values.

        Without the last there are no p-values. Raises ValueError where there are no images, or where statistics of the
        held-out ones or block means of the training images are not finite (scikit-learn's LedoitWolf refuses them).
        """
        train_r = r_score(train.difference)
        gaussian_m = Gaussian.fit(held_out.difference)
        vectors = t_vector(held_out, gaussian_m.mahalanobis(held_out.difference))
        gaussian_t = Gaussian.fit(vectors, robust=True)
        combination = Combination.fit(train, held_out, gaussian_t.mahalanobis(vectors))
        mu, sigma = float(train_r.mean()), float(max(train_r.std(), TINY))
        fitted = cls(mu, sigma, gaussian_m, gaussian_t, {}, train_r, combination)
        return fitted if calibration is None else replace(fitted, scores=anomaly_scores(fitted.score(calibration)))

    def score(self, statistics: Statistics) -> dict[str, np.ndarray]:
        """Every score of N images, each (N,) fp64: R, A, log_A, M, T, C where there is one, and z_norm, pixel_l1 as they are.

        Of an image whose statistics are not finite, neither are the scores that depend on them.
        """
        r = r_score(statistics.difference)
        log_a = log_a_score(r, self.mu, self.sigma)
        m = self.gaussian_m.mahalanobis(statistics.difference)
        t = self.gaussian_t.mahalanobis(t_vector(statistics, m))
        return {
            "R": r,
            "A": np.exp(log_a),
            "log_A": log_a,
            "M": m,
            "T": t,
            **({"C": self.combination.c_score(t, statistics.block_means)} if self.combination else {}),
            "z_norm": np.asarray(statistics.z_norm, dtype=np.float64),
            "pixel_l1": np.asarray(statistics.pixel_l1, dtype=np.float64),
        }

    def p_value(self, scores: dict[str, np.ndarray], by: str) -> np.ndarray:
        """Conformal p-values (N,) of images by score `by`; for A this is two-sided in R."""
        return conformal_p_value(anomaly_scores(scores)[by], self.scores[by])

    def threshold(self, by: str, alpha: float) -> float:
        """The anomaly score of `by` above which an image is flagged at false-alarm rate `alpha`."""
        return conformal_threshold(self.scores[by], alpha)

    def band(self, alpha: float) -> tuple[float, float]:
        """The R-scores between which A does not flag at false-alarm rate `alpha`; infinite where it can flag nothing."""
        excess = self.threshold("A", alpha) - np.log(self.sigma * np.sqrt(2 * np.pi))
        half = float(self.sigma * np.sqrt(2 * max(excess, 0.0)))
        return self.mu - half, self.mu + half


def anomaly_scores(scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """R, A, M, T and C turned so that larger = more anomalous: A by -log A (never underflows), the others as they are."""
    turned = {by: -scores["log_A"] if by == "A" else scores.get(by) for by in SCORES}
    return {by: values for by, values in turned.items() if values is not None}
