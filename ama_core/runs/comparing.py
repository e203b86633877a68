"""Several detectors on one's own images: what they are fitted to and tested on, their settings, and one kept as a model.

Of images alone, as the command `compare` has them, or beside a model that was trained on them, as the app has it.
"""

import copy
import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ama_core.data import ImageSet, absolute_source, calibration_fraction, catalog, divided, guidance, load_any
from ama_core.data import inspect as inspect_images
from ama_core.data.defects import NAME, make_defects
from ama_core.data.imageset import SPLITS
from ama_core.detectors.base import AnomalyDetector, NormalData
from ama_core.detectors.registry import detector_class
from ama_core.errors import ConfigError, DataError
from ama_core.evaluation import protocol as evaluation
from ama_core.evaluation.recommendation import Comparison, Progress, Tick, compare
from ama_core.evaluation.simple import unfitted_beside
from ama_core.runs import measuring, queue
from ama_core.runs.folder import Run
from ama_core.runs.spec import RunSpec, config_for, suited_to_few, with_filled_batches
from ama_core.runs.status import State, Status
from ama_core.settings import FALSE_ALARM_RATE
from ama_core.storage.bundle import write_results, write_scores

FAST = "fast64"
SIMPLE = ("nearest", "pca", "lossless_length", "pixel_mean")  # fitted in seconds, without gradient steps
TRAINED = "autoencoder"  # the simple one that is trained by steps
DECIDES = {"ama": "C"}  # the score that a detector is judged by on one's own images, where not its default (docs/scores.md)
DEFAULT = ("ama", "nearest", "pca", TRAINED, "lossless_length", "pixel_mean")  # of the command


@dataclass(frozen=True)
class Inputs:
    """Training images, held-out normal ones and anomalous ones; `made`: the latter are synthetic defects."""

    train: ImageSet
    normal: ImageSet
    anomalous: ImageSet
    made: bool


# Of images alone


def own_inputs(good: str, bad: str | None, detector: AnomalyDetector) -> Inputs:
    """Images as a detector sees them; synthetic defects on the held-out normal ones where no bad ones are named.

    Args:
        good, bad: names of the catalog, folders or files.

    Raises DataError.
    """
    spec = detector.settings.input
    train, normal = (load_any(good, split, **vars(spec)) for split in SPLITS)
    if bad:
        return Inputs(train, normal, load_any(bad, "ood", **vars(spec)), False)
    return Inputs(train, normal, _made(normal, detector), True)


def own_detectors(
    good: str,
    chosen: Sequence[str] = DEFAULT,
    *,
    alpha: float = FALSE_ALARM_RATE,
    preset: str | None = None,
    changes: Mapping[str, Any] | None = None,
    device: str | None = None,
    verbose: bool = True,
) -> dict[str, AnomalyDetector]:
    """Unfitted detectors by name, with one input for all of them, and settings that suit the normal images.

    Args:
        good: name of the catalog, folder or file. chosen: names of the registry.
        alpha: the false-alarm rate that should be within reach.
        preset: of detectors that have it, the others `tiny`; default: a fast one where the input is large, else `tiny`.
        changes: settings of every detector that has them.

    Raises ConfigError: no detector of such a name, a setting that none has, a value that will not do; DataError.
    """
    changes = dict(changes or {})
    suited, n_train = _suited(good, alpha)
    presets = (detector_class(name).Settings.PRESETS.get(preset, {}) for name in chosen)
    sizes = [found["image_size"] for found in presets if "image_size" in found]
    suited |= {"image_size": sizes[0]} if sizes else {}  # a preset that is asked for says it for all
    suited |= changes
    known = {name: {field.name for field in dataclasses.fields(detector_class(name).Settings)} for name in chosen}
    if unknown := [key for key in changes if not any(key in fields for fields in known.values())]:
        raise ConfigError(f"--set {unknown[0]}: none of {', '.join(chosen)} has a setting of this name.")
    found = {}
    for name in chosen:
        of_this = {key: value for key, value in suited.items() if key in known[name]}
        config = config_for(good, _preset(name, preset, suited.get("image_size", 32)), name, **of_this)
        if n_train and "batch_size" not in changes:
            config = with_filled_batches(config, n_train)
        found[name] = detector_class(name)(config, score=DECIDES.get(name), device=device, verbose=verbose)
    return found


def _judged(detector: AnomalyDetector) -> AnomalyDetector:
    """A fitted detector with the score that it is judged by, if its bundle has that; its weights are shared."""
    by = DECIDES.get(detector.name)
    if not by or not detector.gives(by):
        return detector
    judged = copy.copy(detector)
    judged.score = by
    return judged


def own_normal(good: str, train: ImageSet, bad: str | None = None) -> NormalData:
    """What a model of one's own images says of them, with where they lie, and the anomalous ones that it was compared on."""
    watch = absolute_source(bad) if bad else None
    return NormalData(train.name, absolute_source(good), None, len(train), train.fingerprint, watch=watch)


def keep(detector: AnomalyDetector, normal: NormalData, folder: Path | str, inputs: Inputs | None = None) -> None:
    """Save a fitted detector as a model that knows its normal images. Raises BundleError.

    inputs: what it was compared on; its scores and figures on these are stored with it, unless they are synthetic defects, on
        which it could not be measured again.
    """
    detector.info_["normal"] = dataclasses.asdict(normal)
    detector.save(folder)
    if inputs is None:
        return
    folder, stored = Path(folder), []
    anomalous = [] if inputs.made else [dataclasses.replace(inputs.anomalous, name=normal.watch or inputs.anomalous.name)]
    of_normal = dataclasses.replace(inputs.normal, name=normal.name)
    found = evaluation.evaluate(detector, anomalous, normal=of_normal, model=folder.name, full=True, keep=stored.append)
    write_scores(folder, stored)
    write_results(folder, found)
    measuring.write_card(detector, folder)


def _suited(good: str, alpha: float) -> tuple[dict[str, Any], int]:
    """Settings that suit the normal images, and how many of them are training images; 0 where none can be read."""
    if good in catalog():
        n = len(load_any(good, "train"))
        return {"calibration_fraction": calibration_fraction(n, alpha)}, n
    found = inspect_images(good)
    if not found.n:
        return {}, 0
    suits = guidance(found, alpha, divided(Path(good)))
    return dict(suits.settings()), suits.n_train


def _preset(name: str, asked: str | None, image_size: Any) -> str:
    """The preset that is asked for, or a fast one for large images, of a detector that has it; else `tiny`."""
    preset = asked or (FAST if int(image_size) >= 64 else "tiny")
    return preset if preset in detector_class(name).Settings.PRESETS else "tiny"


def _made(normal: ImageSet, detector: AnomalyDetector) -> ImageSet:
    painted, _, kinds = make_defects(detector.prepared(normal.images))
    return ImageSet(NAME, "test", painted, kinds)


# Beside a model


def model_inputs(detector: AnomalyDetector) -> Inputs:
    """The images that a model of one's own images was trained on, those held out from it, and the bad ones that its training
    named (the first that are here); synthetic defects where there are none.

    Raises DataError: the images are not here, or are no longer those that it was trained on.
    """
    normal = detector.normal
    if normal is None or not normal.is_own:
        raise DataError("This model does not say which images of your own it was trained on: there is nothing to compare with.")
    if not Path(normal.source).expanduser().exists():
        raise DataError(
            f"The images that this model was trained on are no longer in {normal.source}: put them back, then compare again."
        )
    train, test = (evaluation.set_images(detector, normal.name, split) for split in SPLITS)
    if normal.fingerprint not in ("", train.fingerprint):
        raise DataError(
            f"The images in {normal.source} are not those that this model was trained on, and some of them may be among the "
            "test images now: train again on what is there, then compare."
        )
    for name in evaluation.available_others(detector):
        bad, untested = evaluation.ood_test(detector, name)
        tested = bad.take(np.setdiff1d(np.arange(len(bad)), untested))
        return Inputs(train, test, dataclasses.replace(tested, name=name), False)
    return Inputs(train, test, _made(test, detector), True)


def beside_model(detector: AnomalyDetector, chosen: Sequence[str] = SIMPLE) -> dict[str, AnomalyDetector]:
    """Unfitted detectors by name that see images and are calibrated as a fitted one does and is; its own kind is left out.

    Raises ConfigError.
    """
    found = {}
    for name in chosen:
        if name == detector.name:
            continue
        found[name] = other = unfitted_beside(detector, name, _preset(name, None, detector.settings.image_size))
        if other.trains() and detector.normal:  # batches that few images fill; what is held out stays the model's
            fitting = suited_to_few(other.settings, detector.normal.n)
            other.config = fitting.replace(calibration_fraction=detector.settings.calibration_fraction)
    return found


def compare_model(
    detector: AnomalyDetector,
    chosen: Sequence[str] = SIMPLE,
    *,
    alpha: float = FALSE_ALARM_RATE,
    progress: Progress | None = None,
    tick: Tick | None = None,
) -> tuple[Comparison, dict[str, AnomalyDetector]]:
    """A model of one's own images beside others, fitted to the same training images and tested on the same ones (see
    `model_inputs`); the model itself is not changed.

    Args:
        chosen: names of the registry. alpha, progress, tick: as of `recommendation.compare`.

    Returns the comparison, and every detector by its name there, fitted.
    Raises DataError as `model_inputs`, ConfigError.
    """
    if progress:
        progress("Images", "reading")
    inputs, others, own = model_inputs(detector), beside_model(detector, chosen), {detector.name: _judged(detector)}
    found = compare(
        inputs.train,
        inputs.normal,
        inputs.anomalous,
        others,
        fitted=own,
        alpha=alpha,
        made=inputs.made,
        progress=progress,
        tick=tick,
    )
    return found, own | others


def keep_beside(
    model: AnomalyDetector,
    detector: AnomalyDetector,
    runs: Path | str,
    wish: str,
    progress: Callable[[float, str], None] | None = None,
) -> Path:
    """Keep a detector that was compared with a model as a finished run among the `runs`, measured on what the model names.

    Args:
        wish: what the run is called, with a number where that is taken: nothing is ever replaced.
        progress: called with how much is done, in [0, 1], and what is being measured; it may raise to stop.

    Returns its folder. Raises ConfigError, DataError or BundleError; then nothing is left behind.
    """
    normal = dataclasses.replace(model.normal, watch=next(iter(evaluation.available_others(model)), None))
    normal = dataclasses.replace(normal, validation_ood=None, anomalies=None)
    path = queue.new_folder(runs, wish)
    try:
        keep(detector, normal, path)
        measuring.measure_run(detector, path, _in_fractions(progress, measuring.measuring_steps(detector)))
        run = Run(path)
        run.write_spec(RunSpec(normal.source, detector.settings, normal.label, detector=detector.name, watch=normal.watch))
        run.write(Status(State.FINISHED))
        run.log(f"{detector.title} was fitted in a comparison with another model, and kept")
    except OSError as error:
        shutil.rmtree(path, ignore_errors=True)
        raise ConfigError(f"The model could not be saved in {path}: {error.strerror or error}.") from error
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return path


def _in_fractions(progress: Callable[[float, str], None] | None, steps: int) -> evaluation.Progress | None:
    """A progress of measuring, which tells of every piece of work how far it is, that tells how much of all of it is done."""
    if progress is None:
        return None
    begun, last = 0, ("", 0)

    def tell(done: int, total: int, name: str) -> None:
        nonlocal begun, last
        begun, last = begun + (name != last[0] or done <= last[1]), (name, done)
        progress(min(1.0, (begun - 1 + done / total) / steps), name)

    return tell
