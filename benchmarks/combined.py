"""Does a combined score hold on models that were not used to find it? A confirmation by a rule written beforehand.

T (Mahalanobis distance of six statistics of the forward pass) can be combined with a distance of the critic's features:

    C   = (T / med T)² + (I / med I)²        C_F = (T / med T)² + (F / med F)²

F  Ledoit-Wolf shrunk Mahalanobis distance of f(x, x); mean and covariance from the held-out normals that M and T are fitted on.
I  the same of the concatenated spatial means of the outputs of the critic's four residual blocks at (x, x) (4 x width numbers);
   mean and covariance from training images, at most TRAIN_SAMPLE drawn by the model's seed.
kNN  mean Euclidean distance of the code z = E(x) to the NEIGHBOURS nearest codes of those training images.
med  the median over the same held-out normals.

The forms were found on bundles of `pretrained/` (normal sets digits, photos, fashionmnist, cifar10). Here they are fixed and
meet models that were trained for this purpose alone, preset `tiny` without its drift term, one thread:

- fashionmnist and cifar10, three seeds, 700 steps: the preset's own length (a step takes 0.3 s of one core);
- one class of MNIST (0, 1, 2) or one kind of traffic sign, 300 steps;
- crops of scikit-image's photographs brick, grass and gravel, 300 steps.

A pair is one model and one set of other images: every set of the catalog that is here (but `digits` for MNIST classes:
they are digits too), the other classes of a one-class model's own set, and for photographs painted defects and the other two
photographs. Up to N_OOD images of each stand against up to N_NORMAL normal test images.

The rule, written before the first model was trained. C is the hypothesis; C_F, I, F and kNN are judged by the same rule and are
secondary. The gain of a pair is the candidate's AUROC minus T's. A candidate is *confirmed* where all of these hold:

1. it is better than T by more than .002 in at least three times as many pairs as it is worse by more than .002;
2. the mean over models of a model's mean gain is above 0, and so is the lower end of its 95 % bootstrap interval (10,000
   resamples of models, not of pairs, which share a model);
3. no pair loses more than .02;
4. at least 6 models from at least 3 normal sets were measured; with fewer the verdict is "not decided".

Otherwise it is *not confirmed*. All models measured count, none is left out for its result, and when to stop is decided by the
clock: `run` prints no AUROC.

    AMA_DATA_DIR=build/data python -m benchmarks.combined run OUT [--minutes 30] [--jobs 'fashionmnist-*' ...]
    python -m benchmarks.combined report [--pairs]

`run` may be stopped at any time: models that were measured are stored in `results/combined/` and skipped, a training goes on
from its last checkpoint in OUT. Jobs are ordered so that a stop leaves a balanced picture: seed 0 of every normal set first.
"""

import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import skimage.data
import torch
from sklearn.neighbors import NearestNeighbors

from ama_core import AMADetector
from ama_core.data import ImageSet, anomaly_mask, catalog, draw, hold_out, load, one_class, prepare
from ama_core.data.defects import make_defects
from ama_core.detectors.ama.networks import Networks
from ama_core.detectors.ama.scores import Gaussian
from ama_core.evaluation.metrics import detection_metrics
from ama_core.evaluation.protocol import REST, available_sets
from ama_core.provenance import commit
from ama_core.runs.spec import config_for, suited_to_few
from ama_core.storage.files import write_atomically
from ama_core.tensors import BATCH, to_tensor
from benchmarks.study import missing, study_parser

RESULTS = Path(__file__).resolve().parent.parent / "results" / "combined"
LONG, SHORT = 700, 300  # steps: of fashionmnist and cifar10 (the preset's own length), and of the small sets
PHOTOGRAPHS = ("brick", "grass", "gravel")
SIZE, SIDE = 32, 64  # pixels of an input, and of the crop of a photograph that it is reduced from
N_CROPS = {"train": 600, "test": 1_000}  # of the test crops, half get a defect
N_SIGNS = 500  # signs of the one kind to train on; the rest of that kind are tested
SAME_DIGITS = "digits"  # no other images for a class of MNIST
TRAIN_SAMPLE = 4_000
NEIGHBOURS = 5
N_NORMAL, N_OOD = 2_000, 1_000
DEFECTS = "made defects"  # as the stored results call them
SEED = 0  # of samples, crops and defects; a model's seed decides its training and what it holds out

CANDIDATES = ("C", "C_F", "I", "F", "kNN")
SCORES = ("R", "A", "M", "T", "F", "I", "kNN", "C", "C_F")
MARGIN, RATIO, FLOOR = 0.002, 3, -0.02
LEAST_MODELS, LEAST_SETS = 6, 3
RESAMPLES, LEVEL = 10_000, 0.95


@dataclass(frozen=True)
class Job:
    """One model: what is normal, for how many steps it is trained, and by which seed."""

    normal: str
    label: int | None = None
    seed: int = 0

    @property
    def title(self) -> str:
        return self.normal if self.label is None else f"{self.normal}:{self.label}"

    @property
    def steps(self) -> int:
        return LONG if self.label is None and self.normal not in PHOTOGRAPHS else SHORT

    @property
    def name(self) -> str:
        return f"{self.title.replace(':', '-')}-{self.steps}-s{self.seed}"


def jobs() -> list[Job]:
    """Every model, in the order of training: seed 0 of every normal set, small ones early, then more seeds."""
    first = [Job("mnist", 0), Job("brick"), Job("fashionmnist"), Job("gtsrb", 2), Job("grass"), Job("mnist", 1)]
    more = [Job("cifar10"), Job("gravel"), Job("mnist", 2)]
    return first + more + [Job(name, seed=seed) for seed in (1, 2) for name in ("fashionmnist", "cifar10")]


# Images


@dataclass(frozen=True)
class Task:
    """Normal images to train on and to test; `others` gives the sets to tell from them, each when asked for."""

    train: ImageSet
    test: ImageSet
    others: Iterator[ImageSet]


def task(job: Job) -> Task:
    """The images of a job. Raises DataError where a set is not available."""
    if job.normal in PHOTOGRAPHS:
        return _photograph(job.normal)
    if job.label is None:
        return Task(load(job.normal, "train"), load(job.normal, "test"), _catalog_sets(job.normal))
    test = load(job.normal, "test")
    own, rest = one_class(test, job.label), replace(test.take(anomaly_mask(test, job.label)), name=REST)
    if job.normal == "gtsrb":  # divided here: its training split is large, and may not have been prepared
        order = np.random.default_rng(SEED).permutation(len(own))
        train, own = own.take(order[:N_SIGNS]), own.take(order[N_SIGNS:])
    else:
        train = one_class(load(job.normal, "train"), job.label)
    left_out = {job.normal} | ({SAME_DIGITS} if job.normal == "mnist" else set())
    return Task(train, own, _with_catalog([rest], left_out))


def crops(name: str, split: str) -> ImageSet:
    """Crops of a photograph, uint8 (N, 32, 32, 1): of its left three quarters for `train`, of the rest for `test`."""
    photograph = getattr(skimage.data, name)()
    height, width = photograph.shape
    edge = 3 * width // 4
    low, high = (0, edge - SIDE) if split == "train" else (edge, width - SIDE)
    rng = np.random.default_rng([SEED, split == "train"])
    places = zip(*(rng.integers(a, b + 1, N_CROPS[split]) for a, b in ((0, height - SIDE), (low, high))))
    found = np.stack([photograph[y : y + SIDE, x : x + SIDE, None] for y, x in places])
    return ImageSet(name, split, prepare(found, size=SIZE, channels=1)[0], np.zeros(len(found), np.int64))


def _photograph(name: str) -> Task:
    test = crops(name, "test")
    half = len(test) // 2
    painted = test.take(np.arange(half, len(test)))
    painted = replace(painted, name=DEFECTS, images=make_defects(painted.images, SEED)[0])
    others = [painted, *(crops(other, "test") for other in PHOTOGRAPHS if other != name)]
    return Task(crops(name, "train"), test.take(np.arange(half)), _with_catalog(others, set()))


def _with_catalog(first: list[ImageSet], left_out: set[str]) -> Iterator[ImageSet]:
    yield from first
    yield from _catalog_sets(*left_out)


def _catalog_sets(*left_out: str) -> Iterator[ImageSet]:
    yield from (load(name, "test") for name in available_sets() if name not in left_out)


# Statistics


@dataclass(frozen=True)
class Look:
    """What the critic's features and the encoder say of N images.

    Attributes:
        f: f(x, x), float32 (N, width_critic). z: E(x), float32 (N, nz).
        blocks: spatial means of the outputs of the critic's blocks, in order, float32 (N, 4 width_critic).
    """

    f: np.ndarray
    blocks: np.ndarray
    z: np.ndarray


@torch.no_grad()
def look(networks: Networks, images: np.ndarray) -> Look:
    """`Look` of uint8 images (N, S, S, C), in fp32 and eval mode, in batches."""
    networks.eval()
    D, device = networks.D, next(networks.parameters()).device
    parts = []
    for start in range(0, len(images), BATCH):
        x = to_tensor(images[start : start + BATCH], device)
        features, block_means = D.feature_map_and_block_means(networks.pair(x, x))
        found = features.sum(dim=(2, 3)), block_means, networks.E(x)
        parts.append([t.float().cpu().numpy() for t in found])
    return Look(*map(np.concatenate, zip(*parts)))


def combined(t: np.ndarray, other: np.ndarray, med_t: float, med_other: float) -> np.ndarray:
    """(T / med T)² + (other / med other)², (N,)."""
    return (t / med_t) ** 2 + (other / med_other) ** 2


class Scorer:
    """All scores of a trained model, as anomaly scores: larger = more anomalous.

    Args:
        detector: a fitted AMA.
        train: images that it was trained on, uint8 (n, S, S, C). held_out: the normals that its M and T were fitted on.

    Attributes:
        medians: of T, F and I over the held-out normals.
    """

    def __init__(self, detector: AMADetector, train: np.ndarray, held_out: np.ndarray):
        self.detector = detector
        of_train, of_held_out = look(detector.networks_, train), look(detector.networks_, held_out)
        self.of_features, self.of_blocks = Gaussian.fit(of_held_out.f), Gaussian.fit(of_train.blocks)
        self.codes = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(train)), algorithm="brute").fit(of_train.z)
        alone = self._alone(held_out, of_held_out)
        self.medians = {name: float(np.median(alone[name])) for name in ("T", "F", "I")}

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Every one of SCORES (N,) of uint8 images (N, S, S, C)."""
        found = self._alone(images, look(self.detector.networks_, images))
        for name, other in (("C", "I"), ("C_F", "F")):
            found[name] = combined(found["T"], found[other], self.medians["T"], self.medians[other])
        return found

    def _alone(self, images: np.ndarray, seen: Look) -> dict[str, np.ndarray]:
        found = dict(self.detector.anomaly_scores(self.detector.raw_scores(images)))
        found |= {"F": self.of_features.mahalanobis(seen.f), "I": self.of_blocks.mahalanobis(seen.blocks)}
        return found | {"kNN": self.codes.kneighbors(seen.z)[0].mean(axis=1)}


# One model


def trained(job: Job, train: ImageSet, out: Path) -> AMADetector:
    """The model of a job, read from `out` where it was trained before; an interrupted training goes on."""
    folder, checkpoint = out / job.name, out / f"{job.name}.safetensors"
    if (folder / "config.json").exists():
        return AMADetector.load(folder, device="cpu")
    changes = {"max_steps": job.steps, "seed": job.seed, "lambda_drift": 0.0}  # the stored figures are without that term
    if job.normal not in catalog():
        changes["channels"] = train.channels
    config = suited_to_few(config_for(job.normal, "tiny", **changes), len(train))
    detector = AMADetector(config, device="cpu", verbose=False)
    state = detector.trainer_class.load(checkpoint, detector.torch_device) if checkpoint.exists() else None
    detector.fit(train, trainer=state, checkpoint=checkpoint)
    detector.save(folder)
    checkpoint.unlink(missing_ok=True)
    return detector


def measured(detector: AMADetector, given: Task) -> dict:
    """Medians, and of every set n, the quartiles of every score and its AUROC against the normal test images."""
    settings = detector.settings
    images = detector.prepared(given.train.images)
    parts = hold_out(len(images), settings.calibration_fraction, settings.seed)
    sample = parts.train[draw(len(parts.train), TRAIN_SAMPLE, settings.seed)]
    score = Scorer(detector, images[sample], images[parts.statistics])

    def scores(found: ImageSet, most: int) -> dict[str, np.ndarray]:
        return score(detector.prepared(found.images[draw(len(found), most, SEED)]))

    further = parts.calibration[draw(len(parts.calibration), N_OOD, SEED)]
    held_out, normal = score(images[further]), scores(given.test, N_NORMAL)
    sets = {}
    for other in given.others:
        found = scores(other, N_OOD)
        aurocs = {name: round(detection_metrics(normal[name], found[name])["auroc"], 5) for name in SCORES}
        sets[other.name] = {"n": len(found["T"]), "auroc": aurocs, "quartiles": _quartiles(found)}
    return {
        "medians": score.medians,
        "n_train_sample": len(sample),
        "held_out": {"n_statistics": len(parts.statistics), "n": len(held_out["T"]), "quartiles": _quartiles(held_out)},
        "normal": {"n": len(normal["T"]), "quartiles": _quartiles(normal)},
        "sets": sets,
    }


def _quartiles(scores: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    return {name: [float(f"{v:.6g}") for v in np.percentile(scores[name], (25, 50, 75))] for name in SCORES}


# The rule


@dataclass(frozen=True)
class Verdict:
    """What the rule says of one candidate.

    Attributes:
        better, worse: pairs that gain or lose more than MARGIN. mean, low, high: of the models' mean gains, with its
            interval. worst: the smallest gain of a pair, and `where`.
        decided: whether enough was measured. failed: the numbers of the conditions (1 to 3) that do not hold.
    """

    models: int
    pairs: int
    better: int
    worse: int
    mean: float
    low: float
    high: float
    worst: float
    where: str
    decided: bool
    failed: tuple[int, ...]

    @property
    def words(self) -> str:
        if not self.decided:
            return f"not decided ({self.models} models are too few)"
        if self.failed:
            return f"not confirmed (condition {', '.join(map(str, self.failed))} fails)"
        return f"confirmed, on {self.models} models"


def verdict(gains: Mapping[str, Mapping[str, float]], n_sets: int) -> Verdict:
    """The rule above. gains: model -> set -> AUROC of the candidate minus that of T; n_sets: different normal sets."""
    pairs = {f"{model} against {name}": gain for model, of in gains.items() for name, gain in of.items()}
    values = np.array(list(pairs.values()))
    better, worse = int((values > MARGIN).sum()), int((values < -MARGIN).sum())
    means = np.array([np.mean(list(of.values())) for of in gains.values()])
    low, high = bootstrap(means)
    where = min(pairs, key=pairs.get)
    holds = (better > 0 and better >= RATIO * worse, means.mean() > 0 and low > 0, values.min() >= FLOOR)
    return Verdict(
        models=len(gains),
        pairs=len(pairs),
        better=better,
        worse=worse,
        mean=float(means.mean()),
        low=low,
        high=high,
        worst=float(pairs[where]),
        where=where,
        decided=len(gains) >= LEAST_MODELS and n_sets >= LEAST_SETS,
        failed=tuple(i for i, held in enumerate(holds, 1) if not held),
    )


def bootstrap(means: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the mean of values (n,), by the percentiles of resampled means."""
    drawn = np.random.default_rng(SEED).integers(0, len(means), (RESAMPLES, len(means)))
    low, high = np.quantile(means[drawn].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


# Report


def read(results: Path) -> list[dict]:
    """Stored models, in the order of `jobs`; what belongs to none of these comes last."""
    order = [job.name for job in jobs()]
    files = sorted(results.glob("*.json"), key=lambda f: (order.index(f.stem) if f.stem in order else len(order), f.stem))
    return [json.loads(file.read_text()) for file in files]


def gains_of(stored: list[dict], candidate: str) -> dict[str, dict[str, float]]:
    """Model -> set -> AUROC of the candidate minus that of T."""
    return {
        model["name"]: {name: row["auroc"][candidate] - row["auroc"]["T"] for name, row in model["sets"].items()}
        for model in stored
    }


def report(stored: list[dict], pairs: bool = False) -> str:
    """Markdown: the verdict on every candidate, mean AUROC of every model, and with `pairs` a row for each pair."""
    n_sets = len({(model["job"]["normal"], model["job"]["label"]) for model in stored})
    lines = ["| candidate | pairs better, worse | mean gain over T (95 %) | worst pair | verdict |", "|---|---|---|---|---|"]
    for candidate in CANDIDATES:
        v = verdict(gains_of(stored, candidate), n_sets)
        lines.append(
            f"| {candidate} | {v.better}, {v.worse} of {v.pairs} | {v.mean:+.4f} ({v.low:+.4f} to {v.high:+.4f}) "
            f"| {v.worst:+.4f}, {v.where} | {v.words} |"
        )
    head = ["R", "A", "M", "T", *CANDIDATES]
    rule = "|---" * (len(head) + 2) + "|"
    lines += ["", f"| model, mean AUROC over its sets | sets | {' | '.join(head)} |", rule]
    for model in stored:
        rows = model["sets"].values()
        cells = (f"{np.mean([row['auroc'][name] for row in rows]):.3f}" for name in head)
        lines.append(f"| {model['name']} | {len(rows)} | {' | '.join(cells)} |")
    if pairs:
        lines += ["", f"| model | against | {' | '.join(head)} | C − T |", f"{rule}---|"]
        for model in stored:
            for name, row in model["sets"].items():
                cells = " | ".join(f"{row['auroc'][by]:.3f}" for by in head)
                lines.append(f"| {model['name']} | {name} | {cells} | {row['auroc']['C'] - row['auroc']['T']:+.4f} |")
    return "\n".join(lines)


def run(out: Path, results: Path, patterns: list[str], minutes: float) -> None:
    """Train and measure what is not stored yet; no job begins after `minutes`."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    results.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    for job, file in missing(jobs(), results, patterns):
        if time.monotonic() - began > 60 * minutes:
            print(f"{job.name} and what follows are left for another call", file=sys.stderr)
            return
        given = task(job)
        detector = trained(job, given.train, out)
        at = time.monotonic()
        found = measured(detector, given)
        facts = {"seconds": round(time.monotonic() - at, 1), "commit": commit()}
        facts["command"] = shlex.join(["python", "-m", "benchmarks.combined", *sys.argv[1:]])
        stored = {"name": job.name, "job": asdict(job) | {"steps": job.steps}, **found}
        stored |= {"training": detector.info_["training"], "measuring": facts}
        write_atomically(file, json.dumps(stored, indent=1) + "\n")
        print(f"{job.name}: trained {detector.info_['training']['seconds']} s, measured {facts['seconds']} s", flush=True)


def main() -> None:
    parser = study_parser(__doc__, RESULTS)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no model after this time")
    parser.add_argument("--pairs", action="store_true", help="report: a row for every pair as well")
    arguments = parser.parse_args()
    if arguments.what == "report":
        stored = read(arguments.results)
        print(report(stored, arguments.pairs) if stored else f"Nothing is stored in {arguments.results}: call run OUT first.")
    elif arguments.out is None:
        parser.error("run needs OUT, a folder for models and unfinished trainings")
    else:
        run(arguments.out, arguments.results, arguments.jobs, arguments.minutes)


if __name__ == "__main__":
    main()
