"""The page Reconstructions: what it shows by default, its verdict, its orders and filters, on a tiny model and its sibling."""

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from ama_core import AMADetector
from ama_core.analysis.fidelity import fidelity
from ama_core.data import load
from ama_core.detectors.ama.scores import anomaly_scores
from tests.common import html, words


@pytest.fixture(scope="module")
def detector(check_models) -> AMADetector:
    return AMADetector.load(check_models / "digits", device="cpu")


def tables(at: AppTest) -> list[list[str]]:
    """The rows of every table of pictures."""
    return [e.proto.body.split("<tr>")[2:] for e in at.get("html") if "ama-table" in e.proto.body]


def table_rows(at: AppTest) -> list[str]:
    """The rows of the first of them, the chosen set."""
    return tables(at)[0]


def test_input_mirrored_and_plain_and_nothing_else_beside_a_set_that_is_not_normal(open_page):
    at = open_page("reconstructions")
    assert not at.exception and not at.error
    normal, other = tables(at)
    for row in normal + other:
        assert row.count("<img") == row.count('alt="') == 3 and "flagged" not in row
    assert at.selectbox(key="beside").value not in ("normal test images", "digits")
    heads = html(at)
    assert "Mirrored, 12 steps" in heads and "Plain, 3 steps" in heads
    assert "not trained alike: mirrored 12 steps and plain 3 steps" in words(at)


def test_what_stands_beside_the_pictures_is_asked_for(open_page):
    at = open_page("reconstructions", show=["scores", "differences", "critic maps"])
    rows = table_rows(at)
    assert all(row.count("<img") == row.count('alt="') == 7 for row in rows)  # reconstructed, difference and map of two models
    assert all("p " in row for row in rows) and "Colour key" in html(at)


def test_the_verdict_is_that_of_the_numbers(open_page, check_models, detector):
    at = open_page("reconstructions")
    plain = AMADetector.load(check_models / "digits-plain", device="cpu")
    test = load("digits", "test")
    sample = np.sort(np.random.default_rng(0).choice(len(test), 256, replace=False))
    seen = detector.prepared(test.images[sample])
    facts = [fidelity(seen, model.reconstruct(seen)) for model in (detector, plain)]
    said = words(at)
    for fact in facts:
        assert f"pixel error {100 * fact.error:.0f} % of the full scale" in said
    holds = facts[0].ratio <= 0.5 and facts[1].ratio > 0.9
    assert ("does not hold for this pair" in said) == (not holds) and bool(at.success) == holds


def test_a_set_is_shown_by_its_label_and_kept_by_its_name(open_page):
    at = open_page("reconstructions", set="house_numbers", beside="flat")
    assert not at.exception and at.selectbox(key="set").value == "house_numbers"
    assert "House numbers (synthetic)" in at.selectbox(key="set").options and "house_numbers" not in words(at)
    at.selectbox(key="set").set_value("gradients").run()
    assert [at.query_params[key] for key in ("set", "beside")] == ["gradients", "flat"]


def test_reconstructions_are_ordered_by_the_deciding_score(open_page, detector):
    rows = table_rows(open_page("reconstructions", score="M", sort="the deciding score"))
    assert len(rows) == 6
    test = load("digits", "test")
    sample = np.sort(np.random.default_rng(0).choice(len(test), 256, replace=False))
    most = sample[np.argmax(anomaly_scores(detector.scores(test.images[sample]))["M"])]
    assert f"#{most}<" in rows[0]
    last = open_page("reconstructions", score="M", order="most normal first", page="43")
    assert f"#{most}<" in table_rows(last)[-1]


@pytest.mark.parametrize("by, name", [("A", "log_A"), ("‖z‖", "z_norm"), ("pixel error", "pixel_l1")])
def test_any_score_can_order_the_images(open_page, detector, by, name):
    at = open_page("reconstructions", sort=by, show="scores")
    test = load("digits", "test")
    sample = np.sort(np.random.default_rng(0).choice(len(test), 256, replace=False))
    values = detector.scores(test.images[sample])[name]
    first = sample[np.argmin(values) if by == "A" else np.argmax(values)]
    rows = table_rows(at)
    assert f"#{first}<" in rows[0] and f"{by} " in rows[0] and f"Ordered by {by}" in words(at)


def test_class_and_side_filter_and_are_counted(open_page, detector):
    test = load("digits", "test")
    sample = np.sort(np.random.default_rng(0).choice(len(test), 256, replace=False))
    flagged = detector.scores(test.images[sample])["p_R"] <= 0.2
    three = test.labels[sample] == 3
    at = open_page("reconstructions", **{"class": "3", "side": "flagged", "score": "R", "alpha": "0.2", "show": "scores"})
    said = words(at)
    assert (
        f"{(three & flagged).sum()} of 256 images" in said and f"{(three & flagged).sum()} of {three.sum()} of class 3" in said
    )
    if (three & flagged).any():
        assert all("<b>flagged</b>" in row and "<small>3 #" in row for row in table_rows(at))
    at.segmented_control(key="side").set_value("passed").run()
    assert f"{(three & ~flagged).sum()} of 256 images" in words(at)
    assert not any("<b>flagged</b>" in row for row in table_rows(at))


def test_a_page_that_a_filter_takes_away_gives_the_first_one(open_page):
    at = open_page("reconstructions", page="43")
    at.selectbox(key="class").set_value("3").run()
    assert not at.exception and not at.error and at.number_input(key="page").value == 1
    test = load("digits", "test")
    sample = np.sort(np.random.default_rng(0).choice(len(test), 256, replace=False))
    assert f"Page (1 to {-(-(test.labels[sample] == 3).sum() // 6)})" in at.number_input(key="page").label
    at.selectbox(key="set").set_value("gradients").run()
    assert not at.exception and not at.error and at.selectbox(key="class").value == "all classes"


def test_no_image_on_a_side_is_a_designed_state(open_page):
    at = open_page("reconstructions", alpha="0.001", side="flagged")
    assert not at.exception and "No image here is flagged" in words(at) and len(tables(at)) <= 1


def test_a_set_in_the_address_that_is_not_here_is_a_sentence(open_page):
    at = open_page("reconstructions", set="svhn")  # not offered, since it needs a download
    assert not at.exception and not at.error and at.selectbox(key="set").value == "normal test images"


def test_critic_maps_are_vermillion_where_r_grows_and_blue_where_it_shrinks(open_page):
    open_page("reconstructions")
    import pictures

    image = np.full((32, 32, 1), 100, np.uint8)
    shares = np.zeros((8, 8))
    shares[0, 0], shares[7, 7] = 1e9, -1e9
    shown = pictures.critic_map(image, shares, mean_r=64.0)
    under = round(pictures.FADED_TO + pictures.FADE * (100 - pictures.FADED_TO))  # the image, faded
    assert shown.shape == (32, 32, 3) and (shown[4:28, 4:28] == under).all()
    assert shown[0, 0, 0] > shown[0, 0, 2] and shown[31, 31, 2] > shown[31, 31, 0]
    assert (shown[:4, :4] == shown[0, 0]).all()
    half = pictures.critic_map(image, np.full((8, 8), pictures.CRITIC_RANGE / 4), mean_r=64.0)[0, 0]  # half of the full colour
    assert np.allclose(half - float(under), (shown[0, 0] - float(under)) / 2, atol=1)
