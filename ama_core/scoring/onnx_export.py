"""A model as one ONNX file, for programs without Python or PyTorch: from uint8 images to scores and p-value."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import isnan
from pathlib import Path

import numpy as np
import torch

from ama_core._version import __version__
from ama_core.data import load
from ama_core.detectors.base import AnomalyDetector
from ama_core.errors import AMAError, ConfigError
from ama_core.storage.files import open_regular, write_atomically

TOLERANCE = 1e-4  # relative: of every score, between ONNX Runtime and PyTorch
CHECKED = ("digits", "textures", "noise", "flat")  # built-in sets whose images are compared
EACH = 8  # images of each of them
GENERATOR = b"AMA Explorer"
MISSING = "Exporting needs onnx, onnxscript and onnxruntime: pip install 'ama-explorer[onnx]', or pip install them by name."


def export_onnx(detector: AnomalyDetector, path: Path) -> dict[str, float]:
    """Write a fitted detector as one ONNX file, and compare what ONNX Runtime makes of it with PyTorch.

    Input `images`, uint8 (N, S, S, C), prepared as the file's metadata say (`input`); outputs by name, see `Graph`.

    Returns:
        The largest relative difference of each score, over images of built-in data sets.

    Raises:
        ConfigError: the detector cannot be exported, or a package is missing.
        AMAError: it cannot be written or run as ONNX, or the file would give other scores; nothing is written.
    """
    if "export" not in detector.can():
        raise ConfigError(f"{detector.title} cannot be exported: its scores are not computed by one network.")
    contents = onnx_bytes(detector)
    differences = compare(detector, contents)
    worst = max(differences, key=lambda name: (isnan(differences[name]), differences[name]))
    if not differences[worst] <= TOLERANCE:  # NaN is none either
        raise AMAError(
            f"Not exported: ONNX Runtime gives values of {worst} that differ by {differences[worst]:.1e} from PyTorch's, more "
            f"than {TOLERANCE:.0e}. Try other versions of onnxruntime or torch."
        )
    write_atomically(path, contents)
    return differences


def is_onnx(file: Path) -> bool:
    """Whether `export_onnx` made this file."""
    try:
        with open_regular(file) as opened:
            return file.suffix == ".onnx" and GENERATOR in opened.read()
    except OSError:
        return False


def onnx_bytes(detector: AnomalyDetector) -> bytes:
    """The ONNX file of a fitted detector. Raises ConfigError where a package is missing, AMAError where export fails."""
    try:
        import onnxscript  # noqa: F401 (what torch exports with)
    except ImportError as error:
        raise ConfigError(MISSING) from error
    graph, spec = detector.graph(), detector.settings.input
    example = torch.zeros(2, spec.size, spec.size, spec.channels, dtype=torch.uint8)
    names = list(graph(example))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports each pass
    with warnings.catch_warnings(), _not_exported("PyTorch cannot write this model as ONNX"):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=names,
            dynamic_shapes={"images": {0: torch.export.Dim("n")}},
        )
        program.model.metadata_props.update(metadata(detector))
        return program.model_proto.SerializeToString()


@contextmanager
def _not_exported(what: str) -> Iterator[None]:
    """Turns whatever fails inside into an AMAError: neither torch.export nor ONNX Runtime has one base class of its errors."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        raise AMAError(
            f"Not exported: {what} ({type(error).__name__}: {reason}). Try other versions of torch, onnxscript or onnxruntime."
        ) from error


def metadata(detector: AnomalyDetector) -> dict[str, str]:
    """What the file says of itself: all strings, JSON where there is more than a word."""
    score = detector.deciding_score()
    return {
        "generator": f"{GENERATOR.decode()} {__version__}",
        "detector": detector.name,
        "title": detector.title,
        "input": json.dumps(vars(detector.settings.input)),
        "normal": detector.normal.title if detector.normal else "",
        "decides": score.name,
        "meanings": json.dumps({s.name: s.meaning for s in detector.SCORES}),
        "anomalous_when": json.dumps({s.name: "low" if s.low else "high" for s in detector.SCORES}),
        "false_alarm_rate": f"{detector.false_alarm_rate:g}",
        "calibration_images": str(len(detector.calibration_scores_)),
    }


def compare(detector: AnomalyDetector, contents: bytes) -> dict[str, float]:
    """Largest difference of each score between ONNX Runtime and the detector, relative to its size, on built-in images.

    Sizes below 1 count as 1 for scores that pass through zero. A p-value may differ by one calibration image. Raises
    ConfigError where a package is missing, AMAError where ONNX Runtime fails or gives other p-values.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(MISSING) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    images = np.concatenate([detector.prepared(load(name, "test").images[:EACH]) for name in CHECKED])
    with _not_exported("ONNX Runtime cannot run what PyTorch wrote"):
        session = onnxruntime.InferenceSession(contents, options, providers=["CPUExecutionProvider"])
        found = dict(zip((output.name for output in session.get_outputs()), session.run(None, {"images": images})))
    expected = detector.scores(images)
    apart = {}
    for score in detector.SCORES:
        key = score.ranks_by or score.name  # of log A, since A underflows
        apart[key] = float(np.max(np.abs(found[key] - expected[key]) / np.maximum(np.abs(expected[key]), 1.0)))
    steps = np.abs(found["p_value"] - expected[f"p_{detector.by}"]) * (len(detector.calibration_scores_) + 1)
    if not steps.max() <= 1.5:
        raise AMAError(f"Not exported: ONNX Runtime gives p-values that are {steps.max():.0f} calibration images off.")
    return apart
