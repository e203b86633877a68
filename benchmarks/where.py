"""How well maps point at painted defects: `python benchmarks/where.py [--steps 700] [--models DIR] [--json] [SET …]`.

On crops of scikit-image's photographs brick, grass and gravel, for each of which a small AMA and PCA are trained, and with the
bundled models `photos` and `fashionmnist`. Training crops come from the left three quarters of a photograph, test crops from
the rest. A cut, blot, scratch or foreign patch is painted on every test image. Measured are the AUROC of all pixels and how
often the highest place of a map lies on the defect; and of the marks at a false-alarm rate of 0.05, how many defects get one,
which fraction of the marked pixels is painted, and how many unpainted test images are marked.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import skimage.data
from sklearn.metrics import roc_auc_score

from ama_core import load_detector, preset
from ama_core.data import ImageSet, prepare
from ama_core.data.defects import make_defects
from ama_core.detectors.base import AnomalyDetector
from ama_core.detectors.registry import detector_class
from ama_core.evaluation.protocol import normal_split
from ama_core.scoring.localise import Localiser, fit_localiser, held_out_images

PHOTOGRAPHS = ("brick", "grass", "gravel")
BUNDLED = ("photos", "fashionmnist")
TRAINED = ("ama", "pca")
SIZE, SIDE = 32, 64  # pixels of an input, and of the crop that it is reduced from
N_TRAIN, N_TEST = 600, 200
ALPHA = 0.05
SEED = 20261125  # of the defects: not the one by which the form of the maps was chosen


def crops(name: str, split: str) -> ImageSet:
    """Crops of a photograph, uint8 (N, 32, 32, 1): of its left three quarters for `train`, of the rest for `test`."""
    photograph = getattr(skimage.data, name)()
    height, width = photograph.shape
    edge = 3 * width // 4
    low, high, n = (0, edge - SIDE, N_TRAIN) if split == "train" else (edge, width - SIDE, N_TEST)
    rng = np.random.default_rng(split == "train")
    places = zip(rng.integers(0, height - SIDE + 1, n), rng.integers(low, high + 1, n))
    found = np.stack([photograph[y : y + SIDE, x : x + SIDE, None] for y, x in places])
    return ImageSet(name, split, prepare(found, size=SIZE, channels=1)[0], np.zeros(n, np.int64))


def trained(name: str, detector: str, steps: int, folder: Path) -> AnomalyDetector:
    """A detector trained on the crops of `name`, read from `folder` where it was trained before."""
    path = folder / f"{name}-{detector}-{steps}"
    if not (path / "config.json").exists():
        kind = detector_class(detector)
        changes = {"channels": 1, "calibration_fraction": 0.3}
        config = (
            preset("tiny", max_steps=steps, epochs=10_000, lambda_drift=0.0, **changes)  # as the stored figures
            if detector == "ama"
            else kind.Settings.preset("tiny", **changes)
        )
        kind(config, device="cpu").fit(crops(name, "train")).save(path)
    return load_detector(path, device="cpu")


def figures(localiser: Localiser, detector: AnomalyDetector, normal: np.ndarray) -> dict[str, dict[str, float]]:
    """What each of the maps finds of defects painted on `normal`, uint8 (N, S, S, C)."""
    painted, masks, _ = make_defects(normal, SEED)
    of_normal, of_painted = (localiser.maps(detector.examine(images)) for images in (normal, painted))
    found = {}
    for name, maps in of_painted.items():
        marked = localiser.marks(name, maps, ALPHA)
        highest = maps.reshape(len(maps), -1).argmax(axis=1)
        found[name] = {
            "auroc": float(roc_auc_score(masks.ravel(), maps.ravel())),
            "hit": float(masks.reshape(len(masks), -1)[np.arange(len(masks)), highest].mean()),
            "marked": float(marked.any(axis=(1, 2)).mean()),
            "precision": float(masks[marked].mean()) if marked.any() else float("nan"),
            "false_alarms": float(localiser.marks(name, of_normal[name], ALPHA).any(axis=(1, 2)).mean()),
        }
    return found


def rows(names: list[str], steps: int, folder: Path) -> list[dict]:
    """A row for every set, detector and map."""
    found = []
    for name in names:
        for kind in TRAINED if name in PHOTOGRAPHS else ("ama",):
            if name in PHOTOGRAPHS:
                detector = trained(name, kind, steps, folder)
                held_out, normal = held_out_images(detector, crops(name, "train").images), crops(name, "test").images
            else:
                detector = load_detector(name, device="cpu")
                held_out = held_out_images(detector)
                normal = detector.prepared(normal_split(detector, "test").images)[:N_TEST]
            localiser = fit_localiser(detector, *held_out)
            found += [
                {"set": name, "detector": kind, "map": of, **values}
                for of, values in figures(localiser, detector, normal).items()
            ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=[*PHOTOGRAPHS, *BUNDLED], metavar="SET")
    parser.add_argument("--steps", type=int, default=700, help="of AMA's trainings (default 700)")
    parser.add_argument("--models", type=Path, default=Path("build/where"), help="where trained models are kept")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = rows(arguments.sets, arguments.steps, arguments.models)
    if arguments.json:
        print(json.dumps(found))
        return
    print(f"{'set':14}{'detector':14}{'map':12}{'AUROC':>8}{'hit':>7}{'marked':>9}{'precision':>11}{'false alarms':>14}")
    for row in found:
        print(
            f"{row['set']:14}{row['detector']:14}{row['map']:12}{row['auroc']:>8.3f}{row['hit']:>7.0%}{row['marked']:>9.0%}"
            f"{row['precision']:>11.0%}{row['false_alarms']:>14.0%}"
        )


if __name__ == "__main__":
    main()
