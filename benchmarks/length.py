"""How long to train: AUROC of whole runs of several lengths, each with its own fall of the learning rate.

For every run (loss, steps, seed, fraction of the run in which the rate falls, drift term) one model is trained with a moving
average of its weights beside it, and both the last step's weights and their averages are scored against the OOD sets. Nothing
is chosen by its result here: `report` prints what the stored figures say.

    AMA_DATA_DIR=build/data python -m benchmarks.length run OUT [--results results/length] [--jobs mirrored-500-s0 ...]
    python -m benchmarks.length report [--results results/length]

`run` may be stopped at any time (SIGTERM, Ctrl-C) and goes on where it was; finished runs are stored and skipped.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ama_core import PRESETS, AMADetector
from ama_core.data import hold_out, load_any
from ama_core.evaluation import protocol as evaluation
from ama_core.paper.lengths import LR_FALL, NORMAL, NORMALS, PRESET, STORED
from ama_core.provenance import training_facts
from ama_core.runs.spec import config_for
from ama_core.stopping import StopRequested, stop_signals
from ama_core.storage.files import write_atomically
from ama_core.training.loop import train
from benchmarks.study import missing, study_parser

OFFLINE = ("digits", "photos", "noise", "flat", "gradients", "textures", "house_numbers")
OOD = {"fashionmnist": ("mnist", "omniglot", *OFFLINE), "cifar10": ("gtsrb", "cifar100", "tinyimagenet", *OFFLINE)}
AVERAGE = 0.999


@dataclass(frozen=True)
class Run:
    """One training of preset tiny."""

    reconstruction: str
    steps: int
    seed: int
    lr_fall: float = LR_FALL
    normal: str = NORMAL
    lambda_drift: float = PRESETS[PRESET]["lambda_drift"]

    @property
    def name(self) -> str:
        fall = "" if self.lr_fall == LR_FALL else f"-fall{self.lr_fall:g}"
        of = "" if self.normal == NORMAL else f"{self.normal}-"
        drift = "" if self.lambda_drift == PRESETS[PRESET]["lambda_drift"] else f"-drift{self.lambda_drift:g}"
        return f"{of}{self.reconstruction}-{self.steps}{fall}{drift}-s{self.seed}"


def runs() -> list[Run]:
    """Lengths with three seeds up to 4,000 steps, the cheapest first; then other falls, and CIFAR-10. The tables have 6,000."""
    found = [Run(loss, steps, seed) for seed in range(3) for steps in (500, 1000, 2000, 4000) for loss in ("mirrored", "plain")]
    found += [Run("mirrored", 2000, seed, fall) for fall in (0.9, 0.25) for seed in range(3)]
    return found + [Run("mirrored", steps, 0, normal="cifar10") for steps in (500, 1000, 2000, 4000)]


def train_one(run: Run, out: Path, images: np.ndarray, stop_requested: StopRequested) -> dict | None:
    """Train (or go on) and measure one run; None after saving where it was asked to stop.

    Raises SystemExit where OUT holds another training of that name.
    """
    config = config_for(
        run.normal,
        PRESET,
        reconstruction=run.reconstruction,
        max_steps=run.steps,
        seed=run.seed,
        lr_fall=run.lr_fall,
        lambda_drift=run.lambda_drift,
        average=AVERAGE,
    )
    checkpoint = out / f"{run.name}.safetensors"
    detector = AMADetector(config)
    resumed = checkpoint.exists()
    state = detector.trainer_class.load(checkpoint, detector.torch_device) if resumed else detector.trainer()
    if state.config != config:
        raise SystemExit(f"{checkpoint} is of a training with other settings: delete it, or name another OUT.")
    parts = hold_out(len(images), config.calibration_fraction, config.seed)
    for event in train(state, images[parts.train], sample_every=10**9, checkpoint=checkpoint):
        if stop_requested() and event.closes_step:
            state.save(checkpoint)
            return None
    found = {}
    for kind, average in (("last", 0.0), ("average", AVERAGE)):
        state.config = config.replace(average=average)
        model = AMADetector(state.config, device=detector.torch_device).fit(images, trainer=state)
        model.info_["normal"] = {"name": run.normal, "source": run.normal, "label": None, "n": len(images)}
        rows = evaluation.evaluate(model, OOD[run.normal], full=False, seed=0)["results"]
        found[kind] = {row["ood"]: {by: round(s["auroc"], 4) for by, s in row["scores"].items()} for row in rows}
    checkpoint.unlink(missing_ok=True)
    facts = training_facts(state.facts(), state.device, len(parts.train), "last")
    return {"run": asdict(run), "auroc": found, "training": facts}


def report(results: Path) -> None:
    """One line a run and weights: A and T against every OOD set, a table for each normal set."""
    every = [(Run(**stored["run"]), stored["auroc"]) for stored in map(json.loads, map(Path.read_text, results.glob("*.json")))]
    for normal in NORMALS:
        print(f"{normal:33}{'weights':9}" + "".join(f"{name[:13]:>15}" for name in OOD[normal]) + "   (A T)")
        own = [(run, aurocs) for run, aurocs in every if run.normal == normal]
        for run, aurocs in sorted(own, key=lambda found: (found[0].reconstruction, found[0].steps, found[0].name)):
            for kind, rows in aurocs.items():
                cells = (f"{rows[name]['A']:.3f} {rows[name]['T']:.3f}" for name in OOD[normal])
                print(f"{run.name:33}{kind:9}" + "".join(f"{cell:>15}" for cell in cells))


def main() -> None:
    parser = study_parser(__doc__, STORED)
    arguments = parser.parse_args()
    if arguments.what == "report":
        return report(arguments.results)
    if arguments.out is None:
        parser.error("run needs OUT, a folder for the states of unfinished runs")
    arguments.out.mkdir(parents=True, exist_ok=True)
    arguments.results.mkdir(parents=True, exist_ok=True)
    images = {}  # by normal set
    with stop_signals() as stop_requested:
        for run, file in missing(runs(), arguments.results, arguments.jobs):
            if run.normal not in images:
                detector = AMADetector(config_for(run.normal, PRESET))
                images = {run.normal: detector.prepared(load_any(run.normal, "train").images)}
            stored = train_one(run, arguments.out, images[run.normal], stop_requested)
            if stored is None:
                print(f"{run.name}: stopped and saved", file=sys.stderr)
                return None
            write_atomically(file, json.dumps(stored, indent=1) + "\n")
            ood, seconds = OOD[run.normal][0], stored["training"]["seconds"]
            print(f"{run.name}: {seconds:.0f} s, {ood} {stored['auroc']['last'][ood]}", file=sys.stderr)
    return None


if __name__ == "__main__":
    main()
