"""A detector is a scikit-learn outlier detector: the library's own checks, on an adapter that takes 2-D arrays as images."""

import numpy as np
import pytest
import sklearn
from PIL import Image
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted, validate_data

from ama_core import AMADetector, load_detector, preset
from ama_core.data import load
from ama_core.detectors.pca import PCADetector, PCASettings
from ama_core.detectors.pixel_mean import PixelMeanDetector, PixelMeanSettings
from ama_core.evaluation.protocol import evaluate


class OnVectors(OutlierMixin, BaseEstimator):
    """A detector of images on rows of numbers: each row, scaled by the training data's range, becomes a grey image."""

    def __init__(self, detector=None, alpha=0.1):
        self.detector = detector
        self.alpha = alpha

    def fit(self, X, y=None):
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=6)
        self.low_, self.span_ = X.min(axis=0), np.maximum(np.ptp(X, axis=0), 1e-12)
        detector = self.detector or PixelMeanDetector(
            PixelMeanSettings(channels=1, fit="stretch", calibration_fraction=0.5), verbose=False
        )
        self.detector_ = clone(detector).fit(self._images(X))
        return self

    def _images(self, X):
        scaled = np.clip((X - self.low_) / self.span_ / 3 + 1 / 3, 0, 1)  # room for what lies outside
        return np.rint(255 * scaled).astype(np.uint8)[:, None, :, None].repeat(X.shape[1], axis=1)

    def _checked(self, X):
        check_is_fitted(self)
        return self._images(validate_data(self, X, dtype=np.float64, reset=False))

    @property
    def offset_(self):
        return -self.detector_.threshold(self.detector_.by, self.alpha)

    def score_samples(self, X):
        images = self._checked(X)
        return self.detector_.score_samples(images)

    def decision_function(self, X):
        images = self._checked(X)
        return self.detector_.decision_function(images, self.alpha)

    def predict(self, X):
        images = self._checked(X)
        return self.detector_.predict(images, self.alpha)


# Check of scikit-learn -> why a detector of images does not pass it: none is needed.
REASONS: dict[str, str] = {}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore:Estimator .* failed:sklearn.exceptions.EstimatorCheckFailedWarning")
@pytest.mark.parametrize(
    "detector",
    [None, PCADetector(PCASettings(channels=1, fit="stretch", calibration_fraction=0.5, components=2), verbose=False)],
    ids=["pixel_mean", "pca"],
)
def test_check_estimator(detector):
    found = check_estimator(OnVectors(detector), expected_failed_checks=REASONS, on_skip=None)
    ran = {row["check_name"] for row in found if row["status"] == "passed"}
    assert {"check_outliers_train", "check_outliers_fit_predict", "check_methods_subset_invariance"} <= ran
    failed = {row["check_name"] for row in found if row["status"] not in ("passed", "skipped")}
    assert failed == set(REASONS), "REASONS names what fails, and nothing that does not"


def test_its_errors_are_scikit_learn_s():
    with pytest.raises(sklearn.exceptions.NotFittedError):
        AMADetector().score_samples(np.zeros((2, 32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="no image"):
        PixelMeanDetector().fit(np.zeros((0, 32, 32, 3), np.uint8))


def test_from_a_notebook_to_a_model_like_any_other(tmp_path, rng, capsys):
    """fit on arrays, a path, or a name; save, load and evaluate, with images of one's own as normal test images."""
    train, test, flat = load("digits", "train"), load("digits", "test"), load("flat", "test")
    detector = PCADetector(PCASettings(channels=1, fit="pad")).fit(train.images)
    detector.save(tmp_path / "mine")
    loaded = load_detector(tmp_path / "mine")
    assert loaded.normal.name == "images" and loaded.normal.source is None and loaded.normal.n == len(train)
    found = evaluate(loaded, [flat, "gradients"], normal=test)
    assert [row["ood"] for row in found["results"]] == ["flat", "gradients"] and found["results"][0]["n_normal"] == 500
    np.testing.assert_array_equal(loaded.p_value(flat.images[:5]), detector.p_value(flat.images[:5]))
    by_name = PCADetector(PCASettings(channels=1, fit="pad")).fit("digits")
    assert by_name.normal.source == "digits"
    by_arrays = evaluate(loaded, ["flat"], normal=test)["results"][0]
    assert evaluate(by_name, ["flat"])["results"][0]["scores"] == by_arrays["scores"]


def test_a_folder_is_remembered_however_it_is_given(tmp_path):
    for i, image in enumerate(load("digits", "train").images[:40]):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{i}.png")
    for given in (tmp_path, str(tmp_path)):
        detector = PixelMeanDetector(PixelMeanSettings(channels=1, fit="pad", calibration_fraction=0.5)).fit(given)
        assert detector.normal.source == str(tmp_path) and detector.normal.n == 32, "80 % are for training"


def test_fit_shows_progress_by_itself_where_it_is_wanted(capsys, monkeypatch):
    """A bar on a terminal or in a notebook; none where verbose is off or events are followed."""
    import ama_core.detectors.base as base

    shown = []
    real = base.tqdm
    monkeypatch.setattr(base, "tqdm", lambda **options: (shown.append(options["disable"]), real(**options))[1])
    config = preset(
        "tiny", channels=1, fit="pad", nz=4, width_encoder=4, width_generator=4, width_critic=4, batch_size=16, max_steps=2
    )
    images = load("digits", "train").images[:100]
    AMADetector(config, device="cpu").fit(images)
    AMADetector(config, device="cpu", verbose=False).fit(images)
    assert shown == [None, True]
    events = []
    AMADetector(config, device="cpu").fit(images, on_event=events.append)
    assert shown == [None, True] and events[-1].kind == "done"
