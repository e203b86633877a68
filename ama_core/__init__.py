"""ama_core: the Adversarial Mirrored AutoEncoder, an unsupervised image anomaly detector, as a library.

from ama_core import AMADetector, preset
detector = AMADetector(preset("tiny", channels=1)).fit(images)
detector.p_value(new_images)
"""

from ama_core._version import __version__
from ama_core.detectors.ama.config import PRESETS, Config, preset
from ama_core.detectors.ama.detector import AMADetector
from ama_core.detectors.base import AnomalyDetector
from ama_core.detectors.registry import load_detector
from ama_core.errors import AMAError

__all__ = ["PRESETS", "AMADetector", "AMAError", "AnomalyDetector", "Config", "__version__", "load_detector", "preset"]
