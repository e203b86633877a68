"""A detector as anyone may write one: AMA_DETECTORS=forty=tests.forty_lines:FortyLines makes it known, nothing else."""

from dataclasses import dataclass

import numpy as np

from ama_core.detectors.base import AnomalyDetector, Score
from ama_core.settings import Settings, setting


@dataclass(frozen=True)
class FortySettings(Settings):
    """Settings of the mean gradient."""

    power: float = setting(1.0, "Exponent of the gradient.", "What is trained", low=0.1, high=4.0)


class FortyLines(AnomalyDetector):
    """How far an image's mean gradient is from that of the training images."""

    name, title, reference = "forty", "Mean gradient", "a test"
    Settings, decides = FortySettings, "gradient"
    SCORES = (Score("gradient", "how far the mean gradient is from that of the training images.", r"|g(x) - \mu|"),)

    def fit_statistics(self, train, held_out):
        self.mean_ = self._gradient(train).mean()

    def raw_scores(self, images, progress=None):
        return {"gradient": np.abs(self._gradient(images) - self.mean_)}

    def state(self):
        return {}, {"mean": np.float64(self.mean_)}

    def restore(self, arrays):
        self.mean_ = float(arrays["mean"])

    def _gradient(self, images):
        steps = np.abs(np.diff(images.astype(np.float64), axis=2))
        return (steps**self.settings.power).mean(axis=(1, 2, 3))
