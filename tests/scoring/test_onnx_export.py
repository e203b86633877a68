"""ONNX: the file gives what the detector gives, says what it is, and is not written where it would not."""

import json

import numpy as np
import pytest
import torch

from ama_core import AMADetector, load_detector
from ama_core.data import load
from ama_core.errors import AMAError, ConfigError
from ama_core.scoring import onnx_export
from ama_core.scoring.onnx_export import TOLERANCE, export_onnx
from ama_core.storage.bundle import PRETRAINED

onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install -r requirements-dev.txt")
pytest.importorskip("onnxscript", reason="needs onnxscript: pip install -r requirements-dev.txt")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The files of the bundled models `fashionmnist` and `cifar10-plain`."""
    folder = tmp_path_factory.mktemp("onnx")
    for name in ("fashionmnist", "cifar10-plain"):
        export_onnx(load_detector(name, device="cpu"), folder / f"{name}.onnx")
    return folder


@pytest.mark.parametrize("name", ["fashionmnist", "cifar10-plain"])
def test_it_gives_the_scores_of_the_model(exported, name):
    session = onnxruntime.InferenceSession(exported / f"{name}.onnx")
    detector = load_detector(name, device="cpu")
    images = detector.prepared(load("photos", "test").images[:9])
    assert session.get_inputs()[0].type == "tensor(uint8)"
    for batch in (images, images[:1]):  # any number of images
        found = dict(zip((out.name for out in session.get_outputs()), session.run(None, {"images": batch})))
        expected = detector.examine(batch)
        for score in ("R", "log_A", "M", "T"):
            np.testing.assert_allclose(found[score], expected.scores[score], rtol=TOLERANCE)
        np.testing.assert_allclose(found["map"], expected.maps, atol=1e-3 * np.abs(expected.maps).max())
        assert np.abs(found["reconstruction"].astype(int) - expected.reconstructions).max() <= 1
        n = len(detector.calibration_scores_)
        assert np.abs(found["p_value"] - expected.scores["p_T"]).max() <= 1.01 / (n + 1)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["input"]) == vars(detector.settings.input) and facts["decides"] == "T"
    assert json.loads(facts["anomalous_when"])["A"] == "low" and int(facts["calibration_images"]) == n


def test_by_command(call, tmp_path):
    file = tmp_path / "m.onnx"
    code, _, err = call("export", "digits", "--onnx", file, "--by", "A")
    assert code == 0 and "is written" in err and file.stat().st_size > 100_000
    session = onnxruntime.InferenceSession(file)
    images = load("digits", "test").images[:5]
    found = dict(zip((out.name for out in session.get_outputs()), session.run(None, {"images": images})))
    expected = load_detector(PRETRAINED / "digits", score="A", device="cpu")
    n = len(expected.calibration_scores_)
    assert np.abs(found["p_value"] - expected.p_value(images)).max() <= 1.01 / (n + 1)
    file.write_bytes(b"mine")
    code, _, err = call("export", "digits", "--onnx", file)
    assert code == 2 and file.read_bytes() == b"mine" and err.count("\n") == 1
    assert call("export", "digits", "--onnx", tmp_path / "x.onnx", "--by", "S")[0] == 2


def test_a_file_that_would_give_other_scores_is_not_written(tiny_bundle, tmp_path, monkeypatch):
    detector = AMADetector.load(tiny_bundle, device="cpu")
    contents = onnx_export.onnx_bytes(detector)
    monkeypatch.setattr(onnx_export, "onnx_bytes", lambda _: contents)
    export_onnx(detector, tmp_path / "good.onnx")
    scores = detector.scores
    monkeypatch.setattr(detector, "scores", lambda images: scores(images) | {"M": 1.001 * scores(images)["M"]})
    with pytest.raises(AMAError, match="Not exported.*of M"):
        export_onnx(detector, tmp_path / "bad.onnx")
    monkeypatch.setattr(detector, "scores", lambda images: scores(images) | {"M": np.nan * scores(images)["M"]})
    with pytest.raises(AMAError, match="Not exported.*of M.*nan"):
        export_onnx(detector, tmp_path / "bad.onnx")
    assert not (tmp_path / "bad.onnx").exists()


def test_a_failing_exporter_or_runtime_is_a_sentence(tiny_bundle, tmp_path, monkeypatch):
    detector = AMADetector.load(tiny_bundle, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(torch.onnx, "export", lambda *_, **__: 1 / 0)
        with pytest.raises(AMAError, match="Not exported: PyTorch.*ZeroDivisionError: division by zero.*Try other versions"):
            export_onnx(detector, tmp_path / "bad.onnx")
    monkeypatch.setattr(onnx_export, "onnx_bytes", lambda _: b"no model")
    with pytest.raises(AMAError, match="Not exported: ONNX Runtime cannot run") as caught:
        export_onnx(detector, tmp_path / "bad.onnx")
    assert "\n" not in str(caught.value) and not (tmp_path / "bad.onnx").exists()


def test_what_cannot_be_exported_says_so(digits, tmp_path):
    from ama_core.detectors.pca import PCADetector, PCASettings

    detector = PCADetector(PCASettings(channels=1), verbose=False).fit(digits.images[:200])
    with pytest.raises(ConfigError, match="cannot be exported"):
        export_onnx(detector, tmp_path / "x.onnx")
