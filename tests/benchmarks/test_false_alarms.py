"""Whether the false-alarm rate holds: of every kind of detector, on images that are here and on stored scores."""

import sys

import numpy as np
import pytest

from ama_core.data import load, one_class
from ama_core.detectors.registry import detector_class
from ama_core.errors import DataError
from ama_core.evaluation import protocol
from ama_core.storage.bundle import write_scores
from benchmarks import false_alarms as study


@pytest.fixture()
def one_class_model(tmp_path, monkeypatch):
    """Principal components of one class of digits, its scores stored: (folder, detector, its normal test images)."""
    kind = detector_class("pca")
    train = one_class(load("digits", "train"), 3)
    detector = kind(kind.Settings(channels=1, calibration_fraction=0.3), verbose=False).fit(train)
    detector.info_["normal"] = {"name": "digits", "source": "digits", "label": 3, "n": len(train)}
    detector.save(tmp_path / "threes")
    monkeypatch.setattr(protocol, "available_sets", lambda: ["digits"])
    write_scores(tmp_path / "threes", list(protocol.measure_each(detector)))
    return str(tmp_path / "threes"), detector, one_class(load("digits", "test"), 3).images


def missing(*_, **__):
    raise DataError("They are not here.")


def test_a_one_class_model_is_looked_at_on_its_class_here_or_stored(one_class_model, monkeypatch):
    folder, detector, images = one_class_model
    here = study.rows(folder, 0.999)
    assert [(row["score"], row["alpha"]) for row in here] == [(by, a) for by in detector.score_names() for a in study.ALPHAS]
    first = next(row for row in here if row["score"] == detector.by and row["alpha"] == 0.1)
    assert first["flagged"] == np.mean(detector.p_value(images) <= 0.1) and first["n_test"] == len(images)
    assert first["n_calibration"] == len(detector.calibration_scores_) and first["low"] <= first["high"]
    monkeypatch.setattr(study, "set_images", missing)
    assert study.rows(folder, 0.999) == here
    write_scores(folder, [])
    with pytest.raises(DataError, match="no stored scores"):
        study.rows(folder, 0.999)


def test_models_of_every_kind_are_printed(one_class_model, monkeypatch, capsys):
    """The default is every bundled model, of many kinds; their images are taken for missing, as they may be."""
    monkeypatch.setattr(study, "set_images", missing)
    monkeypatch.setattr(study, "list_bundles", lambda: ["digits", "fashionmnist-deepsvdd", one_class_model[0]])
    monkeypatch.setattr(sys, "argv", ["false_alarms.py"])
    study.main()
    said = capsys.readouterr().out
    assert (
        all(f"\n{name} " in said for name in ("digits", "fashionmnist-deepsvdd", one_class_model[0])) and "A_distance" in said
    )
    assert "lie in their band" in said.splitlines()[-1]
