"""One suite for every detector of the registry: what `detectors.base` promises. A new detector is a row of SMALL."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from ama_core import load_detector, tensors
from ama_core.cli.main import main
from ama_core.data import load
from ama_core.detectors import registry
from ama_core.detectors.base import CAPABILITIES
from ama_core.errors import AMAError, ConfigError, DataError
from ama_core.evaluation.metrics import false_alarm_band
from ama_core.scoring.onnx_export import onnx_bytes
from ama_core.training.loop import train
from tests.common import ROOT

NETWORKS = dict(nz=8, width_encoder=8, width_generator=8, batch_size=16, epochs=1000, max_steps=12, lr=1e-3, precision="fp32")
ADVERSARIAL = dict(nz=8, width=4, batch_size=16, epochs=1000, max_steps=12, lr=1e-3, precision="fp32")
DENSITY = dict(batch_size=16, epochs=1000, max_steps=12, lr=1e-3, precision="fp32")
PIXELS = dict(DENSITY, filters=4, blocks=1)
FLOW = dict(DENSITY, levels=2, flows=2, hidden=8)
# Detector -> settings that make it fit the digits in seconds.
SMALL = {
    "ama": dict(NETWORKS, width_critic=8, n_critic=1, reg="hinge"),
    "waic": dict(ADVERSARIAL, members=2, n_critic=1),
    "alad": ADVERSARIAL,
    "anogan": dict(ADVERSARIAL, inversion_steps=5),
    "skipganomaly": {key: value for key, value in ADVERSARIAL.items() if key != "nz"} | {"max_steps": 60},
    "fencegan": dict(ADVERSARIAL, pretraining=0.2, lr_critic=1e-3),
    "deepsvdd": dict(DENSITY, width=4, dim=8, max_steps=40),
    "pixelcnn": PIXELS,
    "complexity": PIXELS,
    "likelihood_ratio": PIXELS,
    "glow": FLOW,
    "typicality": FLOW,
    "pixel_mean": {},
    "lossless_length": {},
    "autoencoder": dict(NETWORKS, max_steps=60),
    "pca": {"components": 8},
    "nearest": {},
}


CLASSES = {name: registry.detector_class(name) for name in SMALL}
TRAINED = [name for name, kind in CLASSES.items() if kind.trains()]
EXPORTED = [name for name, kind in CLASSES.items() if "export" in kind.can()]


@pytest.fixture(params=SMALL)
def name(request):
    return request.param


def new(name, **changes):
    kind = registry.detector_class(name)
    settings = kind.Settings.from_dict({"channels": 1, "fit": "pad", **SMALL[name], **changes})
    return kind(settings, device="cpu", verbose=False)


_fitted = {}


@pytest.fixture
def fitted(name, digits):
    """A fitted detector; do not change it."""
    if name not in _fitted:
        _fitted[name] = new(name).fit(digits.images)
    return _fitted[name]


@pytest.fixture
def images():
    return load("digits", "test").images[:60]


@pytest.fixture
def noise(rng):
    return rng.integers(0, 256, (60, 32, 32, 1), dtype=np.uint8)


def test_every_detector_has_its_row():
    assert set(SMALL) == set(registry.names())


def test_it_says_what_it_is(name):
    kind = registry.detector_class(name)
    assert kind.name == name and kind.title and kind.reference and kind.__doc__
    names = [score.name for score in kind.SCORES]
    assert kind.decides in names and len(set(names)) == len(names)
    assert not {"path", "index", "p_value", "anomalous", "error"} & set(names), "columns of every table"
    assert set(kind.ADDED) <= set(names) - {kind.decides}, "a model of an earlier version still decides by the same score"
    for score in kind.SCORES:
        assert len(score.meaning) > 20 and score.equation
    assert registry.detector_for(kind.Settings()) is kind
    for preset in ("tiny", "small", "paper"):
        kind.Settings.preset(preset)


def test_scores(fitted, images):
    scores = fitted.scores(images)
    for by in fitted.score_names():
        for entry in (by, f"p_{by}"):
            assert scores[entry].shape == (60,) and scores[entry].dtype == np.float64 and np.isfinite(scores[entry]).all()
        assert (scores[f"p_{by}"] > 0).all() and (scores[f"p_{by}"] <= 1).all()
        assert len(np.unique(scores[by])) > 30, "scores are diverse"
        turned, held_out = fitted.anomaly_scores(scores)[by], fitted.held_out_scores_[by]
        turned, held_out = turned.astype(np.float32), held_out.astype(np.float32)
        expected = [(1 + (held_out >= s).sum()) / (len(held_out) + 1) for s in turned]
        np.testing.assert_allclose(scores[f"p_{by}"], expected)
    assert {*fitted.STORED, *fitted.table_columns()} <= set(scores)
    assert all(values.shape == (60,) for values in scores.values())


def test_verdicts_agree(fitted, images, noise):
    both = np.concatenate([images, noise])
    anomaly, p = fitted.anomaly_score(both), fitted.p_value(both)
    np.testing.assert_array_equal(fitted.score_samples(both), -anomaly)
    np.testing.assert_allclose(
        fitted.decision_function(both), fitted.score_samples(both) - fitted.offset_, rtol=1e-5, atol=1e-4
    )
    for alpha in (0.05, 0.3):
        flagged = fitted.predict(both, alpha) == -1
        np.testing.assert_array_equal(flagged, p <= alpha)
        np.testing.assert_array_equal(flagged, fitted.decision_function(both, alpha) < 0)
    assert set(np.unique(fitted.predict(both, 0.5))) == {-1, 1}


# Twelve steps teach these nothing that noise offends against; their direction is in the tests of their formulas.
SLOW = ("waic", "alad", "anogan", "complexity", "likelihood_ratio")


def test_what_is_strange_scores_higher(fitted, images, noise):
    if fitted.name in SLOW:
        pytest.skip(f"{fitted.name} needs longer to learn")
    assert np.median(fitted.anomaly_score(noise)) > np.median(fitted.anomaly_score(images))


def test_an_image_s_score_is_its_own(fitted, images, rng):
    """Batch and order change nothing but the last bits."""
    whole, order = fitted.scores(images), rng.permutation(60)
    shuffled = fitted.scores(images[order])
    single = fitted.scores(images[:1])
    for key in fitted.score_names():
        np.testing.assert_allclose(shuffled[key], whole[key][order], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(single[key], whole[key][:1], rtol=1e-3, atol=1e-4)


class OfSinglePrecision(torch.Tensor):
    """A tensor as on a device without float64, such as Apple's MPS: it has to be copied to the CPU first."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        found = super().__torch_function__(function, types, args, kwargs or {})
        if function is torch.Tensor.cpu:
            return found.as_subclass(torch.Tensor)
        if isinstance(found, cls) and found.dtype == torch.float64:
            raise TypeError("this device has no float64")
        return found


def test_scores_need_no_float64_on_the_device(fitted, images, monkeypatch):
    expected = fitted.scores(images[:4])
    scale = tensors.scale
    monkeypatch.setattr(tensors, "scale", lambda images: scale(images).as_subclass(OfSinglePrecision))
    found = fitted.scores(images[:4])
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], values, err_msg=key)


def test_saved_and_loaded_it_is_the_same(fitted, images, tmp_path):
    fitted.save(tmp_path / "model")
    loaded = load_detector(tmp_path / "model", device="cpu")
    assert type(loaded) is type(fitted) and loaded.settings == fitted.settings and loaded.info_ == fitted.info_
    before, after = fitted.scores(images), loaded.scores(images)
    assert before.keys() == after.keys()
    for key in before:
        np.testing.assert_array_equal(before[key], after[key], err_msg=key)
    with pytest.raises(ConfigError, match="nonsense"):
        load_detector(tmp_path / "model", score="nonsense")


def test_seeds_reproduce(name, fitted, digits, images):
    again = new(name).fit(digits.images)
    for key, values in fitted.raw_scores(images).items():
        np.testing.assert_array_equal(again.raw_scores(images)[key], values, err_msg=key)


def test_p_values_hold_their_rate_on_unseen_normals(fitted):
    p = fitted.scores(load("digits", "test").images)
    alphas = np.array([0.05, 0.1, 0.3])
    for by in fitted.score_names():
        n = len(fitted.held_out_scores_[by])
        low, high = false_alarm_band(alphas, 500, n, level=0.9999)
        flagged = np.array([(p[f"p_{by}"] <= alpha).mean() for alpha in alphas])
        assert (low <= flagged).all() and (flagged <= high).all(), by


@pytest.mark.filterwarnings("ignore:With .* calibration images:UserWarning")
def test_scikit_learn_s_terms(name, digits, images, noise):
    detector = new(name)
    assert detector.get_params()["config"] is detector.config
    copied = clone(detector)
    assert copied.get_params().keys() == detector.get_params().keys() and copied.config == detector.config
    assert detector.set_params(score=detector.decides).by == detector.decides
    with pytest.raises(NotFittedError) as caught:
        detector.score_samples(images)
    assert isinstance(caught.value, AMAError)
    train, y = digits.images[:300], np.r_[np.ones(60), -np.ones(60)]
    pipeline = make_pipeline(detector).fit(train)
    assert set(pipeline.predict(images)) <= {-1, 1}
    assert set(clone(detector).fit_predict(train)) <= {-1, 1}
    if detector.trains():
        return
    both = np.concatenate([images, noise])
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    detector.set_params(config=detector.settings.replace(calibration_fraction=0.5))
    found = cross_val_score(clone(detector), both, y, cv=folds, scoring="roc_auc")
    assert found.shape == (3,) and np.isfinite(found).all()


@pytest.mark.parametrize(
    "bad", [np.zeros((3, 32, 32, 2), np.uint8), np.zeros((0, 32, 32, 1), np.uint8), np.full((2, 32, 32, 1), np.nan), "nowhere"]
)
def test_bad_images_say_so(fitted, bad):
    with pytest.raises(DataError) as caught:
        fitted.scores(bad)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(DataError):
        clone(fitted).fit(bad)


def test_images_in_every_form(fitted, images, tmp_path):
    expected = fitted.scores(images[:6])[fitted.by]
    pictures = [Image.fromarray(image[..., 0]) for image in images[:6]]
    np.testing.assert_allclose(fitted.scores(pictures)[fitted.by], expected, rtol=1e-4, atol=1e-5)
    tensor = torch.from_numpy(images[:6]).permute(0, 3, 1, 2)
    np.testing.assert_allclose(fitted.scores(tensor)[fitted.by], expected, rtol=1e-4, atol=1e-5)
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i}.png")
    np.testing.assert_allclose(fitted.scores(tmp_path)[fitted.by], expected, rtol=1e-4, atol=1e-5)
    files = [str(tmp_path / f"{i}.png") for i in range(6)]
    np.testing.assert_allclose(fitted.scores(files)[fitted.by], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(DataError, match="gone.png"):
        fitted.scores([*files, tmp_path / "gone.png"])


def test_stored_scores_give_the_same_p_values(fitted, images):
    """Bundles keep scores as float32: images that tie with one of the calibration still do."""
    scores = fitted.scores(images)
    stored = fitted.with_p_values({name: scores[name].astype(np.float32) for name in scores if not name.startswith("p_")})
    for by in fitted.score_names():
        np.testing.assert_array_equal(stored[f"p_{by}"], scores[f"p_{by}"])


def test_an_image_without_a_finite_score_is_flagged_by_every_verdict(fitted, images, monkeypatch):
    finite = fitted.anomaly_scores(fitted.raw_scores(images[:3]))[fitted.by]
    monkeypatch.setattr(type(fitted), "anomaly_scores", lambda self, scores: {self.by: np.array([finite[0], np.nan, np.inf])})
    p, verdicts = fitted.p_value(images[:3]), fitted.predict(images[:3], 0.05)
    np.testing.assert_array_equal(verdicts == -1, p <= 0.05)
    assert (p[1:] <= 0.05).all() and (fitted.decision_function(images[:3], 0.05)[1:] == -np.inf).all()


def test_p_values_from_other_normal_images(fitted, images, tmp_path, monkeypatch):
    fitted.save(tmp_path / "m")
    other = registry.load_detector(tmp_path / "m", device="cpu")
    darker = images // 2
    assert other.recalibrate(darker[:40]) is other and len(other.calibration_scores_) == 40
    again = registry.load_detector((other.save(tmp_path / "n"), tmp_path / "n")[1], device="cpu")
    for by in fitted.score_names():
        np.testing.assert_allclose(again.scores(darker)[by], fitted.scores(darker)[by], rtol=1e-4, atol=1e-5)
        own = again.scores(darker[:40])[f"p_{by}"]
        assert own.min() >= 2 / 41 - 1e-9 and own.max() == 1, "of n scores among themselves"
    assert again.info_["calibrated_on"]["n"] == 40
    with pytest.raises(DataError):
        other.recalibrate(darker[:0])
    with monkeypatch.context() as patch:
        raw = other.raw_scores(darker[:3])
        patch.setattr(other, "raw_scores", lambda images: {**raw, **{by: np.array([0, np.nan, 1]) for by in raw}})
        with pytest.raises(DataError, match="not finite"):
            other.recalibrate(darker[:3])
        assert len(other.calibration_scores_) == 40, "what was there stays"
    assert "calibrated_on" not in other.calibrate(images).info_


def test_what_it_can_do(fitted, images):
    found = fitted.examine(images[:5])
    assert found.images.shape == (5, 32, 32, 1)
    for field, ability in (("reconstructions", "reconstruct"), ("maps", "localise"), ("features", "features")):
        assert (getattr(found, field) is not None) == (ability in fitted.can()), field
    for ability in fitted.can():
        if ability in ("decode", "export"):  # they take no images
            continue
        values = getattr(fitted, CAPABILITIES[ability])(images[:5])
        assert len(values) == 5 and np.isfinite(np.asarray(values, np.float64)).all(), ability
        if ability == "reconstruct":
            assert values.dtype == np.uint8 and values.shape == (5, 32, 32, 1)
    if "decode" in fitted.can():
        decoded = fitted.decode(fitted.encode(images[:5]))
        assert decoded.dtype == np.uint8 and decoded.shape == (5, 32, 32, 1)
        assert np.abs(decoded.astype(int) - fitted.reconstruct(images[:5])).max() <= 1
        with pytest.raises(DataError):
            fitted.decode(np.zeros((2, 3), np.float32))


@pytest.mark.parametrize("name", TRAINED)
def test_training_moves_weights_and_resumes_bit_for_bit(name, digits, tmp_path):
    detector = new(name)
    straight, half = detector.trainer(), detector.trainer()
    before = {key: t.clone() for key, t in straight.networks.state_dict().items()}
    list(train(straight, digits.images[:70]))
    moved = [key for key, p in straight.networks.named_parameters() if not torch.equal(before[key], p)]
    assert len(moved) == len(list(straight.networks.named_parameters()))
    for event in train(half, digits.images[:70], log_every=1):
        if event.step == 5 and event.closes_step:
            break
    half.save(tmp_path / "state.safetensors")
    resumed = half.load(tmp_path / "state.safetensors", torch.device("cpu"))
    list(train(resumed, digits.images[:70]))
    for key, tensor in straight.networks.state_dict().items():
        assert torch.equal(resumed.networks.state_dict()[key], tensor), key
    names = {curve.name for curve in straight.curves}
    event = next(e for e in train(detector.trainer(), digits.images[:70]) if e.kind == "progress")
    assert names == set(event.values) - {"epoch", "lr", "images_per_s", "seconds", "eta_s"}


@pytest.mark.parametrize("name", EXPORTED)
def test_the_graph_computes_its_scores(name, fitted, images):
    """What is exported: one module, on other images than it was calibrated with, calibration included."""
    shown = np.concatenate([fitted.prepared(images), fitted.prepared(load("textures", "test").images[:7])])
    expected = fitted.scores(shown)
    with torch.no_grad():
        found = fitted.graph()(torch.from_numpy(shown))
    for score in fitted.SCORES:
        key = score.ranks_by or score.name
        np.testing.assert_allclose(found[key].numpy(), expected[key], rtol=1e-4, atol=1e-5)
    steps = np.abs(found["p_value"].numpy() - expected[f"p_{fitted.by}"]) * (len(fitted.calibration_scores_) + 1)
    assert steps.max() <= 1.01  # rounding may move an image past one calibration image


@pytest.mark.parametrize("name", EXPORTED)
def test_exported_it_gives_its_scores_at_any_number_of_images(name, fitted, images):
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install -r requirements-dev.txt")
    pytest.importorskip("onnxscript", reason="needs onnxscript: pip install -r requirements-dev.txt")
    session = runtime.InferenceSession(onnx_bytes(fitted), providers=["CPUExecutionProvider"])
    for n in (1, 7):
        found = dict(zip((out.name for out in session.get_outputs()), session.run(None, {"images": images[:n]})))
        expected = fitted.scores(images[:n])
        for score in fitted.SCORES:
            key = score.ranks_by or score.name
            assert found[key].shape == (n,)
            np.testing.assert_allclose(found[key], expected[key], rtol=1e-4, atol=1e-4, err_msg=key)
        steps = np.abs(found["p_value"] - expected[f"p_{fitted.by}"]) * (len(fitted.calibration_scores_) + 1)
        assert steps.max() <= 1.01


@pytest.mark.parametrize("name", sorted(set(SMALL) - set(TRAINED)))
def test_where_nothing_is_trained_there_are_no_real_anomalies_and_no_validation(name, digits, images):
    for what in (dict(anomalies=images), dict(validation_anomalies=images), dict(select="validated")):
        with pytest.raises(ConfigError, match="not trained by steps"):
            new(name).fit(digits.images, **what)


def test_a_detector_of_forty_lines_from_outside_by_command(tmp_path, capsys, monkeypatch):
    """One registry line, here from the environment, and no other edit. (Its pages and its queue: tests/app/test_detectors.)"""
    source = (ROOT / "tests" / "forty_lines.py").read_text()
    assert len(source.splitlines()) <= 40
    monkeypatch.setenv(registry.VARIABLE, "forty=tests.forty_lines:FortyLines")
    monkeypatch.setitem(SMALL, "forty", {})
    by_command("forty", tmp_path, capsys, monkeypatch)


def test_from_training_to_a_report_by_command(name, tmp_path, capsys, monkeypatch):
    by_command(name, tmp_path, capsys, monkeypatch)


def by_command(name, tmp_path, capsys, monkeypatch):
    """train, info, evaluate, score, report, share: each takes any detector."""
    monkeypatch.setattr("ama_core.evaluation.protocol.available_sets", lambda: ["digits", "flat"])
    monkeypatch.setitem(__import__("sys").modules, "umap", None)  # compiling it would take half a minute
    settings = {"channels": 1, "fit": "pad", **SMALL[name]}
    changes = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    run = tmp_path / "run"
    assert main(["train", "digits", "--detector", name, "--out", str(run), "--quiet", "--device", "cpu", *changes]) == 0
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    detector = load_detector(run)
    assert detector.name == name and detector.normal.name == "digits"
    assert detector.title in (run / "README.md").read_text()
    capsys.readouterr()

    assert main(["evaluate", str(run), "--ood", "flat", "--json", "--quiet"]) == 0
    row = json.loads(capsys.readouterr().out)["results"][0]
    assert set(row["scores"]) == set(detector.score_names())

    Image.fromarray(load("flat", "test").images[0].squeeze()).save(tmp_path / "a.png")
    assert main(["score", str(run), str(tmp_path / "a.png"), "--json", "--quiet"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert {"path", "index", "p_value", "anomalous", "error", *detector.score_names()} <= set(line) and line["error"] is None
    assert main(["score", str(run), str(tmp_path / "a.png"), "--out", str(tmp_path / "t.csv"), "--quiet"]) == 0
    assert main(["report", str(run), str(tmp_path / "a.png"), "--out", str(tmp_path / "r.html"), "--quiet"]) == 0
    assert "a.png" in (tmp_path / "r.html").read_text()
    assert main(["info", str(run), "--verify", "--quiet"]) == 0
    assert main(["share", str(run), "--out", str(tmp_path / "s.zip")]) == 0
