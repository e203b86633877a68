"""Score densities and benchmark, without a browser: what they show is what is stored, beside what the paper prints."""

import base64
import dataclasses
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from ama_core import AMADetector
from ama_core.data import catalog, decode_image, label_of, prepare
from ama_core.detectors.ama.scores import SCORES
from ama_core.detectors.registry import detector_class
from ama_core.evaluation.metrics import auroc_interval, metric_intervals
from ama_core.paper import published as paper
from ama_core.paper.lengths import LAMBDA_DRIFT
from ama_core.paper.report import condition_letters
from ama_core.paper.rivals import RivalLine
from ama_core.paper.rows import SIMPLE_ROW
from ama_core.runs.spec import RunSpec, config_for
from ama_core.storage.bundle import read_results, read_scores, write_results, write_scores
from tests.common import APP
from tests.paper.records import record

METRICS = ("auroc", "auprc", "fpr95")


def copy(bundle: Path, to: Path, *, normal: dict | None = None, sets: dict | None = None, **config) -> Path:
    """A bundle that claims other settings, normal data and OOD sets than those of `bundle`."""
    shutil.copytree(bundle, to, ignore=shutil.ignore_patterns("samples", "checkpoint*"))
    header = json.loads((to / "config.json").read_text())
    header["normal"] |= normal or {}
    header["config"] |= config
    (to / "config.json").write_text(json.dumps(header))
    names = {"digits": header["normal"]["name"], **(sets or {})}
    write_scores(to, [replace(s, name=names.get(s.name, s.name)) for s in read_scores(bundle)])
    results = read_results(bundle)
    for row in results["results"]:
        row["ood"] = names.get(row["ood"], row["ood"])
    write_results(to, results)
    return to


def with_auroc(folder: Path, ood: str, value: float) -> Path:
    results = read_results(folder)
    next(row for row in results["results"] if row["ood"] == ood)["scores"]["A"]["auroc"] = value
    write_results(folder, results)
    return folder


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch) -> Path:
    """A folder for stored results, empty at first."""
    folder = tmp_path / "results"
    folder.mkdir()
    monkeypatch.setattr("ama_core.paper.records.RESULTS", folder)
    return folder


def store(results: Path, *records) -> None:
    for stored in records:
        (results / f"{stored.name}.json").write_text(json.dumps(dataclasses.asdict(stored)))


@pytest.fixture(scope="session")
def models(tmp_path_factory, tiny_bundle) -> Path:
    """`digits` as measured, and a claimed `fashion` with the paper's MNIST and our GTSRB."""
    folder = tmp_path_factory.mktemp("densities")
    copy(tiny_bundle, folder / "digits")
    fashion = {"name": "fashionmnist", "source": "fashionmnist"}
    copy(tiny_bundle, folder / "fashion", normal=fashion, sets={"gradients": "mnist", "textures": "gtsrb"})
    return folder


@pytest.fixture
def open_page(models, monkeypatch, tmp_path):
    """Opens a page with what its address says, on the models of a folder."""
    monkeypatch.setenv("AMA_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.syspath_prepend(str(APP))

    def open_(page: str, folder: Path = models, **address) -> AppTest:
        monkeypatch.setenv("AMA_MODELS_DIR", str(folder))
        at = AppTest.from_file(APP / "main.py", default_timeout=120)
        at.query_params.update({"model": "digits", **address} if page == "densities" else address)
        at.switch_page(f"views/{page}.py").run()
        assert not at.exception, at.exception[0].value
        return at

    return open_


def words(at: AppTest) -> str:
    kinds = (at.markdown, at.caption, at.info, at.warning, at.error, at.success)
    return "\n".join(element.value for kind in kinds for element in kind)


def shown_images(at: AppTest) -> list[str]:
    return [element.proto.body for element in at.get("html") if "ama-figures" in element.proto.body]


def traces(at: AppTest, place: int = 0) -> dict[str, dict]:
    return {trace["name"]: trace for trace in json.loads(at.get("plotly_chart")[place].proto.spec)["data"] if "name" in trace}


def values(column) -> np.ndarray:
    """A column of a trace, as numbers."""
    if isinstance(column, dict):
        return np.frombuffer(base64.b64decode(column["bdata"]), column["dtype"]).astype(float)
    return np.array([np.nan if v is None else v for v in column], float)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "PNG")
    return file.getvalue()


# --- densities


def test_the_address_restores_a_view_and_reset_ends_it(open_page):
    address = dict(ood=["textures"], axis="M", score="A", alpha="0.1", log="false", histogram="true", at="3.5")
    at = open_page("densities", **address)
    assert at.multiselect(key="ood").value == ["textures"] and at.number_input(key="at").value == 3.5
    assert at.select_slider(key="alpha").value == 0.1 and not at.toggle(key="log").value and at.toggle(key="histogram").value
    layout = json.loads(at.get("plotly_chart")[0].proto.spec)["layout"]
    assert {"train", "test", "textures"} <= set(traces(at))
    assert layout["xaxis"]["type"] == "linear" and "M" in layout["xaxis"]["title"]["text"]

    at = next(b for b in at.button if "Reset" in b.label).click().run()
    assert not at.exception and at.number_input(key="at").value is None
    assert at.select_slider(key="alpha").value == 0.05 and at.toggle(key="log").value
    assert not at.toggle(key="histogram").value and "gradients" in at.multiselect(key="ood").value  # the default, see below


def test_stored_scores_reach_the_chart(open_page, models):
    at = open_page("densities", ood=["gradients"], axis="pixels")
    stored = next(s for s in read_scores(models / "digits") if s.name == "gradients")
    median = f"Colour gradients {np.median(stored.scores['pixel_l1']):.3g}"
    assert median in words(at) and median in at.get("plotly_chart")[0].proto.alt


def test_a_histogram_is_drawn_on_demand_for_every_curve(open_page):
    filled = [
        sum(trace.get("fill") == "tozeroy" for trace in json.loads(at.get("plotly_chart")[0].proto.spec)["data"])
        for at in (open_page("densities", histogram=value, ood=["gradients", "textures"]) for value in ("false", "true"))
    ]
    assert filled == [0, 4]


@pytest.mark.parametrize("metric", ["AUROC", "AUPRC", "FPR95"])
def test_the_table_holds_what_was_measured_with_its_interval(open_page, models, metric):
    rows = {row["ood"]: row for row in read_results(models / "digits")["results"]}
    stored = {s.name: s for s in read_scores(models / "digits") if s.split == "test"}
    at = open_page("densities", ood=list(rows), metric=metric)
    table = at.table[0].value
    counted = [f"{row['n_normal']:,} + {row['n_ood']:,}" for row in rows.values()]
    if len(set(counted)) == 1:
        assert "n" not in table and f"n = {counted[0]}, normal test images" in words(at)
    else:
        assert list(table["n"]) == counted
    assert list(table["Set"]) == [label_of(name) for name in rows]
    names = dict(zip(table["Set"], rows))
    for _, line in table.iterrows():
        row = rows[names[line["Set"]]]
        intervals = metric_intervals(AMADetector(), row, stored["digits"], stored[row["ood"]])
        for score in SCORES:
            low, high = intervals[score][metric.lower()]
            assert line[score] == f"{row['scores'][score][metric.lower()]:.3f} :gray[({low:.3f}–{high:.3f})]"
    assert not [column for column in table if "paper" in column], "no cell of the paper's"


def test_all_three_measures_stand_side_by_side(open_page, models):
    table = open_page("densities", ood=["textures"], metric="All three").table[0].value
    row = next(row for row in read_results(models / "digits")["results"] if row["ood"] == "textures")
    assert list(table["Score"]) == list(SCORES)
    for _, line in table.iterrows():
        for name in METRICS:
            assert line[name.upper()].startswith(f"{row['scores'][line['Score']][name]:.3f} ")


def test_the_papers_value_stands_beside_ours_for_its_own_sets_alone(open_page):
    table = open_page("densities", model="fashion", ood=["mnist", "gtsrb"]).table[0].value
    assert list(table["paper, A"]) == ["0.987", ""] and list(table["paper, R"]) == ["0.991", ""]
    assert not [
        c for c in open_page("densities", model="fashion", ood=["mnist"], metric="FPR95").table[0].value if "paper" in c
    ]


def test_without_stored_scores_only_auroc_has_an_interval(open_page, models, tmp_path):
    copy(models / "digits", tmp_path / "digits")
    (tmp_path / "digits" / "scores.npz").unlink()
    assert "from a bootstrap standard error (200 resamples" in words(open_page("densities", ood=["textures"]))
    at = open_page("densities", tmp_path, ood=["textures"])
    row = next(row for row in read_results(models / "digits")["results"] if row["ood"] == "textures")["scores"]["T"]
    low, high = auroc_interval(row["auroc"], 500, 100)
    assert at.table[0].value["T"][0] == f"{row['auroc']:.3f} :gray[({low:.3f}–{high:.3f})]"
    assert "only AUROC has an interval" in words(at)
    assert re.search(r"no stored scores; `python -m ama_core measure \S+/digits`", words(at))
    assert open_page("densities", tmp_path, ood=["textures"], metric="FPR95").table[0].value["T"][0] == f"{row['fpr95']:.3f}"


def test_a_raw_score_below_chance_is_explained(open_page, models, tmp_path):
    copy(models / "digits", tmp_path / "digits")
    results = read_results(tmp_path / "digits")
    results["results"][0]["scores"]["R"]["auroc"] = 0.37
    write_results(tmp_path / "digits", results)
    said = words(open_page("densities", tmp_path, ood=[results["results"][0]["ood"]]))
    assert "R has an AUROC of 0.37" in said and "*more normal*" in said
    assert "**R fails** on this set: it ranks" in said
    results["results"][0]["scores"]["R"]["auroc"] = 0.4999
    write_results(tmp_path / "digits", results)
    said = words(open_page("densities", tmp_path, ood=[results["results"][0]["ood"]]))
    assert "R has an AUROC of 0.500 on **" in said and "near chance (0.5): it cannot tell" in said
    assert "below chance" not in said and "R is not clearly below 0.5 on **" in said and "these 1 sets" not in said


@pytest.mark.parametrize("axis, key", [("R", "R"), ("A", "R"), ("‖z‖", "z_norm")])
def test_the_images_around_a_score_are_the_nearest_of_every_set(open_page, models, axis, key):
    stored = {(s.name, s.split): s.scores[key] for s in read_scores(models / "digits")}
    if axis == "A":
        c = AMADetector.load(models / "digits").calibration_
        stored = {where: np.abs(r.astype(float) - c.mu) / c.sigma for where, r in stored.items()}
    at = f"{np.median(stored['textures', 'test']):.4g}"
    page = open_page("densities", ood=["textures"], axis=axis, at=at)
    groups = shown_images(page)
    assert len(groups) == 3 and any(name.startswith("images around") for name in traces(page))
    for body, (where, title) in zip(
        groups,
        (
            (("digits", "train"), "training images"),
            (("digits", "test"), "normal test images"),
            (("textures", "test"), "Procedural textures"),
        ),
    ):
        values = stored[where]
        nearest = np.sort(values[np.argsort(abs(values - float(at)), kind="stable")[:8]])
        assert body.count("<img") == 8 and all(f"{title}, score {value:.4g}" in body for value in nearest)


@pytest.mark.parametrize("log", ["true", "false"])
def test_the_axis_of_a_shows_the_mass_of_every_set(open_page, models, log):
    at = open_page("densities", ood=["textures", "gradients"], axis="A", log=log, cuts="true")
    found = traces(at)
    x = np.log10(values(found["train"]["x"])) if log == "true" else values(found["train"]["x"])
    mass = np.add.reduce([values(found[name]["y"]) for name in ("train", "test", "textures", "gradients")])
    hundredths = np.histogram(x, 100, weights=mass)[0] / mass.sum()
    assert hundredths.max() < 0.3, "not all of it in one place"
    calibration = AMADetector.load(models / "digits").calibration_
    (edge,) = {v for name, t in found.items() if name.startswith("A flags right") for v in values(t["x"]) if np.isfinite(v)}
    stored = next(s for s in read_scores(models / "digits") if s.name == "textures")
    beyond = np.abs(stored.scores["R"] - calibration.mu) / calibration.sigma > edge
    assert np.array_equal(beyond, -stored.scores["log_A"] > calibration.threshold("A", 0.05)), "the same images are flagged"


def test_the_sets_of_the_lesson_come_first(open_page, models):
    lesson = words(open_page("lesson", model="digits", step="Surprise")).replace("\\", "")
    first = open_page("densities").multiselect(key="ood").value[0]
    assert f"Chosen for this step: {catalog()[first].title}, the set with the lowest AUROC of R" in lesson


def charts(at: AppTest) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in at.get("plotly_chart")]


def written(chart: dict) -> list[str]:
    """The names at the curves of a chart."""
    return [note["text"] for note in chart["layout"]["annotations"] if note["text"]]


def test_fig_4_is_r_and_a_side_by_side_of_the_same_sets_with_their_aurocs(open_page, models):
    at = open_page("densities", ood=["textures", "gradients"])
    at = next(g for g in at.button_group if g.key == "axis").set_value("R and A (Fig. 4)").run()
    assert not at.exception and len(charts(at)) == 2
    rows = {row["ood"]: row["scores"] for row in read_results(models / "digits")["results"]}
    stored = {(s.name, s.split): s.scores["R"].astype(float) for s in read_scores(models / "digits")}
    c = AMADetector.load(models / "digits").calibration_
    for by, chart in zip("RA", charts(at)):
        assert set(written(chart)) == {"training images", "normal test images"} | {
            f"{label_of(name)} {rows[name][by]['auroc']:.3f}" for name in ("textures", "gradients")
        }
        assert all(t["showlegend"] is False for t in chart["data"] if t["name"] in ("train", "test", "textures", "gradients"))
    assert "|R − μ| / σ" in charts(at)[1]["layout"]["xaxis"]["title"]["text"]
    apart = np.maximum(abs(stored["textures", "test"] - c.mu) / c.sigma, 0.01)
    assert f"Procedural textures {np.median(apart):.3g}" in at.get("plotly_chart")[1].proto.alt


def test_a_very_narrow_curve_does_not_flatten_the_others(open_page, models, tmp_path, rng):
    """It is cut off above the normal ones, and its name says how high it is."""
    folder = copy(models / "digits", tmp_path / "digits")
    own = next(s for s in read_scores(folder) if (s.name, s.split) == ("digits", "test")).scores["R"]
    r = (np.quantile(own, 0.9) * (1 + 1e-3 * rng.standard_normal(5000))).astype(np.float32)
    stored = [
        replace(s, scores=s.scores | {"R": r[: s.n]}) if (s.name, s.split) == ("textures", "test") else s
        for s in read_scores(folder)
    ]
    write_scores(folder, stored)
    page = open_page("densities", tmp_path, ood=["textures", "gradients"], axis="R")
    heights = {name: values(trace["y"]).max() for name, trace in traces(page).items() if name in ("train", "test", "textures")}
    assert heights["textures"] == pytest.approx(2.5 * max(heights["train"], heights["test"]), rel=1e-5)
    (peak,) = [re.search(r", peak ([\d.,]+)$", name)[1] for name in written(charts(page)[0]) if "peak" in name]
    assert float(peak.replace(",", "")) > 1.2 * heights["textures"]
    assert f"cut off at {heights['textures']:.2g}" in charts(page)[0]["layout"]["yaxis"]["title"]["text"]
    assert max(note["y"] for note in charts(page)[0]["layout"]["annotations"]) <= heights["textures"] * 1.0001


def test_bands_and_cuts_are_drawn_on_demand(open_page):
    names = {key: set(traces(open_page("densities", ood=["textures"], **{key: "true"}))) for key in ("bands", "cuts")}
    plain = set(traces(open_page("densities", ood=["textures"])))
    assert names["bands"] - plain == {"μ ± 2σ of training R", "μ ± 1σ of training R"}
    assert {name.split(" (α")[0] for name in names["cuts"] - plain} <= {"A flags outside", "R flags right of this"}
    assert names["cuts"] - plain and not [name for name in plain if "flags" in name or "σ" in name]


def test_the_verdict_above_the_chart_is_measured(open_page, models, tmp_path):
    copy(models / "digits", tmp_path / "digits")

    def said(**aurocs) -> str:
        results = read_results(models / "digits")
        for row in results["results"]:
            for by, value in zip(SCORES, aurocs.get(row["ood"], ())):
                row["scores"][by]["auroc"] = value
        write_results(tmp_path / "digits", results)
        return open_page("densities", tmp_path, ood=["textures", "gradients"]).info[0].value

    text = said(textures=(0.2, 0.8, 0.9, 0.9, 0.9), gradients=(0.3, 0.4, 0.6, 0.5, 0.55))
    assert (
        "**R fails** on 2 of these 2 sets" in text
        and "**Procedural textures** (0.200) and **Colour gradients** (0.300)" in text
    )
    assert (
        "reverses that on **Procedural textures** (0.800)" in text and "A does not help on **Colour gradients** (0.400)" in text
    )
    assert "No score does well on **Colour gradients** (best: M 0.600)" in text
    text = said(textures=(0.9, 0.8, 0.9, 0.9, 0.9), gradients=(0.8, 0.4, 0.6, 0.5, 0.55))
    assert (
        "is clearly below 0.5 on none of these 2 sets; lowest is **Colour gradients** (0.800)" in text and "fails" not in text
    )


def test_a_place_means_nothing_on_another_axis(open_page):
    at = open_page("densities", ood=["textures"], at="10")
    assert shown_images(at)
    at = next(g for g in at.button_group if g.key == "axis").set_value("T").run()
    assert not at.exception and at.number_input(key="at").value is None and not shown_images(at)


def test_images_that_are_not_here_are_said_to_be_missing(open_page):
    at = open_page("densities", model="fashion", ood=["gtsrb"], at="10")
    assert not shown_images(at) and words(at).count("not on this computer, only their scores") == 3
    assert "datasets --download gtsrb" in words(at).replace("\\", "")


def test_uploads_stand_on_the_axis_and_bad_ones_are_named(open_page, models, rng):
    good = png(rng.integers(0, 256, (50, 70, 3), dtype=np.uint8))
    at = open_page("densities", axis="M")
    at.file_uploader[0].set_value([("mine <b>.png", good, "image/png"), ("bad.png", b"no image", "image/png")]).run()
    assert not at.exception and len(at.error) == 1 and "bad.png" in at.error[0].value
    detector = AMADetector.load(models / "digits")
    c = detector.config
    image, _ = prepare([decode_image(good)[0]], size=c.image_size, channels=c.channels, fit=c.fit)
    scores = {name: float(value[0]) for name, value in detector.scores(image).items()}
    trace = traces(at)["your images"]
    assert trace["text"] == [f"mine &lt;b&gt;.png<br>{scores['M']:.4g}"], "no markup from a file's name"
    table = at.dataframe[0].value.iloc[0]
    for name, key in (("R", "R"), ("M", "M"), ("T", "T"), ("‖z‖", "z_norm"), ("p-value by T", "p_T")):
        assert table[name] == pytest.approx(scores[key])
    assert f"mine <b>.png {scores['M']:.3g}" in at.get("plotly_chart")[0].proto.alt

    other = open_page("densities", axis="M")
    assert "your images" not in traces(other), "another session sees nothing of them"
    at = next(b for b in at.button if "Reset" in b.label).click().run()
    assert "your images" not in traces(at) and not at.error


def test_a_one_class_model_shows_its_other_classes_and_the_papers_cell(open_page, models, tmp_path):
    copy(
        models / "digits",
        tmp_path / "three",
        normal={"name": "mnist", "source": "mnist", "label": 3},
        sets={"textures": "rest"},
    )
    at = open_page("densities", tmp_path, model="three", ood=["rest", "gradients"])
    assert "rest" in traces(at) and list(at.table[0].value["paper, A"]) == ["0.891", ""]


# --- benchmark


def lines(at: AppTest) -> pd.DataFrame:
    return at.dataframe[0].value


def views(at: AppTest) -> list[dict]:
    found = [parse_qs(link.proto.query_string)["view"][0] for link in at.get("page_link") if link.proto.query_string]
    return [{key: value[0] for key, value in parse_qs(view).items()} for view in found]


def test_table_1_has_the_papers_cells_and_ours_where_measured(open_page, models):
    table = lines(open_page("benchmark"))
    assert list(table["paper"]) == [f"{paper.table1(a, b):.3f}" for a, b in paper.TASKS]
    ours = read_results(models / "fashion")["results"][0]
    row = table.iloc[0]
    assert row["model"] == "fashion" and row["ours"] == f"{ours['scores']['A']['auroc']:.3f} (reduced)"
    low, high = auroc_interval(ours["scores"]["A"]["auroc"], ours["n_normal"], ours["n_ood"])
    assert row["95 %"] == f"{low:.3f} – {high:.3f}" and row["seeds"] == "1" and "of 128" in row["reduced"]
    assert (
        row["mode"] == "paper" and row["width E/G/D"] == "8/8/8" and row["steps"] == "12" and row["hardware"].startswith("cpu")
    )
    assert (table["ours"][1:] == "not measured").all()


def test_sets_beyond_the_paper_are_shown_on_demand_under_their_own_names(open_page):
    further = lines(open_page("benchmark", beyond="true"))
    further = further[further["paper"] == ""]
    assert set(zip(further["normal"], further["out of distribution"])) >= {
        ("FashionMNIST", "Traffic signs (GTSRB)"),
        ("Handwritten digits", "Procedural textures"),
    }


def test_models_that_differ_by_their_seed_alone_are_one_line(open_page, models, tmp_path):
    for seed, value in ((0, 0.9), (1, 0.8), (2, 0.7)):
        with_auroc(copy(models / "fashion", tmp_path / f"fashion-{seed}", seed=seed), "mnist", value)
    with_auroc(copy(models / "fashion", tmp_path / "again", seed=1), "mnist", 0.1)
    with_auroc(copy(models / "fashion", tmp_path / "released", mode="released", seed=3), "mnist", 0.2)
    table = lines(open_page("benchmark", tmp_path))
    cells = table[table["out of distribution"] == "MNIST"].set_index("model")
    assert set(cells.index) == {"again, fashion-0, fashion-2", "fashion-1", "released"}, "a seed counts once"
    (tmp_path / "again").rename(tmp_path / "zagain")
    table = lines(open_page("benchmark", tmp_path))
    cells = table[table["out of distribution"] == "MNIST"].set_index("model")
    assert cells.loc["fashion-0, fashion-1, fashion-2", "ours"] == "0.800 ± 0.100 (reduced)"
    assert cells.loc["fashion-0, fashion-1, fashion-2", "seeds"] == "3"
    assert cells.loc["released", "mode"] == "released" and cells.loc["zagain", "ours"] == "0.100 (reduced)"
    at = open_page("benchmark", tmp_path, cell="fashionmnist → mnist, fashion-0, fashion-1, fashion-2")
    assert "3 training seeds" in words(at) and "A 0.800 ± 0.100" in words(at)
    assert at.number_input[0].value == 3, "the next seed"
    assert {view["model"] for view in views(at)} == {"fashion-0", "fashion-1", "fashion-2"}


def test_a_model_that_was_shown_real_anomalies_fills_no_cell_of_the_paper(open_page, models, tmp_path):
    copy(models / "fashion", tmp_path / "semi", normal={"anomalies": "omniglot"})
    assert (lines(open_page("benchmark", tmp_path))["ours"] == "not measured").all()


def test_the_ablation_without_a_ranks_the_same_model_by_r(open_page, models):
    at = open_page("benchmark", table="Ablations", variant=paper.WITHOUT_A)
    ours = read_results(models / "fashion")["results"][0]["scores"]["R"]["auroc"]
    assert lines(at).iloc[0]["ours"] == f"{ours:.3f} (reduced)" and lines(at).iloc[2]["paper"] == "0.442"
    without = open_page("benchmark", table="Ablations", variant=paper.WITHOUT_MIRRORED)
    assert (lines(without)["ours"] == "not measured").all()
    assert "--set reconstruction=plain" in without.code[0].value


def test_an_ablation_says_what_the_part_adds_and_whether_the_paper_is_confirmed(open_page, tmp_path, results):
    for seed, (whole, without) in enumerate(((0.90, 0.70), (0.91, 0.72), (0.92, 0.71))):
        asked = dict(seed=seed, normal="fashionmnist", ood="mnist")
        plain = record(paper.WITHOUT_MIRRORED, a=without, table="ablations", **asked)
        store(results, record(a=whole, **asked), plain)
    at = open_page("benchmark", tmp_path / "none", table="Ablations")
    row = lines(at).iloc[0]
    assert row["ours: difference"] == "0.200 (0.175 to 0.225)" and row["verdict"] == "confirms the paper"
    assert row["paper: difference"] == "0.334"
    said = "**Confirms the paper** on 1 of 1: FashionMNIST → MNIST 0.200 (0.175 to 0.225), in the paper 0.334."
    assert said in words(at) and "Our models are smaller than the paper's, or trained for less" in words(at)


def test_the_length_of_trainings_is_shown_where_several_were_measured(open_page, tmp_path, results):
    asked = dict(normal="fashionmnist", ood="mnist")
    at = open_page("benchmark", tmp_path / "none")
    assert "**T, mirrored loss**" in words(at), "the study's own figures are in the repository"
    config = dataclasses.asdict(config_for("fashionmnist", "tiny", max_steps=250, lambda_drift=LAMBDA_DRIFT))
    store(results, record(t=0.123, steps=250, config=config, **asked))
    at = open_page("benchmark", tmp_path / "none")
    assert "T, mirrored loss**: 0.123 after 250 steps" in words(at)
    assert "mirrored loss" not in words(open_page("benchmark", tmp_path / "none", table="Table 2"))


def test_table_2_has_every_class_and_one_class_models_fill_it(open_page, models, tmp_path):
    table = lines(open_page("benchmark", table="Table 2"))
    assert len(table) == 22 and table.iloc[14]["class"] == "3 cat" and table.iloc[14]["paper"] == "0.603"
    assert (table["ours"] == "not measured").all() and table.iloc[21]["paper"] == "0.669"

    for label in range(3):
        normal = {"name": "mnist", "source": "mnist", "label": label}
        with_auroc(
            copy(models / "digits", tmp_path / f"m{label}", normal=normal, sets={"textures": "rest"}), "rest", 0.5 + label / 10
        )
    table = lines(open_page("benchmark", tmp_path, table="Table 2"))
    assert list(table["ours"][:4]) == ["0.500 (reduced)", "0.600 (reduced)", "0.700 (reduced)", "not measured"]
    assert table.iloc[10]["ours"] == "3 of 10 measured" and table.iloc[10]["paper"] == "0.938"
    at = open_page("benchmark", tmp_path, table="Table 2", cell="mnist → 2, m2")
    assert {"model": "m2", "ood": "rest", "axis": "A", "score": "A"} in views(at)
    assert "--one-class 2" in at.code[0].value and "evaluate" in at.code[1].value
    for label in range(3, 10):
        normal = {"name": "mnist", "source": "mnist", "label": label}
        with_auroc(copy(models / "digits", tmp_path / f"m{label}", normal=normal, sets={"textures": "rest"}), "rest", 0.5)
    table = lines(open_page("benchmark", tmp_path, table="Table 2", cell="mnist → mean of 10"))
    assert table.iloc[10]["ours"] == "0.530 (reduced)"


def test_what_the_command_stored_fills_cells_that_open_the_densities_behind_them(open_page, models, tmp_path, results):
    short = [record(label=3, seed=seed, a=a) for seed, a in enumerate((0.5, 0.7))]
    short = [replace(one, config=one.config | {"seed": one.seed}) for one in short]
    long = record(label=3, a=0.8, steps=2000, condition="def", settings={"max_steps": "2000"})
    long = replace(long, config=long.config | {"max_steps": 2000})
    store(results, *short, long, record(SIMPLE_ROW, "mnist", 3), record("AMA, Sipple", "mnist", 3, condition="fed"))
    table = lines(open_page("benchmark", tmp_path / "none", table="Table 2"))
    three = table[table["class"] == "3"].set_index("model")
    assert list(three.index) == ["stored, tiny, 2,000 steps", "stored, tiny, 700 steps"], "the longest first"
    assert list(three["ours"]) == ["0.800 (reduced)", "0.600 ± 0.141 (reduced)"] and list(three["seeds"]) == ["1", "2"]
    assert set(three["paper"]) == {"0.891"} and three.iloc[0]["hardware"] == "one core"
    assert table[table["class"] == "mean of 10"].iloc[0]["ours"] == "1 of 10 measured"

    cell = "mnist → 3, stored, tiny, 2,000 steps"
    at = open_page("benchmark", tmp_path / "none", table="Table 2", cell=cell)
    assert "Only its figures are stored" in words(at) and len(at.get("plotly_chart")) == 2, "the two dot plots alone"
    scores = {s.name: s for s in read_scores(models / "digits")}
    folder = results / "scores" / long.name
    folder.mkdir(parents=True)
    write_scores(folder, [replace(scores["gradients"], name="mnist"), replace(scores["textures"], name="rest")])
    c, r = AMADetector.load(models / "digits").calibration_, scores["textures"].scores["R"].astype(float)
    for axis, there in (("R", r), ("A", np.abs(r - c.mu) / c.sigma)):
        at = open_page("benchmark", tmp_path / "none", table="Table 2", cell=cell)
        at.segmented_control(key=f"stored-axis-{long.name}").set_value(axis).run()
        assert not at.exception and set(traces(at, 1)) == {"test", "rest"}
        assert f"rest {np.median(there):.3g}" in words(at)
    assert "--one-class 3" in at.code[0].value and not any("evaluate" in code.value for code in at.code)


def test_a_mean_is_of_ten_classes_trained_alike(open_page, tmp_path, results):
    for label in range(10):
        store(results, record(label=label, a=0.8))
        longer = record(label=label, a=0.9, steps=2000, condition="def")
        if label < 9:
            store(results, replace(longer, config=longer.config | {"max_steps": 2000}))
    at = open_page("benchmark", tmp_path / "none", table="Table 2")
    means = lines(at)[lines(at)["class"] == "mean of 10"]
    assert list(means["ours"]) == ["0.800 (reduced)", "not measured"] and means.iloc[0]["model"] == "stored, tiny, 700 steps"
    assert means.iloc[0]["T"] == "0.600"


def test_what_the_command_stored_stands_below_its_table(open_page, results):
    assert "Nothing of this table is stored" in words(open_page("benchmark", table="Ablations"))
    for seed, a in enumerate((0.5, 0.7)):
        for row, value in ((paper.AMA, a), (SIMPLE_ROW, 0.4)):
            stored = record(row, "mnist", 3, seed, a=value)
            (results / f"{row}-{seed}.json").write_text(json.dumps(dataclasses.asdict(stored)))
    at = open_page("benchmark", table="Table 2")
    table = at.dataframe[-1].value
    assert list(table["task"]) == ["MNIST → 3"] and table.iloc[0]["paper"] == 0.891
    assert table.iloc[0]["A"] == "0.600 ± 0.141" and table.iloc[0]["pixel mean"] == "0.400 ± 0.000"
    assert table.iloc[0]["seeds"] == 2 and table.iloc[0]["size"] == "reduced (a)"
    assert "(a) preset tiny" in words(at) and "python -m ama_core benchmark table2" in words(at)

    (results / "damaged.json").write_text("{")
    at = open_page("benchmark", table="Table 2")
    assert not at.exception and "damaged.json" in at.error[0].value


def test_a_cell_that_cannot_be_had_says_why_and_what_was_measured_instead(open_page, models, tmp_path):
    assert paper.OUT_OF_REACH["svhn"] in words(open_page("benchmark", cell="cifar10 → svhn"))
    copy(models / "digits", tmp_path / "cifar", normal={"name": "cifar10", "source": "cifar10"}, sets={"textures": "gtsrb"})
    said = words(open_page("benchmark", tmp_path, cell="cifar10 → svhn"))
    assert "under their own names (switch above): " in said and "Traffic signs (GTSRB)" in said


def test_a_measured_cell_opens_its_densities_by_every_score(open_page, models):
    at = open_page("benchmark", cell="fashionmnist → mnist, fashion")
    assert views(at) == [{"model": "fashion", "ood": "mnist", "axis": by, "score": by} for by in SCORES]
    assert any(f"evaluate {models / 'fashion'} --ood mnist" in code.value for code in at.code)


def test_a_training_whose_data_are_missing_is_refused_in_words(open_page):
    at = open_page("benchmark", cell="fashionmnist → omniglot").button(key="queue").click().run()
    assert not at.exception and "datasets --download fashionmnist" in at.error[0].value


def test_a_cell_can_be_trained_again_with_another_seed_and_watched(open_page, tmp_path, monkeypatch):
    monkeypatch.setattr("ama_core.runs.queue.ensure_worker", lambda folder: None)
    cell = "digits → textures, digits"
    at = open_page("benchmark", beyond="true", cell=cell).button(key="queue").click().run()
    assert not at.exception and "is queued" in at.success[0].value
    spec = RunSpec.read(tmp_path / "runs" / "digits-seed1")
    assert spec.dataset == "digits" and spec.config.max_steps == 12 and spec.config.seed == 1
    later = open_page("benchmark", beyond="true", cell=cell)
    assert "**digits-seed1** is queued" in words(later) and {"run": "digits-seed1"} in views(later)
    assert "digits-seed1" not in words(open_page("benchmark", cell="fashionmnist → mnist, fashion"))


def test_without_models_and_with_a_damaged_one_the_papers_numbers_stay(open_page, tmp_path):
    assert (lines(open_page("benchmark", tmp_path / "none"))["ours"] == "not measured").all()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    at = open_page("benchmark", tmp_path)
    assert "**broken** is left out" in at.warning[0].value and len(lines(at)) == 8


def test_the_rivals_stand_below_with_the_papers_figures_and_the_models_here(open_page, models, tmp_path, results):
    kind = detector_class("deepsvdd")
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    normal = {"name": "fashionmnist", "source": "fashionmnist", "label": None, "n": 9, "fingerprint": "", "anomalies": None}
    header = {
        "format": "ama-bundle",
        "version": 2,
        "detector": "deepsvdd",
        "config": kind.Settings().to_dict(),
        "normal": normal,
        "training": {"steps": 900},
    }
    (folder / "config.json").write_text(json.dumps(header))
    metrics = {by: {"auroc": 0.75, "auprc": 0.5, "fpr95": 0.5} for by in [score.name for score in kind.SCORES]}
    row = {"ood": "mnist", "n_normal": 1000, "n_ood": 200, "scores": metrics}
    (folder / "results.json").write_text(json.dumps({"normal": "fashionmnist", "seed": 0, "results": [row]}))
    at = open_page("benchmark", tmp_path / "models")
    table = at.dataframe[1].value
    mine = table[(table["method"] == "DeepSVDD") & (table["pair"] == "FashionMNIST → MNIST")].iloc[0]
    low, high = auroc_interval(0.75, 1000, 200)
    assert (mine["paper"], mine["ours"], mine["95 %"]) == ("0.864", "0.750", f"{low:.3f} – {high:.3f}")
    assert mine["status"] == "reduced" and mine["model"] == "mine"
    assert (table["status"] == "not measured").sum() == len(table) - 1
    said = words(at)
    assert "of 1 other trainings measured here, DeepSVDD does best: 0.750" in said and "(0.750 against 0.864)" in said
    assert "Ours are smaller than published, or trained for less." in said
    assert {"model": "mine", "ood": "mnist", "axis": kind.decides} in views(at)
    assert all(caveat in said.replace("\\", "") for caveat in paper.CAVEATS)
    second = open_page("benchmark", tmp_path / "models", table="Table 2").dataframe[1].value
    assert list(second[second["pair"] == "MNIST, mean of 10"]["paper"]) == ["0.921", "0.504", "0.828", "0.731", "0.531"]


@pytest.mark.parametrize(
    "statuses, said",
    [
        (("reduced", "smoke"), "Ours are smaller than published, or trained for less. "),
        (("full", "reduced"), "Of ours, M1 is smaller than published, or trained for less. "),
        (("full", "full"), ""),
    ],
)
def test_only_smaller_trainings_are_called_smaller(monkeypatch, statuses, said):
    monkeypatch.syspath_prepend(str(APP))
    from rivals import far_from_the_paper

    lines = []
    for i, status in enumerate(statuses):
        entry = SimpleNamespace(status=status)
        lines.append(RivalLine(f"M{i}", "deepsvdd", "mnist", "fashionmnist", 0.9, (0.5, None), (entry,)))
    near = RivalLine("M9", "pca", "mnist", "fashionmnist", 0.9, (0.89, None), (SimpleNamespace(status="smoke"),))
    figures = "M0 (0.500 against 0.900); M1 (0.500 against 0.900)"
    expected = f" More than 0.03 from the paper's figure: {figures}. {said}All are measured here by one label-free protocol"
    assert far_from_the_paper([*lines, near]).startswith(expected) and far_from_the_paper([near]) == ""


def test_benchmark_opens_with_its_verdicts_and_its_dots(open_page, models):
    at = open_page("benchmark")
    a, r = (read_results(models / "fashion")["results"][0]["scores"][by]["auroc"] for by in ("A", "R"))
    said = words(at)
    assert "Our A is ahead of the paper's on" in said and "A (two-sided) is ahead of R (raw) on" in said
    assert (
        re.search(r"T, named beforehand, reaches the paper's figure on [01] of 1\b", said)
        and "the better of A and T" not in said
    )
    dots = traces(at)
    assert {"paper", "ours, A", "ours, R", "ours, T", "chance (0.5)"} <= set(dots)
    assert values(dots["paper"]["x"]) == pytest.approx([paper.table1(*pair) for pair in paper.TASKS])
    assert values(dots["ours, A"]["x"]) == pytest.approx([a]) and values(dots["ours, R"]["x"]) == pytest.approx([r])


def test_the_benchmarks_sentences_are_of_the_lines_that_it_shows_and_of_one_source(open_page, results):
    """Sets of ours count once they are shown; where three seeds lack simple scores, no others of the cell stand in for them."""
    beside = [record(row, normal="cifar10", ood="gtsrb", a=0.9, t=0.5) for row in (paper.AMA, SIMPLE_ROW)]
    seeds = [record(normal="fashionmnist", ood="omniglot", t=0.7, seed=seed) for seed in range(3)]
    other = [record(row, normal="fashionmnist", ood="omniglot", t=0.8, condition="def") for row in (paper.AMA, SIMPLE_ROW)]
    other = [replace(one, config={**one.config, "lr": 0.01}) for one in other]  # a setting that simple methods have too
    store(results, *beside, *seeds, *other)
    said = words(open_page("benchmark"))
    assert "T is ahead" not in said and "pixel mean is ahead" not in said and "GTSRB" not in said.split("Bars:")[0]
    assert "A (two-sided) is ahead of R (raw) on" in said
    said = words(open_page("benchmark", beyond="true"))
    assert "T is ahead of pixel mean on 0 of 1**; pixel mean is ahead on 1: CIFAR-10 → Traffic signs (GTSRB) (0.500" in said


def test_a_stand_in_is_named_where_it_is_compared_with_the_papers_figure(open_page, results):
    cells = [record(row, normal="cifar10", ood="tinyimagenet", a=0.6) for row in (paper.AMA, paper.WITHOUT_MIRRORED)]
    store(results, *cells, record(normal="cifar10", ood="cifar100", t=0.7, condition="def"))
    at = open_page("benchmark")
    said = words(at)
    named = "CIFAR-10 → Tiny-ImageNet in place of the paper's ImageNet"
    assert f"{named} by 0.311" in said and f"{named} (0.600 against 0.911)" in said
    of = re.escape("3 (1 of these 3 with a stand-in for the paper's set)**")  # with the model that is here
    assert re.search(rf"reaches the paper's figure on \d of {of}", said)
    assert re.search(rf"Our A is ahead of the paper's on \d of {of}", said)
    assert named in at.get("plotly_chart")[0].proto.alt
    assert f"{named} 0.000 (1 seed), in the paper 0.385" in words(open_page("benchmark", table="Ablations"))


def test_the_benchmark_page_calls_conditions_as_results_do_also_beyond_the_alphabet(open_page, results):
    many = [
        record(normal="fashionmnist", ood="omniglot", condition=f"c{i:02d}", settings={"nz": str(1000 + i)}) for i in range(28)
    ]
    store(results, *many)
    said = words(open_page("benchmark"))
    letters = condition_letters(many)
    assert letters["c00"] == "a" and letters["c27"] == "z2"
    for one in many:
        assert f"({letters[one.condition]}) preset tiny with nz={one.settings['nz']}" in said
