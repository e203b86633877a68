"""The page Compare: the heat table is what is stored, its cells lead to densities, two models see the same images."""

import json
import shutil
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from ama_core.detectors import registry
from ama_core.detectors.registry import load_detector
from ama_core.evaluation import protocol as evaluation
from ama_core.evaluation.metrics import auroc_interval
from ama_core.runs import execute as runs
from ama_core.runs.spec import RunSpec
from ama_core.storage.bundle import n_parameters, read_results, read_scores, write_results
from tests.common import APP, html, save_pngs, words

OTHERS = ("pixel_mean", "nearest")


@pytest.fixture(scope="module")
def models(tmp_path_factory, tiny_bundle) -> Path:
    """AMA and two other detectors, each measured on the same two sets."""
    folder = tmp_path_factory.mktemp("compare-models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "available_sets", lambda: ["digits", "gradients", "textures"])
        for name in OTHERS:
            settings = registry.detector_class(name).Settings.from_dict({"channels": 1, "fit": "pad"})
            runs.execute(folder / name, RunSpec("digits", settings, detector=name), device="cpu")
    shutil.copytree(tiny_bundle, folder / "mine")
    return folder


@pytest.fixture
def open_page(models, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(APP))
    monkeypatch.setenv("AMA_RUNS_DIR", str(tmp_path / "runs"))

    def open_(folder: Path = models, **address) -> AppTest:
        monkeypatch.setenv("AMA_MODELS_DIR", str(folder))
        at = AppTest.from_file(APP / "main.py", default_timeout=120)
        at.query_params.update(address)
        at.switch_page("views/compare.py").run()
        assert not at.exception, at.exception[0].value
        return at

    return open_


def links(at: AppTest) -> list[dict]:
    found = [parse_qs(link.proto.query_string)["view"][0] for link in at.get("page_link") if link.proto.query_string]
    return [{key: value[0] for key, value in parse_qs(view).items()} for view in found]


def aurocs(models: Path, name: str, by: str) -> dict[str, float]:
    return {row["ood"]: row["scores"][by]["auroc"] for row in read_results(models / name)["results"]}


def test_the_heat_table_is_what_was_measured_with_intervals_ranks_and_cost(open_page, models):
    at = open_page()
    table = at.dataframe[0].value
    table = getattr(table, "data", table).set_index("model")
    assert table.index[0] == "mine" and set(table.index) == {"mine", *OTHERS}
    row = read_results(models / "mine")["results"][0]
    value = row["scores"]["T"]["auroc"]
    low, high = auroc_interval(value, row["n_normal"], row["n_ood"])
    assert table.loc["mine", "Colour gradients"] == f"{value:.3f} ({low:.3f}–{high:.3f})"
    assert table.loc["mine", "parameters"] == f"{n_parameters(models / 'mine'):,}"
    assert table.loc["pixel_mean", "parameters"] == "0"
    by = {name: load_detector(models / name).decides for name in table.index}
    figures = {name: aurocs(models, name, by[name]) for name in table.index}
    for name in table.index:
        ranks = [
            1
            + sum(figures[o][s] > figures[name][s] for o in figures)
            + sum(figures[o][s] == figures[name][s] for o in figures if o != name) / 2
            for s in ("gradients", "textures")
        ]
        assert table.loc[name, "mean rank"] == f"{np.mean(ranks):.2f}"
    best = [name for name in table.index if table.loc[name, "mean rank"] == min(table["mean rank"])]
    assert f"**{' and '.join(best)}** ha" in words(at)


def test_all_that_share_the_best_mean_rank_are_named(open_page, models, tmp_path):
    figures = {"mine": (0.999, 0.7), "nearest": (0.9, 0.8), "pixel_mean": (0.5, 0.5)}
    for name, sets in figures.items():
        shutil.copytree(models / name, tmp_path / "m" / name)
        results, by = read_results(models / name), load_detector(models / name).decides
        for row, auroc in zip(results["results"], sets):
            row["scores"][by]["auroc"] = auroc
        write_results(tmp_path / "m" / name, results)
    at = open_page(tmp_path / "m")
    assert "**mine and nearest** have the best mean rank (1.50)" in words(at) and "mine (AMA" not in words(at)
    table = at.dataframe[0].value
    table = getattr(table, "data", table)
    assert any(str(value).startswith("0.999 (0.9") and str(value).split("–")[1] <= "1.000)" for value in table.to_numpy().flat)


def test_a_cell_opens_its_densities(open_page, models):
    at = open_page(of="nearest", on="textures")
    by = load_detector(models / "nearest").decides
    assert {"model": "nearest", "ood": "textures", "axis": by, "score": by} in links(at)
    assert f"AUROC **{aurocs(models, 'nearest', by)['textures']:.3f}**" in words(at)


def test_raw_and_two_sided_scores_can_be_compared(open_page, models):
    raw = open_page(kind="the raw score", of="mine", on="gradients")
    assert f"AUROC **{aurocs(models, 'mine', 'R')['gradients']:.3f}**" in words(raw)
    two_sided = open_page(kind="its two-sided version", of="mine", on="gradients")
    assert f"AUROC **{aurocs(models, 'mine', 'A')['gradients']:.3f}**" in words(two_sided)


def test_two_models_are_counted_on_the_same_images(open_page, models):
    at = open_page(first="mine", second="nearest", against="textures", alpha="0.1")
    stored = {name: {(s.name, s.split): s for s in read_scores(models / name)} for name in ("mine", "nearest")}
    flagged = []
    for name in ("mine", "nearest"):
        model = load_detector(models / name)
        of = stored[name]["textures", "test"]
        held_out, scores = model.held_out_scores_[model.decides], model.anomaly_scores(of.scores)[model.decides]
        flagged.append((1 + (held_out[None] >= scores[:, None]).sum(axis=1)) / (len(held_out) + 1) <= 0.1)
    a, b = flagged
    said = words(at)
    assert f"{len(a):,} images of Procedural textures" in said
    assert f"by both {(a & b).sum():,}, by mine alone {(a & ~b).sum():,}, by nearest alone {(~a & b).sum():,}" in said
    assert f"by neither {(~a & ~b).sum():,}" in said
    points = json.loads(at.get("plotly_chart")[0].proto.spec)["data"]
    assert [trace["name"] for trace in points] == ["Handwritten digits, test", "Procedural textures"]
    assert html(at).count("<img") == sum(min(9, int(part.sum())) for part in (a & ~b, ~a & b))


def test_of_a_rate_that_no_calibration_allows_nothing_is_concluded(open_page, models):
    n = len(load_detector(models / "mine").held_out_scores_["T"])
    at = open_page(first="mine", second="nearest", alpha="0.001")
    said = words(at)
    for name in ("mine", "nearest"):
        assert f"At a false-alarm rate of 0.1 % **{name}** can flag nothing, however unusual: with {n} calibration" in said
    assert "Both saw the same **" in said and "neither" not in said and "alone" not in said and "dotted" not in said
    assert not json.loads(at.get("plotly_chart")[0].proto.spec)["layout"].get("shapes")


def test_one_model_alone_and_none_are_designed_states(open_page, models, tmp_path):
    shutil.copytree(models / "mine", tmp_path / "one" / "mine")
    assert "Only one model here" in words(open_page(tmp_path / "one"))
    at = open_page(tmp_path / "none")
    assert "No measured model is here yet" in words(at) and "--detector deepsvdd" in at.code[0].value


def test_models_of_other_images_and_those_shown_anomalies_stand_apart(open_page, models, tmp_path):
    shutil.copytree(models / "mine", tmp_path / "m" / "mine")
    changes = {"other": ('"name": "digits"', '"name": "mnist"'), "semi": ('"anomalies": null', '"anomalies": "flat"')}
    for name, change in changes.items():
        shutil.copytree(models / "mine", tmp_path / "m" / name)
        config = tmp_path / "m" / name / "config.json"
        changed = config.read_text().replace(*change)
        assert changed != config.read_text()
        config.write_text(changed)
    at = open_page(tmp_path / "m")
    assert sorted(at.selectbox(key="normal").options) == ["Handwritten digits", "MNIST"]
    assert at.selectbox(key="of").options == ["mine"]


def test_a_damaged_model_is_named_and_left_out(open_page, models, tmp_path):
    shutil.copytree(models / "mine", tmp_path / "m" / "mine")
    (tmp_path / "m" / "broken").mkdir()
    (tmp_path / "m" / "broken" / "config.json").write_text("{")
    at = open_page(tmp_path / "m")
    assert "**broken** is left out" in at.warning[0].value and "Only one model here" in words(at)


def test_models_of_own_folders(open_page, tmp_path, digits):
    """Two folders that are called alike are two groups, without a path in the address; models of one are compared."""
    folder = tmp_path / "models"
    for where, names in (("a:1", ("pixel_mean", "nearest")), ("b", ("pixel_mean",))):
        save_pngs(tmp_path / where / "good", digits.images[:60])
        for name in names:
            settings = registry.detector_class(name).Settings.from_dict({"channels": 1, "fit": "pad"})
            spec = RunSpec(str(tmp_path / where / "good"), settings, detector=name, watch="gradients")
            runs.execute(folder / f"{name}-{where[0]}", spec, device="cpu")
    at = open_page(folder)
    (normal,) = [box for box in at.selectbox if box.label == "Normal images"]
    assert normal.options == ["good", "good (2)"] and normal.value == "good" and not at.exception
    assert not at.error and at.get("plotly_chart"), "the two are set beside each other"
    normal.select("good (2)").run()
    assert at.query_params["normal"] in ("good (2)", ["good (2)"]) and not at.exception
