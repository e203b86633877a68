"""The lesson step by step, without a browser: what it says is what was measured."""

import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from ama_core.analysis.response import SetFacts, read_response, write_response
from ama_core.data import catalog
from ama_core.detectors.ama.scores import SCORES, anomaly_scores
from ama_core.detectors.conformal import conformal_p_value
from ama_core.evaluation.metrics import Confusion
from ama_core.formatting import of_100
from ama_core.paper import published as paper
from tests.app.lesson.common import FAILS, LIES_ON_TOP, NOTHING, SETS, STEPS, WORKS, taken, with_aurocs
from tests.common import APP, words

AUTO = "chosen for this step"
TEXTURES = "Procedural textures"


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
    for i in range(len(STEPS)):
        assert not at.exception and at.subheader[0].value.startswith(f"{i + 1} of {len(STEPS)}")
        if i < len(STEPS) - 1:
            at = next(b for b in at.button if b.label == f"Next: {STEPS[i + 1]}").click().run()
    assert not [b for b in at.button if b.label.startswith("Next")]
    at = next(b for b in at.button if b.label == f"Back: {STEPS[-2]}").click().run()
    assert at.subheader[0].value.startswith(f"{len(STEPS) - 1} of {len(STEPS)}")


def test_an_address_opens_its_step_and_set(open_page):
    at = open_page("lesson", step="Band", against="textures", alpha="0.1")
    assert at.subheader[0].value.startswith(f"5 of {len(STEPS)}") and at.selectbox(key="against").value == "textures"
    assert at.select_slider(key="alpha").value == 0.1


@pytest.mark.parametrize("ood", SETS)
def test_the_densities_wait_for_a_guess_and_the_verdict_is_measured(open_page, aurocs, ood):
    at = open_page("lesson", step="Surprise", against=ood)
    assert not charts(at), "nothing is given away"
    at = at.button_group(key=f"guess-digits-{ood}").set_value("normal").run()
    assert not at.exception and len(charts(at)) == 1
    auroc = aurocs[ood]["R"]
    said = words(at)
    assert f"**{auroc:.3f}**" in said and f"in {of_100(auroc)} of 100 pairs" in said
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
    options = [float(place) for place in at.select_slider(key="cut").options]
    for cut in (options[0], at.select_slider(key="cut").value, options[len(options) // 2]):
        at = at.select_slider(key="cut").set_value(cut).run()
        assert not at.exception and matrices(at) == [counts(own > cut, other > cut)]
    assert f"{(other > cut).mean():.1%} at {(own > cut).mean():.1%} false alarms" in charts(at)[1]


@pytest.mark.parametrize("log", ["true", "false"])
def test_the_places_of_the_line_are_those_of_the_axis_above_it(open_page, log):
    at = open_page("lesson", step="Threshold", against="textures", log=log)
    layout = json.loads(at.get("plotly_chart")[0].proto.spec)["layout"]
    places = np.array([float(place) for place in at.select_slider(key="cut").options])
    places, ends = (np.log10(places), layout["xaxis"]["range"]) if log == "true" else (places, layout["xaxis"]["range"])
    np.testing.assert_allclose([places[0], places[-1]], ends, atol=2e-3 * (ends[1] - ends[0]))
    steps = np.diff(places)
    assert steps.max() < 1.5 * np.median(steps) and len(places) > 150, "evenly"


def test_the_best_line_is_marked_and_said(open_page, measured):
    own, other = (measured[1][name].scores["R"] for name in ("digits", "textures"))
    at = open_page("lesson", step="Threshold", against="textures")
    gains = [(other > cut).mean() - (own > cut).mean() for cut in np.unique([*own, *other])]
    spec = json.loads(at.get("plotly_chart")[0].proto.spec)
    (line,) = [trace for trace in spec["data"] if trace.get("name") == "the best threshold"]
    cut = line["x"][0]
    assert (other > cut).mean() - (own > cut).mean() == pytest.approx(max(gains))
    assert f"detects {percent((other > cut).mean())} at {percent((own > cut).mean())} false alarms" in words(at)


def percent(value: float) -> str:
    digits = ".2g" if value < 0.1 else ".4g" if 0.99 < value < 1 else ".0f"
    return f"{100 * value:{digits}} %"


def test_a_threshold_in_the_address_is_the_lesson_link(open_page, measured):
    own, other = (measured[1][name].scores["R"] for name in ("digits", "textures"))
    slider = open_page("lesson", step="Threshold", against="textures").select_slider(key="cut")
    places = np.array([float(place) for place in slider.options])
    asked = float(places[20] + 0.3 * (places[21] - places[20]))  # a link from when the line had other places
    at = open_page("lesson", step="Threshold", against="textures", cut=str(asked))
    cut = at.select_slider(key="cut").value
    assert cut == pytest.approx(places[20]) and matrices(at) == [counts(own > cut, other > cut)]
    for nonsense in ("1e9", "-3", "left", "nan"):
        far = open_page("lesson", step="Threshold", against="textures", cut=nonsense)
        assert not far.error and far.select_slider(key="cut").value == pytest.approx(slider.value)


def test_the_images_at_the_line_lie_at_the_line(open_page, measured):
    at = open_page("lesson", step="Threshold", against="textures")
    cut = at.select_slider(key="cut").value
    shown = "".join(e.proto.body for e in at.get("html"))
    r = measured[1]["textures"].scores["R"]
    first_flagged, last_passed = r[r > cut].min(), r[r <= cut].max()
    assert f"{TEXTURES} R {first_flagged:.4g} flagged" in shown and f"{TEXTURES} R {last_passed:.4g} passed" in shown


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


def test_of_a_rate_that_the_calibration_does_not_allow_the_lesson_concludes_nothing(open_page, measured):
    n = len(measured[0].scores["T"])
    why = f"At a false-alarm rate of 0.1 % nothing can be flagged, however unusual: with {n} calibration images"
    band = open_page("lesson", step="Band", against="textures", alpha="0.001")
    assert why in words(band) and not matrices(band) and "miss them" not in words(band) and "below the band" not in words(band)
    overlap = open_page("lesson", step="Overlap", against="textures", alpha="0.001")
    assert why in words(overlap) and "should be close to" not in words(overlap)
    assert list(overlap.table[0].value.columns) == ["Score", "AUROC"]
    for step in ("Band", "Overlap"):
        assert "can be flagged" not in words(open_page("lesson", step=step, against="textures", alpha="0.2"))


def test_where_too_few_images_were_held_out_for_5_in_100_the_lesson_says_so(open_page, monkeypatch):
    assert "can be flagged" not in words(open_page("lesson", step="Threshold"))  # puts the app's modules on the path
    for module in ("case", "cause", "threshold"):
        monkeypatch.setattr(f"lesson.{module}.ALPHA", 0.001)
    for step in ("Cause", "Threshold"):
        at = open_page("lesson", step=step, against="textures")
        assert "At a false-alarm rate of 0.1 % nothing can be flagged" in words(at)
    assert "the line that should" not in taken(at) and "detects 0 % of the" not in words(at).replace("*", "")
    assert len(open_page("lesson", step="Quiz", against="textures").radio) == 4


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


def test_half_of_100_is_not_more_than_50(open_page, monkeypatch):
    open_page("lesson")  # puts the app's modules on the path
    import cache
    import controls
    from lesson import quiz
    from lesson.case import case_of

    folder = cache.models()["digits"]
    case = case_of(controls.View("digits", folder, cache.detector(folder), "T", 0.05), "textures")
    monkeypatch.setattr(quiz, "confusion_at", lambda *_: Confusion(50, 50, 5, 95))
    assert quiz.questions(case)[1][2] == ["5 to 50"]


def test_without_stored_scores_the_lesson_says_how_to_get_them(open_page):
    at = open_page("lesson", model="bare")
    assert "no stored scores" in words(at) and "ama_core measure" in at.code[0].value


@pytest.mark.parametrize("step", ["Hope", "Surprise", "Threshold"])
def test_images_that_are_not_here_are_said_to_be_missing(open_page, step):
    at = open_page("lesson", model="elsewhere", step=step)
    assert at.selectbox(key="against").value == AUTO and at.selectbox(key="against").options == [AUTO, "Traffic signs (GTSRB)"]
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


@pytest.mark.parametrize(
    "step, shows, other",
    [
        ("Hope", WORKS, FAILS),
        ("Surprise", FAILS, WORKS),
        ("Threshold", FAILS, WORKS),
        ("Band", FAILS, WORKS),
        ("Overlap", LIES_ON_TOP, WORKS),
        ("Overlap", LIES_ON_TOP, FAILS),
        ("Limits", NOTHING, WORKS),
        ("Limits", NOTHING, FAILS),
    ],
)
def test_every_step_chooses_the_set_that_shows_its_point_and_says_so(open_page, told, step, shows, other):
    for best, rest in (SETS, SETS[::-1]):
        told({best: shows, rest: other})
        text = words(open_page("lesson", step=step)).replace("\\", "")
        assert f"Chosen for this step: {catalog()[best].title}, " in text
        own = open_page("lesson", step=step, against=rest)
        assert "Chosen for this step" not in words(own), "the reader's own choice"


@pytest.mark.parametrize(
    "step, normal, ood, figures, said",
    [
        ("Overlap", "digits", "textures", LIES_ON_TOP, "gain 0.430, R 0.510, near chance"),
        ("Overlap", "digits", "textures", WORKS, "gain 0.020, R 0.970, though not near chance"),
        ("Band", "digits", "textures", WORKS, "the set on which A loses least against R (0.000 of AUROC)"),
        ("Surprise", "cifar10", "svhn", FAILS, "the paper's own example of a raw score that fails: the AUROC of R is 0.200."),
        ("Surprise", "photos", "svhn", FAILS, "the set of the paper's own example, on which R fails with this model as well"),
        (
            "Surprise",
            "cifar10",
            "svhn",
            WORKS,
            "the set with the lowest AUROC of R, 0.970, of the 1 measured ones, although even",
        ),
        ("Surprise", "digits", "textures", FAILS, "the paper's own example, SVHN, was not measured with this model"),
    ],
)
def test_the_rule_by_which_a_set_was_chosen_is_true_of_it(open_page, step, normal, ood, figures, said):
    open_page("lesson")  # puts the app's modules on the path
    import controls
    from lesson.steps import label

    own, other = (SimpleNamespace(name=name) for name in (normal, ood))
    case = SimpleNamespace(own=own, other=other, title=controls.title_of(ood), auroc=figures, aurocs={ood: figures})
    assert said in label(case, step)


def test_the_take_aways_follow_the_figures(open_page, told):
    title = catalog()["textures"].title
    for step, figures, sentence in (
        ("Hope", WORKS, f"the hope holds: on {title} against Handwritten digits, R has an AUROC of 0.970"),
        ("Hope", FAILS, "AUROC of 0.200, no better than chance"),
        ("Band", FAILS, "Asking on both sides fixes it: on Procedural textures, A has an AUROC of 0.900, where R had 0.200"),
        ("Band", {"R": 0.2, "A": 0.7}, "helps, but does not fix it"),
        (
            "Band",
            {"R": 0.265, "A": 0.464},
            "helps, though not beyond chance (0.5): on Procedural textures, A has an AUROC of 0.46",
        ),
        ("Band", {"R": 0.8, "A": 0.6}, "Asking on both sides loses here"),
        ("Band", {"R": 0.8, "A": 0.81}, "changes little here"),
        ("Overlap", LIES_ON_TOP, "R has an AUROC of 0.510 and A of 0.520, M reaches 0.950"),
        ("Overlap", WORKS, "add nothing clear to R (0.970)"),
        ("Limits", NOTHING, "the best score, M, has an AUROC of 0.550"),
        ("Limits", WORKS, "the best score, T, has an AUROC of 0.990; on 0 of the 2 measured sets"),
    ):
        told({"textures": figures, "gradients": WORKS})
        assert sentence in taken(open_page("lesson", step=step, against="textures")), step
    told({"textures": FAILS, "gradients": WORKS})
    at = open_page("lesson", step="Surprise", against="textures")
    assert not [m for m in at.markdown if "lightbulb" in m.value], "nothing is given away before the guess"
    at = at.button_group(key="guess-digits-textures").set_value("same").run()
    assert "A low raw score does not mean normal" in taken(at) and "AUROC 0.200" in taken(at)
    assert "of 1 of 2 measured sets" in taken(open_page("lesson", step="Quiz"))


def test_what_nearly_always_holds_is_not_said_to_hold_always(open_page, told):
    told({"textures": {"R": 0.996}})
    assert "in more than 99 of 100 pairs" in words(open_page("lesson", step="Hope", against="textures"))


def test_the_papers_figure_stands_beside_ours(open_page, told):
    told({"textures": FAILS})
    at = open_page("lesson", step="Band", against="textures")
    table = at.table[-1].value
    assert list(table.iloc[:, 1]) == [
        f"{paper.ablation(paper.WITHOUT_A, 'cifar10', 'svhn'):.3f}",
        f"{paper.table1('cifar10', 'svhn'):.3f}",
    ]
    assert list(table.iloc[:, 2]) == ["0.200", "0.900"] and table.columns[1] == "The paper: CIFAR-10 against SVHN"
    assert paper.SOURCE in words(at) and "Another pair of sets" in words(at)


def test_what_a_catches_and_r_misses_and_what_both_miss(open_page, measured):
    calibration, stored = measured
    r = stored["textures"].scores["R"]
    low, high = calibration.band(0.2)
    cut = calibration.threshold("R", 0.2)
    outside, above = (r < low) | (r > high), r > cut
    at = open_page("lesson", step="Band", against="textures", alpha="0.2")
    text = words(at)
    assert f"**A catches them, R misses them**: {(outside & ~above).sum():,} of {len(r):,} images" in text
    assert f"**both miss them**: {(~outside & ~above).sum():,} of {len(r):,} images" in text
    shown = [e.proto.body for e in at.get("html") if "ama-figures" in e.proto.body]
    captions = [[float(v) for v in re.findall(r"<figcaption>R ([\d.e+]+)<", body)] for body in shown]
    for rows, values in zip([group for group in (outside & ~above, ~outside & ~above) if group.any()], captions, strict=True):
        assert len(values) == min(8, rows.sum()) and set(values) <= {float(f"{v:.4g}") for v in r[rows]}


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
        (SetFacts(100, 50.0, 20.0, 900.0, 0.9, 0.9), "predicts a *low* R"),
        (SetFacts(100, 50.0, 80.0, 900.0, 0.9, 0.9), "it does not explain why theirs is low"),
        (SetFacts(100, 50.0, 51.0, 900.0, 0.9, 0.9), "similar in this respect"),
    ):
        write_response(tmp_path / "digits", replace(found, sets={"digits": own, "textures": other}))
        text = said()
        assert sentence in text and "too weak to predict anything" in text, "of the length, by a correlation of 0.1"
    (tmp_path / "digits" / "response.json").unlink()
    text = said()
    assert "R fails here" in text and "R depends on more" not in text, "nothing is said where nothing was measured"
