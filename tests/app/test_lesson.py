"""The lesson and the page about the model, without a browser: what they say is what was measured."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from ama_core import AMADetector
from ama_core.analysis.response import SetFacts, read_response, write_response
from ama_core.detectors.ama.scores import SCORES, anomaly_scores
from ama_core.detectors.conformal import conformal_p_value
from ama_core.evaluation.protocol import known_aurocs, shows_both, telling_set
from ama_core.storage.bundle import read_results, read_scores, write_results, write_scores
from tests.common import APP

STEPS = ("Hope", "Surprise", "Threshold", "Band", "Overlap", "Quiz")
SETS = ("gradients", "textures")


@pytest.fixture(scope="session")
def lesson_models(tmp_path_factory, tiny_bundle) -> Path:
    """`digits` as measured, `bare` without stored scores, and `elsewhere` whose OOD images are not here."""
    folder = tmp_path_factory.mktemp("lesson")
    for name in ("digits", "bare", "elsewhere"):
        shutil.copytree(tiny_bundle, folder / name, ignore=shutil.ignore_patterns("samples", "checkpoint*"))
    (folder / "bare" / "scores.npz").unlink()
    stored = read_scores(tiny_bundle)
    away = [replace(s, name="gtsrb") if s.name == "gradients" else s for s in stored if s.name != "textures"]
    write_scores(folder / "elsewhere", away)
    return folder


@pytest.fixture
def open_page(lesson_models, monkeypatch):
    """Opens a page with what its address says: open_page("lesson", step="Band")."""
    monkeypatch.setenv("AMA_MODELS_DIR", str(lesson_models))
    monkeypatch.syspath_prepend(str(APP))

    def open_(page: str, **address) -> AppTest:
        at = AppTest.from_file(APP / "main.py", default_timeout=120)
        at.query_params.update({"model": "digits", **address})
        at.switch_page(f"views/{page}.py").run()
        assert not at.exception, at.exception[0].value
        return at

    return open_


@pytest.fixture(scope="session")
def measured(lesson_models):
    """The calibration of `digits`, and its stored scores by set."""
    stored = {s.name: s for s in read_scores(lesson_models / "digits") if s.split == "test"}
    return AMADetector.load(lesson_models / "digits", device="cpu").calibration_, stored


@pytest.fixture(scope="session")
def aurocs(lesson_models) -> dict[str, dict[str, float]]:
    """What every page says of `digits`: the figures of the protocol."""
    results = {row["ood"]: row for row in read_results(lesson_models / "digits")["results"]}
    return known_aurocs(AMADetector.load(lesson_models / "digits"), results, read_scores(lesson_models / "digits"))


def with_aurocs(folder: Path, changes: dict[str, dict[str, float]]) -> Path:
    """The bundle, with other figures of some sets."""
    results = read_results(folder)
    for row in results["results"]:
        for by, value in changes.get(row["ood"], {}).items():
            row["scores"][by]["auroc"] = value
    write_results(folder, results)
    return folder


def words(at: AppTest) -> str:
    kinds = (at.title, at.subheader, at.markdown, at.caption, at.info, at.warning, at.error, at.success)
    return "\n".join(element.value for kind in kinds for element in kind)


def matrices(at: AppTest) -> list[list[int]]:
    """The counts of every confusion matrix: hits, misses, false alarms, rightly passed."""
    bodies = [element.proto.body for element in at.get("html")]
    return [[int(n.replace(",", "")) for n in re.findall(r"<b>([\d,]+)</b>", b)] for b in bodies if "ama-confusion" in b]


def charts(at: AppTest) -> list[str]:
    """The text alternatives of the charts."""
    return [chart.proto.alt for chart in at.get("plotly_chart")]


def counts(normal: np.ndarray, anomalous: np.ndarray) -> list[int]:
    return [int(n) for n in (anomalous.sum(), (~anomalous).sum(), normal.sum(), (~normal).sum())]


# --- lesson


def test_the_lesson_is_the_front_page(open_page, lesson_models):
    at = AppTest.from_file(APP / "main.py", default_timeout=120).run()
    assert not at.exception and at.title[0].value == "Why raw scores fail"


def test_next_and_back_lead_through_all_steps(open_page):
    at = open_page("lesson")
    for i in range(6):
        assert not at.exception and at.subheader[0].value.startswith(f"{i + 1} of 6")
        if i < 5:
            at = next(b for b in at.button if b.label == f"Next: {STEPS[i + 1]}").click().run()
    assert not [b for b in at.button if b.label.startswith("Next")]
    at = next(b for b in at.button if b.label == "Back: Overlap").click().run()
    assert at.subheader[0].value.startswith("5 of 6")


def test_an_address_opens_its_step_and_set(open_page):
    at = open_page("lesson", step="Band", against="textures", alpha="0.1")
    assert at.subheader[0].value.startswith("4 of 6") and at.selectbox(key="against").value == "textures"
    assert at.select_slider(key="alpha").value == 0.1


@pytest.mark.parametrize("ood", SETS)
def test_the_densities_wait_for_a_guess_and_the_verdict_is_measured(open_page, aurocs, ood):
    at = open_page("lesson", step="Surprise", against=ood)
    assert not charts(at), "nothing is given away"
    at = at.button_group(key=f"guess-digits-{ood}").set_value("normal").run()
    assert not at.exception and len(charts(at)) == 1
    auroc = aurocs[ood]["R"]
    said = words(at)
    assert f"**{auroc:.3f}**" in said and f"in {100 * auroc:.0f} of 100 pairs" in said
    truth = "cannot tell" if abs(auroc - 0.5) <= 0.03 else "hope holds" if auroc > 0.5 else "R fails here"
    assert truth in said
    assert ("Right" in said) == (truth == "R fails here")


def test_where_r_does_not_fail_the_set_on_which_it_does_worst_is_offered(open_page, aurocs):
    aurocs = {name: values["R"] for name, values in aurocs.items()}
    best, worst = max(aurocs, key=aurocs.get), min(aurocs, key=aurocs.get)
    at = open_page("lesson", step="Surprise", against=best)
    at = at.button_group(key=f"guess-digits-{best}").set_value("ood").run()
    offers = [b for b in at.button if b.label.startswith("Look at")]
    assert bool(offers) == (aurocs[best] >= 0.5)
    if offers:
        assert f"{aurocs[worst]:.3f}" in offers[0].label
        assert offers[0].click().run().selectbox(key="against").value == worst


def test_the_threshold_moves_the_matrix(open_page, measured):
    own, other = (measured[1][name].scores["R"] for name in ("digits", "textures"))
    at = open_page("lesson", step="Threshold", against="textures")
    slider = at.slider(key="cut")
    places = [slider.min, slider.value, (slider.min + slider.max) / 2]
    for cut in places:
        at = at.slider(key="cut").set_value(cut).run()
        assert not at.exception and matrices(at) == [counts(own > cut, other > cut)]
    assert f"{(other > cut).mean():.1%} at {(own > cut).mean():.1%} false alarms" in charts(at)[1]


def test_a_threshold_in_the_address_is_the_lesson_link(open_page, measured):
    own, other = (measured[1][name].scores["R"] for name in ("digits", "textures"))
    slider = open_page("lesson", step="Threshold", against="textures").slider(key="cut")
    cut = slider.min + 20 * slider.step
    at = open_page("lesson", step="Threshold", against="textures", cut=str(cut))
    assert at.slider(key="cut").value == pytest.approx(cut)
    assert matrices(at) == [counts(own > cut, other > cut)]
    far = open_page("lesson", step="Threshold", against="textures", cut="1e9")
    assert not far.error and far.slider(key="cut").value == pytest.approx(slider.value)


def test_the_images_at_the_line_lie_at_the_line(open_page, measured):
    at = open_page("lesson", step="Threshold", against="textures")
    cut = at.slider(key="cut").value
    shown = "".join(e.proto.body for e in at.get("html"))
    r = measured[1]["textures"].scores["R"]
    first_flagged, last_passed = r[r > cut].min(), r[r <= cut].max()
    assert f"textures R {first_flagged:.4g} flagged" in shown and f"textures R {last_passed:.4g} passed" in shown


def test_the_band_is_that_of_a(open_page, measured):
    calibration, stored = measured
    own, other = (stored[name].scores["R"] for name in ("digits", "gradients"))
    low, high = calibration.band(0.05)
    cut = calibration.threshold("R", 0.05)
    outside = [(r < low) | (r > high) for r in (own, other)]
    at = open_page("lesson", step="Band", against="gradients")
    assert matrices(at) == [counts(own > cut, other > cut), counts(*outside)]


def test_false_alarms_and_detections_are_those_of_the_p_values(open_page, measured):
    calibration, stored = measured
    at = open_page("lesson", step="Overlap", against="gradients", alpha="0.1")
    table = at.table[0].value
    for i, by in enumerate(SCORES):
        rates = []
        for name in ("digits", "gradients"):
            p = conformal_p_value(anomaly_scores(stored[name].scores)[by], calibration.scores[by])
            rates.append(f"{100 * (p <= 0.1).mean():.1f} %")
        assert list(table.iloc[i, 1:3]) == rates


@pytest.mark.parametrize("ood", SETS)
def test_the_quiz_tells_right_from_wrong_at_once(open_page, ood):
    at = open_page("lesson", step="Quiz", against=ood)
    assert len(at.radio) == 5 and not at.success and not at.error
    for i in range(5):
        right = []
        for option in at.radio[i].options:
            at = at.radio[i].set_value(option).run()
            assert not at.exception and len(at.success) + len(at.error) == i + 1
            right += [option] if len(at.success) == i + 1 else []
        assert right, "every question has a right answer"
        at = at.radio[i].set_value(right[0]).run()
    assert len(at.success) == 5


def test_without_stored_scores_the_lesson_says_how_to_get_them(open_page):
    at = open_page("lesson", model="bare")
    assert "no stored scores" in words(at) and "ama_core measure" in at.code[0].value


@pytest.mark.parametrize("step", ["Hope", "Surprise", "Threshold"])
def test_images_that_are_not_here_are_said_to_be_missing(open_page, step):
    at = open_page("lesson", model="elsewhere", step=step)
    assert at.selectbox(key="against").value == "gtsrb"
    assert "not on this computer, only their scores: R " in words(at) and not at.error
    assert matrices(at) if step == "Threshold" else not matrices(at)


@pytest.mark.parametrize(
    "names, first", [(("a", "cifar10", "photos"), "cifar10"), (("a", "photos"), "photos"), (("a", "b"), "a")]
)
def test_every_page_starts_with_the_same_model(tiny_bundle, tmp_path, monkeypatch, names, first):
    for name in names:
        shutil.copytree(tiny_bundle, tmp_path / name, ignore=shutil.ignore_patterns("samples", "checkpoint*"))
    monkeypatch.setenv("AMA_MODELS_DIR", str(tmp_path))
    for page in ("lesson", "densities", "reconstructions", "shell", "simplex", "check", "about"):
        at = AppTest.from_file(APP / "main.py", default_timeout=120).switch_page(f"views/{page}.py").run()
        assert not at.exception and f"Model **{first}**" in words(at), page


@pytest.mark.parametrize("ood", SETS)
def test_lesson_and_densities_print_one_auroc_for_one_pair_of_sets(open_page, lesson_models, tmp_path, monkeypatch, ood):
    other = {by: 0.111 + 0.1 * i for i, by in enumerate(SCORES)}  # figures that no sample of stored scores has
    shutil.copytree(lesson_models / "digits", tmp_path / "digits")
    with_aurocs(tmp_path / "digits", {ood: other})
    monkeypatch.setenv("AMA_MODELS_DIR", str(tmp_path))
    lesson = open_page("lesson", step="Overlap", against=ood)
    table = open_page("densities", ood=ood, metric="AUROC").table[0].value
    for by, printed in zip(SCORES, lesson.table[0].value["AUROC"]):
        assert printed == f"{other[by]:.3f}" == table[by][0].split(" ")[0]


def test_the_lesson_starts_with_a_set_that_shows_its_points(lesson_models, tmp_path, open_page, monkeypatch):
    shutil.copytree(lesson_models / "digits", tmp_path / "digits")
    fails = {"R": 0.3, "A": 0.6, "M": 0.9, "T": 0.7}
    monkeypatch.setenv("AMA_MODELS_DIR", str(tmp_path))
    for best in SETS:
        refuted = {"R": 0.2, "A": 0.95, "M": 0.9, "T": 0.7}  # R does worse there, but M and T find no more than A
        with_aurocs(tmp_path / "digits", {name: fails if name == best else refuted for name in SETS})
        at = open_page("lesson", step="Overlap")
        assert at.selectbox(key="against").value == best
        assert at.success and "M (0.900) or T (0.700) sees what R (0.300) and A (0.600) do not" in at.success[0].value
        assert "chosen to show its points" in words(open_page("lesson")) and "1 of the 2 sets" in words(open_page("lesson"))
        other = next(name for name in SETS if name != best)
        at = open_page("lesson", step="Overlap", against=other)
        assert not at.success and "find no more" in words(at)
        at = next(b for b in at.button if b.label.startswith(f"Look at {best}")).click().run()
        assert at.selectbox(key="against").value == best and at.success


@pytest.mark.parametrize(
    "aurocs, first, chosen",
    [
        ({"a": (0.3, 0.4, 0.9, 0.9), "b": (0.2, 0.9, 0.9, 0.9), "c": (0.1, 0.4, 0.6, 0.5)}, (), "c"),
        ({"a": (0.3, 0.4, 0.9, 0.9), "b": (0.2, 0.9, 0.9, 0.9), "c": (0.1, 0.4, 0.6, 0.5)}, ("z", "b", "a"), "a"),
        ({"a": (0.8, 0.4, 0.9, 0.9), "b": (0.6, 0.9, 0.9, 0.9)}, ("a",), "b"),
    ],
)
def test_the_telling_set(aurocs, first, chosen):
    aurocs = {name: dict(zip(SCORES, values)) for name, values in aurocs.items()}
    assert telling_set(aurocs, first) == chosen
    assert shows_both(aurocs[chosen]) == (chosen != "b")


def test_what_moves_r_is_said_as_measured(open_page, lesson_models, tmp_path, monkeypatch):
    shutil.copytree(lesson_models / "digits", tmp_path / "digits")
    with_aurocs(tmp_path / "digits", {"textures": {"R": 0.3}})
    monkeypatch.setenv("AMA_MODELS_DIR", str(tmp_path))

    def said() -> str:
        at = open_page("lesson", step="Surprise", against="textures")
        return words(at.button_group(key="guess-digits-textures").set_value("normal").run())

    found = read_response(tmp_path / "digits")
    text = said()
    assert f"median R of {found.r:.3g}" in text and "Simple images" not in text
    assert all(f"{change}: {r:.3g}" in text for change, r in found.changed.items())
    own = SetFacts(100, 100.0, 50.0, 1000.0, 0.6, 0.1)
    for other, sentence in (
        (SetFacts(100, 50.0, 20.0, 900.0, 0.9, 0.9), "a *low* R is to be expected"),
        (SetFacts(100, 50.0, 80.0, 900.0, 0.9, 0.9), "it does not explain why theirs is low"),
        (SetFacts(100, 50.0, 51.0, 900.0, 0.9, 0.9), "much alike"),
    ):
        write_response(tmp_path / "digits", replace(found, sets={"digits": own, "textures": other}))
        text = said()
        assert sentence in text and "too weak to expect anything" in text, "of the length, by a correlation of 0.1"
    (tmp_path / "digits" / "response.json").unlink()
    text = said()
    assert "R fails here" in text and "strangeness" not in text, "nothing is said where nothing was measured"


# --- about


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
    assert len(at.latex) == 10
    code = "\n".join(block.value for block in at.code)
    for name in ("critic_wasserstein", "simplex_weights", "atypical_codes", "gradient_penalty", "latent_regulariser", "r_score",
                 "log_a_score", "mahalanobis", "t_vector", "conformal_p_value"):  # fmt: skip
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
