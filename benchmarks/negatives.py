"""Settings of the negatives: which of them help, judged without OOD images, on FashionMNIST.

Until negatives take part a training does not depend on their settings. So one training a seed is made of preset tiny, without
its drift term, up to the step where they may begin, and from there one branch a setting is trained to the end. Every branch is
judged by how well held-out normal images are told from

- decodes: G(z) of the model's own atypical codes, inward and outward of the shell, 1 and 3 units thick;
- defects: cuts, blots, scratches and foreign patches painted on held-out normals;
- changes: held-out normals with other contrast or brightness, blurred, with noise, inverted, upside down.

The rule, fixed before the first branch was trained: the setting with the highest mean over seeds of the mean AUROC by A and by
T over these groups, each group counting once. OOD sets are measured as well, and take no part.

    AMA_DATA_DIR=build/data python -m benchmarks.negatives run OUT [--results results/negatives] [--jobs 'none-*' ...]
    python -m benchmarks.negatives report [--results results/negatives]

Finished branches are stored and skipped; a base that was trained is kept in OUT.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ama_core import AMADetector, Config
from ama_core.data import hold_out, load_any
from ama_core.data.changes import Change
from ama_core.data.defects import make_defects
from ama_core.data.splits import draw
from ama_core.detectors.ama import latent
from ama_core.detectors.ama.trainer import AMATrainer
from ama_core.evaluation import protocol as evaluation
from ama_core.evaluation.metrics import detection_metrics, mean_and_sd
from ama_core.paper.lengths import NORMAL, PRESET, STORED
from ama_core.paper.report import figure
from ama_core.provenance import training_facts
from ama_core.runs.spec import config_for
from ama_core.storage.files import write_atomically
from ama_core.training.loop import train
from benchmarks.length import OOD
from benchmarks.study import missing, study_parser

RESULTS = STORED.parent / "negatives"
STEPS = 2000
EARLIEST = 0.3  # of the run; a base is kept here and at every later beginning
N_JUDGED = 1000  # held-out normals, and images of each kind, that a branch is judged by
JUDGED_BY = ("A", "T")
GROUPS = ("decodes", "defects", "changes")

SETTINGS: dict[str, dict[str, Any]] = {
    "none": {"atypical": "none"},
    "out1": {"atypical": "outward", "delta": 1.0, "lambda_neg": 1.0},
    "out3": {"atypical": "outward", "delta": 3.0, "lambda_neg": 1.0},
    "out1-x5": {"atypical": "outward", "delta": 1.0, "lambda_neg": 5.0},
    "in1": {"atypical": "inward", "delta": 1.0, "lambda_neg": 1.0},
    "in3": {"atypical": "inward", "delta": 3.0, "lambda_neg": 1.0},
    "in3-x5": {"atypical": "inward", "delta": 3.0, "lambda_neg": 5.0},
    "sipple": {"atypical": "sipple", "lambda_neg": 1.0},
    "out1-x0.3": {"atypical": "outward", "delta": 1.0, "lambda_neg": 0.3},
    "out1-early": {"atypical": "outward", "delta": 1.0, "lambda_neg": 1.0, "warmup": EARLIEST},
    "in3-early": {"atypical": "inward", "delta": 3.0, "lambda_neg": 1.0, "warmup": EARLIEST},
}


@dataclass(frozen=True)
class Branch:
    """One training to the end from the base of its seed."""

    setting: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.setting}-s{self.seed}"


def branches() -> list[Branch]:
    return [Branch(setting, seed) for seed in range(3) for setting in SETTINGS]


def base(seed: int, out: Path, images: np.ndarray, warmup: float) -> AMATrainer:
    """The training of this seed at step `warmup * STEPS`, from OUT where it is kept."""
    at = round(warmup * STEPS)
    file = out / f"base-s{seed}-{at}.safetensors"
    if not file.exists():
        state = base(seed, out, images, EARLIEST) if warmup > EARLIEST else AMADetector(config_of(seed)).trainer()
        state.config = state.config.replace(warmup=1.0)
        for event in train(state, images, sample_every=10**9):
            if event.closes_step and event.step >= at:
                break
        if state.step != at:
            raise RuntimeError(f"Steps end without an event at {at}.")
        state.save(file)
    return AMATrainer.load(file, AMADetector().torch_device)


def config_of(seed: int, **settings: Any) -> Config:
    """Without the drift term of the preset: the stored figures are older than it."""
    return config_for(NORMAL, PRESET, max_steps=STEPS, seed=seed, lambda_drift=0.0, **settings)


def train_branch(branch: Branch, out: Path, images: np.ndarray) -> dict:
    """Train and measure one branch."""
    config = config_of(branch.seed, **SETTINGS[branch.setting])
    parts = hold_out(len(images), config.calibration_fraction, config.seed)
    state = base(branch.seed, out, images[parts.train], config.warmup)
    state.config = config
    detector = AMADetector(config).fit(images, trainer=state, on_event=lambda event: None)
    detector.info_["normal"] = {"name": NORMAL, "source": NORMAL, "label": None, "n": len(images)}
    rows = evaluation.evaluate(detector, OOD[NORMAL], full=False, seed=0)["results"]
    return {
        "branch": asdict(branch),
        "settings": SETTINGS[branch.setting],
        "judged": judged(detector, images[parts.calibration[draw(len(parts.calibration), N_JUDGED, 0)]]),
        "auroc": {row["ood"]: {by: round(s["auroc"], 4) for by, s in row["scores"].items()} for row in rows},
        "training": training_facts(state.facts(), state.device, len(parts.train), "last"),
    }


def judged(detector: AMADetector, normals: np.ndarray) -> dict[str, dict[str, dict[str, float]]]:
    """AUROC of every score between held-out normals and each kind of each group."""
    nz, rng = detector.settings.nz, torch.Generator().manual_seed(0)
    codes = {
        f"{direction} {delta}": latent.atypical_codes(len(normals), nz, direction, delta, rng).numpy()
        for direction in ("inward", "outward")
        for delta in (1, 3)
    }
    changes = {
        "contrast 0.5": Change(contrast=0.5)(normals),
        "brightness 0.5": Change(brightness=0.5)(normals),
        "brightness 1.5": Change(brightness=1.5)(normals),
        "blur 1": Change(blur=1.0)(normals),
        "noise 0.1": Change(noise=0.1)(normals),
        "inverted": 255 - normals,
        "upside down": normals[:, ::-1],
    }
    groups = {
        "decodes": {name: detector.decode(z) for name, z in codes.items()},
        "defects": {"painted": make_defects(normals)[0]},
        "changes": changes,
    }
    usual = detector.anomaly_scores(detector.raw_scores(normals))
    found: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    for group, kinds in groups.items():
        for kind, images in kinds.items():
            scores = detector.anomaly_scores(detector.raw_scores(np.ascontiguousarray(images)))
            found[group][kind] = {by: round(detection_metrics(usual[by], scores[by])["auroc"], 4) for by in usual}
    return found


def criterion(stored: Mapping[str, Any]) -> dict[str, float]:
    """Mean AUROC by A and T of every group, and of all groups."""
    means = {
        group: float(np.mean([[kind[by] for by in JUDGED_BY] for kind in stored["judged"][group].values()])) for group in GROUPS
    }
    return means | {"all": float(np.mean(list(means.values())))}


def report(results: Path) -> str:
    """A table of means over seeds, the best by the rule first; settings that lack a seed of another's stand behind, unranked.

    Behind every mean its standard deviation; of the criterion also the mean difference to no negatives, seed for seed.
    """
    found: dict[str, dict[int, dict]] = defaultdict(dict)
    for file in sorted(results.glob("*.json")):
        stored = json.loads(file.read_text())
        found[stored["branch"]["setting"]][stored["branch"]["seed"]] = stored
    seeds = {seed for by_seed in found.values() for seed in by_seed}
    told = {setting: {seed: criterion(one) for seed, one in by_seed.items()} for setting, by_seed in found.items()}
    whole = {setting: {seed: one["all"] for seed, one in by_seed.items()} for setting, by_seed in told.items()}
    ranked = sorted(found, key=lambda setting: (set(found[setting]) != seeds, -np.mean(list(whole[setting].values()))))
    lines = [
        "| negatives | seeds | decodes | defects | changes | all | against none | MNIST R, A, T | Omniglot R, A, T |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for setting in ranked:
        stored = list(found[setting].values())
        cells = [figure(mean_and_sd([one[group] for one in told[setting].values()])) for group in (*GROUPS, "all")]
        common = whole[setting].keys() & whole.get("none", {}).keys()
        differences = [whole[setting][seed] - whole["none"][seed] for seed in common]
        cells.append(figure(mean_and_sd(differences)) if differences else "–")
        for ood in ("mnist", "omniglot"):
            cells.append(", ".join(figure(mean_and_sd([one["auroc"][ood][by] for one in stored])) for by in ("R", "A", "T")))
        missing_seeds = "" if set(found[setting]) == seeds else " (unranked)"
        lines.append(f"| {setting}{missing_seeds} | {len(stored)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = study_parser(__doc__, RESULTS)
    arguments = parser.parse_args()
    if arguments.what == "report":
        print(report(arguments.results))
        return
    if arguments.out is None:
        parser.error("run needs OUT, a folder for the bases")
    arguments.out.mkdir(parents=True, exist_ok=True)
    arguments.results.mkdir(parents=True, exist_ok=True)
    images = AMADetector(config_for(NORMAL, PRESET)).prepared(load_any(NORMAL, "train").images)
    for branch, file in missing(branches(), arguments.results, arguments.jobs):
        stored = train_branch(branch, arguments.out, images)
        write_atomically(file, json.dumps(stored, indent=1) + "\n")
        shown = {by: stored["auroc"]["mnist"][by] for by in ("R", "A", "T")}
        print(f"{branch.name}: judged {criterion(stored)}, MNIST {shown}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
