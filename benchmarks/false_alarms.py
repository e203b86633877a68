"""Whether the false-alarm rate holds: `AMA_DATA_DIR=… python benchmarks/false_alarms.py [--level 0.999] [--json] [MODEL …]`.

For every bundled model (or those named) and each score, the fraction of unseen normal test images that is flagged at α = 0.01,
0.05 and 0.1, beside the band in which a sound calibration stays given the sizes of the calibration and test sets (see
`evaluation.false_alarm_band`). Where the data are available locally, all test images are scored again, else those stored in the
bundle are used.
"""

import argparse
import json

import numpy as np

from ama_core import AMADetector
from ama_core.data import one_class
from ama_core.errors import DataError
from ama_core.evaluation.metrics import false_alarm_band, false_alarm_curve
from ama_core.evaluation.protocol import measure, normal_name, normal_split
from ama_core.storage.bundle import list_bundles, read_scores

ALPHAS = np.array([0.01, 0.05, 0.1])


def rows(model: str, level: float) -> list[dict]:
    """One row for each score and alpha of a model."""
    detector = AMADetector.load(model)
    try:
        images = normal_split(detector, "test")
        label = detector.info_["normal"].get("label")
        scores = measure(detector, images if label is None else one_class(images, label))
    except DataError:
        name = normal_name(detector)
        scores = next(s.scores for s in read_scores(list_bundles()[model]) if (s.name, s.split) == (name, "test"))
    n_test, n_calibration = len(scores["R"]), len(detector.calibration_.scores["R"])
    low, high = false_alarm_band(ALPHAS, n_test, n_calibration, level)
    found = []
    for by in detector.score_names():
        rates = false_alarm_curve(detector.calibration_.p_value(scores, by), ALPHAS)
        for i, alpha in enumerate(ALPHAS):
            row = {"model": model, "score": by, "alpha": float(alpha), "flagged": float(rates[i])}
            row |= {"low": float(low[i]), "high": float(high[i]), "inside": bool(low[i] <= rates[i] <= high[i])}
            found.append(row | {"n_test": n_test, "n_calibration": n_calibration})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(list_bundles()), metavar="MODEL")
    parser.add_argument("--level", type=float, default=0.999, help="of the band (default 0.999)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = [row for model in arguments.models for row in rows(model, arguments.level)]
    if arguments.json:
        print(json.dumps(found))
        return
    print(f"{'model':20}{'score':6}{'alpha':>6}{'flagged':>10}   {arguments.level:.1%} band        n test, calibration")
    for r in found:
        band = f"{r['low']:.4f} to {r['high']:.4f}"
        sizes = f"{r['n_test']:>6,}, {r['n_calibration']:,}{'' if r['inside'] else '   OUTSIDE'}"
        print(f"{r['model']:20}{r['score']:6}{r['alpha']:6.2f}{r['flagged']:10.4f}   {band:20}{sizes}")
    print(f"{sum(r['inside'] for r in found)} of {len(found)} lie in their band.")


if __name__ == "__main__":
    main()
