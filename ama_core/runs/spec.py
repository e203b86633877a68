"""What a run is asked to do: the contents of `run.json`, as a command, and whether it can be carried out at all."""

import json
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ama_core.data import available, catalog, iter_images, load_any, overlapping
from ama_core.data.guidance import FEWEST, calibration_fraction
from ama_core.detectors.base import SELECTIONS
from ama_core.detectors.registry import detector_class
from ama_core.errors import AMAError, BundleError, ConfigError, DataError
from ama_core.settings import Settings, TrainingSettings
from ama_core.storage.bundle import FIRST
from ama_core.storage.files import MAX_JSON_BYTES, parse_json, read_regular

VERSION = 1  # of run.json
FILE = "run.json"


@dataclass(frozen=True)
class RunSpec:
    """What a run was asked to do; stored as `run.json`, so that a resumed run cannot disagree with itself.

    Attributes:
        dataset: normal data: a name of the catalog, a folder, or an .npz file.
        one_class: train on this class alone (Table 2).
        anomalies: source of real anomalies used as negatives (semi-supervised).
        validate_ood: source of the 50 anomalies behind the periodic AUROC.
        select: `last` or `validated` (see `AnomalyDetector.fit`).
        measure: whether to store scores of every data set that is available locally once trained.
        detector: its name in the registry.
        watch: source of anomalies that are looked at while training, by which nothing is chosen, and of one's own images those
            that the finished model is measured against.
    """

    dataset: str
    config: Settings
    one_class: int | None = None
    anomalies: str | None = None
    validate_ood: str | None = None
    select: str = "last"
    measure: bool = True
    detector: str = FIRST
    watch: str | None = None

    def to_json(self) -> str:
        values = {"version": VERSION, **vars(self), "config": self.config.to_dict()}
        if self.detector == FIRST:  # as before there was another, so that older software reads it
            del values["detector"]
        if self.watch is None:
            del values["watch"]
        return json.dumps(values, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "RunSpec":
        """What `to_json` wrote, in this version or an older one. Raises BundleError."""
        try:
            values = parse_json(text)
            version = values.pop("version", 1)  # the first runs did not say
            if version > VERSION:
                raise BundleError(f"it has version {version}, this software reads up to {VERSION}: update AMA Explorer")
            settings = detector_class(values.get("detector", FIRST)).Settings
            return cls(**{**values, "config": settings.from_dict(values["config"])})
        except (ValueError, TypeError, KeyError, AttributeError, AMAError) as error:
            raise BundleError(f"This is not what a run was asked to do: {error}.") from error

    @classmethod
    def read(cls, folder: Path) -> "RunSpec":
        """The spec of a run folder. Raises BundleError where there is none."""
        try:
            return cls.from_json(read_regular(folder / FILE, MAX_JSON_BYTES).decode())
        except FileNotFoundError:
            raise BundleError(f"There is no run in {folder} to resume: leave --resume out to begin one.") from None
        except (OSError, ValueError, BundleError) as error:
            raise BundleError(f"{folder} is not a run folder that can be resumed: {error}.") from error


def config_for(dataset: str, preset_name: str, detector: str = FIRST, **changes: Any) -> Settings:
    """A detector's preset with the channels and the fit that suit the data set, and `changes` over both. Raises ConfigError."""
    info = catalog().get(dataset)
    suited = {"channels": info.channels, "fit": info.fit} if info else {}
    return detector_class(detector).Settings.preset(preset_name, **{**suited, **changes})


def suited_to_few(config: Settings, n: int, given: Collection[str] = ()) -> Settings:
    """The settings with what n images need: batches that they fill, and enough held out for the rate asked for.

    Of very few images not enough can be held out (see `calibration_fraction`): a larger rate has to do. Settings that suit n
    images already are returned as they are. Raises ConfigError.

    Args:
        given: names of settings that stay as they are.
    """
    if n < FEWEST:  # `hold_out` says what is wrong with those
        return config
    if "calibration_fraction" not in given:
        fraction = max(config.calibration_fraction, calibration_fraction(n, config.false_alarm_rate))
        config = config.replace(calibration_fraction=fraction)
    return config if "batch_size" in given else with_filled_batches(config, n)


def with_filled_batches(config: Settings, n: int) -> Settings:
    """The settings with batches of which what is trained on, of n images, fills one at least: smaller ones where it does not.

    Raises ConfigError.
    """
    left = n - round(n * config.calibration_fraction)
    if not isinstance(config, TrainingSettings) or left >= config.batch_size:
        return config
    return config.with_batch_size(max(3, left // 2))  # 3: a mixture is of two normal images, and one may be a negative


def command_line(spec: RunSpec, out: Path | str, preset_name: str | None = None) -> str:
    """What to type in a terminal for the same run; without the name of a preset, from the one that takes the fewest words."""
    if preset_name is None:
        presets = detector_class(spec.detector).Settings.PRESETS
        return min((command_line(spec, out, name) for name in presets), key=len)
    words = ["python", "-m", "ama_core", "train", spec.dataset, "--preset", preset_name, "--out", str(out)]
    words += ["--detector", spec.detector] if spec.detector != FIRST else []
    suited = config_for(spec.dataset, preset_name, spec.detector).to_dict()
    for name, value in spec.config.to_dict().items():
        if value != suited[name]:
            words += ["--set", f"{name}={value}"]
    options = {
        "--one-class": spec.one_class,
        "--anomalies": spec.anomalies,
        "--validate-ood": spec.validate_ood,
        "--watch": spec.watch,
    }
    for option, value in options.items():
        if value is not None:
            words += [option, str(value)]
    words += ["--select", spec.select] if spec.select != "last" else []
    words += [] if spec.measure else ["--no-measure"]
    return shlex.join(words)


def check(spec: RunSpec) -> None:
    """Tell early what a run would stumble over, as far as can be told without reading all its data.

    Raises:
        DataError: a source is not available locally or holds no readable image.
        ConfigError: the class is unknown, the anomalies are the normal images, or `validated` is asked for without validation
            anomalies.
    """
    if spec.select not in SELECTIONS:
        raise ConfigError(f"select = {spec.select!r} must be {' or '.join(SELECTIONS)}.")
    if spec.select == "validated" and not spec.validate_ood:
        raise ConfigError("Choosing the weights by validation needs validation anomalies: name them with --validate-ood.")
    check_anomalies(spec)
    for source, split in (
        (spec.dataset, "train"),
        (spec.anomalies, "train"),
        (spec.validate_ood, "test"),
        (spec.watch, "test"),
    ):
        if source and source in catalog():
            if split not in available(source):
                load_any(source, split)  # says how to get it
        elif source:
            _check_own(source)
    classes = catalog()[spec.dataset].classes if spec.dataset in catalog() else ()
    if spec.one_class is not None and classes and not 0 <= spec.one_class < len(classes):
        raise ConfigError(f"{spec.dataset} has the classes 0 to {len(classes) - 1}; there is no {spec.one_class}.")


def check_anomalies(spec: RunSpec) -> None:
    """Raises ConfigError where the anomalies are the normal images, by whatever name, or could be taken for them by theirs."""
    own = Path(spec.dataset)  # images of one's own go by the name of their folder or file
    names = () if spec.dataset in catalog() else (own.name, own.stem)
    for option, source in (("--anomalies", spec.anomalies), ("--validate-ood", spec.validate_ood), ("--watch", spec.watch)):
        if source and overlapping(spec.dataset, source):
            raise ConfigError(
                f"The anomalies ({option} {source}) are, or lie among, the normal images ({spec.dataset}): name other images "
                "as anomalies."
            )
        if source and str(source) in names:
            raise ConfigError(
                f"The normal images ({spec.dataset}) are called {source} as well as the anomalies ({option}), so their results "
                "could not be told apart: rename that folder or file."
            )


def _check_own(source: str) -> None:
    path = Path(source).expanduser()
    if not path.exists():
        raise DataError(f"'{source}' is neither a data set known here nor an existing path. Check the path.")
    first_error = None
    for file in iter_images([path]):
        if file.image is not None:
            return
        first_error = first_error or f"{file.path}: {file.error}"
    raise DataError(f"'{source}' holds no readable image. {first_error or ''}".strip())
