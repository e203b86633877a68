"""The page about the model, without a browser: what it says is what the model is."""

import pytest

from ama_core import AMADetector
from ama_core.detectors.ama.scores import anomaly_scores
from ama_core.detectors.conformal import conformal_p_value
from tests.common import words


@pytest.mark.parametrize("part", ["Architecture", "Equations", "Settings", "Calibration", "Card"])
@pytest.mark.parametrize("model", ["digits", "bare"])
def test_every_part_of_the_page_about_the_model_opens(open_page, part, model):
    at = open_page("about", part=part, model=model)
    assert not at.error and f"Model **{model}**" in words(at)


def test_the_architecture_is_that_of_the_model(open_page, lesson_models):
    networks = AMADetector.load(lesson_models / "digits", device="cpu").networks_
    total = sum(p.numel() for p in networks.parameters())
    at = open_page("about")
    assert f"{total:,} parameters in all" in words(at)
    assert at.dataframe[0].value["parameters"].sum() == total


def test_every_equation_shows_its_code(open_page):
    at = open_page("about", part="Equations")
    assert len(at.latex) == 12
    code = "\n".join(block.value for block in at.code)
    for name in (
        "critic_wasserstein",
        "simplex_weights",
        "atypical_codes",
        "gradient_penalty",
        "critic_drift",
        "latent_regulariser",
        "r_score",
        "log_a_score",
        "mahalanobis",
        "t_vector",
        "conformal_p_value",
    ):
        assert f"def {name}" in code


def test_only_what_differs_from_the_paper(open_page, tiny_config):
    at = open_page("about", part="Settings", changed="true")
    named = {name.strip("`") for name in at.table[0].value["setting"]}
    assert {"nz", "width_critic", "max_steps"} <= named and "lambda_gp" not in named


def test_the_calibration_curve_is_measured_on_the_normal_test_images(open_page, measured):
    calibration, stored = measured
    p = conformal_p_value(anomaly_scores(stored["digits"].scores)["T"], calibration.scores["T"])
    at = open_page("about", part="Calibration")
    assert f"T {100 * (p <= 0.05).mean():.1f} %" in words(at)


def test_the_settings_name_their_source_in_words(open_page):
    meanings = " ".join(open_page("about", part="Settings").table[0].value["meaning"])
    assert "In the released code" in meanings and not [
        mark for mark in ("[P]", "[C]", "[D]") if mark in meanings.replace("\\", "")
    ]
