"""Whether the false-alarm rate holds: `AMA_DATA_DIR=… python benchmarks/false_alarms.py [--level 0.999] [--json] [MODEL …]`.

For every bundled model (or those named) and each score, the fraction of unseen normal test images that is flagged at α = 0.01,
0.05 and 0.1, beside the band in which a sound calibration stays given the sizes of the calibration and test sets (see
`metrics.false_alarm_band`). Where the data are available locally, all test images are scored again, else those stored in the
bundle are used.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from ama_core import load_detector
from ama_core.detectors.base import AnomalyDetector
from ama_core.errors import DataError
from ama_core.evaluation.metrics import SOUND, false_alarm_band, false_alarm_curve
from ama_core.evaluation.protocol import measure, set_images
from ama_core.storage.bundle import find_bundle, list_bundles, read_scores

ALPHAS = np.array([0.01, 0.05, 0.1])


def rows(model: str, level: float) -> list[dict]:
    """One row for each score and alpha of a model. Raises DataError where its normal test images were never scored."""
    folder = find_bundle(model)
    detector = load_detector(folder)
    p = detector.with_p_values(normal_scores(model, detector, folder))
    found = []
    for by in detector.score_names():
        n_test, n_calibration = len(p[f"p_{by}"]), len(detector.held_out_scores_[by])
        low, high = false_alarm_band(ALPHAS, n_test, n_calibration, level)
        rates = false_alarm_curve(p[f"p_{by}"], ALPHAS)
        for i, alpha in enumerate(ALPHAS):
            row = {"model": model, "score": by, "alpha": float(alpha), "flagged": float(rates[i])}
            row |= {"low": float(low[i]), "high": float(high[i]), "inside": bool(low[i] <= rates[i] <= high[i])}
            found.append(row | {"n_test": n_test, "n_calibration": n_calibration})
    return found


def normal_scores(model: str, detector: AnomalyDetector, folder: Path) -> dict[str, np.ndarray]:
    """The scores of the normal test images: of all where they are here, else of those stored in the bundle."""
    if detector.normal is None:
        raise DataError(f"{model} does not say what it was trained on, so it has no normal test images.")
    name = detector.normal.name
    try:
        return measure(detector, set_images(detector, name, "test"))
    except DataError as error:
        stored = next((s for s in read_scores(folder) if (s.name, s.split) == (name, "test")), None)
        if stored is None:
            raise DataError(
                f"{model} has no stored scores of its normal test images, and they are not here. {error}"
            ) from error
        return stored.scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(list_bundles()), metavar="MODEL")
    parser.add_argument("--level", type=float, default=SOUND, help=f"of the band (default {SOUND})")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = [row for model in arguments.models for row in rows(model, arguments.level)]
    if arguments.json:
        print(json.dumps(found))
        return
    print(f"{'model':30} {'score':16}{'alpha':>6}{'flagged':>10}   {arguments.level:.1%} band        n test, calibration")
    for r in found:
        band = f"{r['low']:.4f} to {r['high']:.4f}"
        sizes = f"{r['n_test']:>6,}, {r['n_calibration']:,}{'' if r['inside'] else '   OUTSIDE'}"
        print(f"{r['model']:30} {r['score']:16}{r['alpha']:6.2f}{r['flagged']:10.4f}   {band:20}{sizes}")
    print(f"{sum(r['inside'] for r in found)} of {len(found)} lie in their band.")


if __name__ == "__main__":
    main()
