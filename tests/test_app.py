"""The first three pages, run as Streamlit runs them but without a browser, on a tiny model and its plain sibling."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from ama_core import AMADetector
from ama_core.bundle import read_results, read_scores
from ama_core.data import decode_image, load, prepare
from ama_core.density import a_band, densities, share_below
from ama_core.runs import RunSpec, execute
from ama_core.scores import SCORES, anomaly_scores, log_a_score

APP = Path(__file__).resolve().parent.parent / "app"
PAGES = ("densities", "reconstructions", "check")


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory, tiny_bundle, tiny_config) -> Path:
    """A folder with the models `digits` (measured) and `digits-plain` (not measured)."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_bundle, folder / "digits")
    plain = tiny_config.replace(reconstruction="plain", max_steps=3)
    execute(folder / "digits-plain", RunSpec("digits", plain, measure=False), device="cpu")
    return folder


@pytest.fixture
def open_page(models_dir, monkeypatch):
    """Opens a page with what its address says: open_page("check", sample="3")."""
    monkeypatch.setenv("AMA_MODELS_DIR", str(models_dir))
    monkeypatch.syspath_prepend(str(APP))

    def open_(page: str, /, **address) -> AppTest:
        at = AppTest.from_file(APP / "views" / f"{page}.py", default_timeout=60)
        for key, value in address.items():
            at.query_params[key] = value
        return at.run()

    return open_


def words(at: AppTest) -> str:
    """Everything that a page says in text."""
    kinds = (at.title, at.markdown, at.caption, at.info, at.warning, at.error, at.success, at.subheader)
    return "\n".join(element.value for kind in kinds for element in kind)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("model", ["digits", "digits-plain"])
def test_a_page_opens_without_an_exception(open_page, page, model):
    at = open_page(page, model=model)
    assert not at.exception and not at.error
    assert f"Model **{model}**" in words(at)


@pytest.mark.parametrize("page", PAGES)
def test_without_a_model_a_page_says_how_to_train_one(open_page, page, tmp_path, monkeypatch):
    monkeypatch.setenv("AMA_MODELS_DIR", str(tmp_path))
    at = open_page(page)
    assert not at.exception
    assert "no trained model" in at.info[0].value and "train photos" in at.code[0].value


@pytest.mark.parametrize("page", PAGES)
def test_a_damaged_model_is_a_sentence(open_page, page, models_dir, tmp_path, monkeypatch):
    shutil.copytree(models_dir / "digits", tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"not weights")
    monkeypatch.setenv("AMA_MODELS_DIR", str(tmp_path))
    at = open_page(page)
    assert not at.exception
    assert "missing or damaged" in at.error[0].value


def test_the_table_holds_the_measured_figures(open_page, models_dir):
    rows = {row["ood"]: row for row in read_results(models_dir / "digits")["results"]}
    for metric, field in (("AUROC", "auroc"), ("AUPRC", "auprc"), ("FPR95", "fpr95")):
        table = open_page("densities", model="digits", ood=list(rows), metric=metric).table[0].value
        assert list(table["Set"]) == list(rows)
        for _, line in table.iterrows():
            measured = rows[line["Set"]]
            assert [line[score] for score in SCORES] == [f"{measured['scores'][score][field]:.3f}" for score in SCORES]
            assert line["n"] == f"{measured['n_normal']:,} + {measured['n_ood']:,}"


def test_the_address_restores_a_view_and_reset_ends_it(open_page):
    at = open_page("densities", model="digits", ood=["textures"], axis="M", score="A", alpha="0.1", log="true")
    assert at.multiselect(key="ood").value == ["textures"]
    assert at.select_slider(key="alpha").value == 0.1
    assert at.toggle(key="log").value
    figure = json.loads(at.get("plotly_chart")[0].proto.spec)
    assert {"train", "test", "textures"} <= {trace["name"] for trace in figure["data"]}
    assert figure["layout"]["xaxis"]["type"] == "log" and "M" in figure["layout"]["xaxis"]["title"]["text"]

    at.button[0].click().run()
    assert not at.exception
    assert at.select_slider(key="alpha").value == 0.05 and not at.toggle(key="log").value
    assert "gradients" in at.multiselect(key="ood").value


def test_an_unknown_model_in_the_address_is_told(open_page):
    at = open_page("densities", model="nowhere")
    assert "no model called nowhere" in at.warning[0].value and not at.exception


def test_a_raw_score_below_chance_is_explained(open_page, models_dir, tmp_path, monkeypatch):
    shutil.copytree(models_dir / "digits", tmp_path / "digits")
    results = read_results(tmp_path / "digits")
    results["results"][0]["scores"]["R"]["auroc"] = 0.37
    (tmp_path / "digits" / "results.json").write_text(json.dumps(results))
    monkeypatch.setenv("AMA_MODELS_DIR", str(tmp_path))
    said = words(open_page("densities", ood=[results["results"][0]["ood"]]))
    assert "R gives 0.37" in said and "*more normal*" in said


def test_reconstructions_are_ordered_by_the_chosen_score(open_page, models_dir):
    at = open_page("reconstructions", model="digits", score="M")
    table = next(e.proto.body for e in at.get("html") if "ama-table" in e.proto.body)
    assert table.count("<img") == 12 * 5 and table.count('alt="') == 12 * 5  # input, two models, two differences
    detector, test = AMADetector.load(models_dir / "digits"), load("digits", "test")
    sample = np.sort(np.random.default_rng(0).choice(len(test), 256, replace=False))
    most = sample[np.argmax(anomaly_scores(detector.scores(test.images[sample]))["M"])]
    assert f"#{most}<" in table.split("<tr>")[2]
    last = open_page("reconstructions", model="digits", score="M", order="most normal first", page="22")
    table = next(e.proto.body for e in last.get("html") if "ama-table" in e.proto.body)
    assert f"#{most}<" in table


def test_an_upload_shows_the_scores_of_the_detector(open_page, models_dir, rng):
    data = png(rng.integers(0, 256, (50, 70, 3), dtype=np.uint8))
    at = open_page("check", model="digits", score="M", alpha="0.1")
    at.file_uploader[0].upload("mine_[1].png", data, "image/png").run()
    assert not at.exception and not at.error

    detector = AMADetector.load(models_dir / "digits")
    c = detector.config
    image, notes = prepare([decode_image(data)[0]], size=c.image_size, channels=c.channels, fit=c.fit)
    scores = {name: value[0] for name, value in detector.scores(image).items()}
    assert at.metric[0].value == f"{scores['R']:.4g}"
    assert at.metric[1].value == f"{scores['p_M']:.4f}"
    table = at.table[0].value.set_index("Score")
    assert [table.loc[name, "Value"] for name in SCORES] == [f"{scores[name]:.4g}" for name in SCORES]
    assert [table.loc[name, "p-value"] for name in SCORES] == [f"{scores[f'p_{name}']:.4f}" for name in SCORES]
    said = words(at)
    assert ("Flagged as anomalous" in said) == bool(scores["p_M"] <= 0.1)
    assert "converted to grey" in said and all(part in said.replace("\\", "") for part in notes)


def test_bad_files_are_sentences_and_good_ones_still_shown(open_page, digits):
    at = open_page("check", model="digits")
    good = png(digits.images[0])
    at.file_uploader[0].set_value([("text.png", b"hello", "image/png"), ("cut.png", good[: len(good) // 2], "image/png"),
                                   ("empty.png", b"", "image/png"), ("good.png", good, "image/png")]).run()  # fmt: skip
    assert not at.exception
    assert len(at.error) == 3 and all("could not be scored" in error.value for error in at.error)
    assert "text.png" in at.error[0].value.replace("\\", "") and "not an image" in at.error[0].value
    assert len(at.metric) == 2 and at.subheader[-1].value == "good.png"

    next(button for button in at.button if "Reset" in button.label).click().run()
    assert not at.exception and not at.error and not at.file_uploader[0].value


def test_a_false_alarm_rate_below_the_smallest_p_value_is_told(open_page):
    assert "nothing can be flagged" in open_page("check", model="digits", alpha="0.001").warning[0].value


def test_the_router_leads_to_pages_that_exist(open_page, models_dir):
    at = AppTest.from_file(APP / "main.py", default_timeout=120).run()
    assert not at.exception


def test_densities_have_all_their_mass_where_data_can_be(rng):
    samples = {"a": np.abs(rng.normal(0, 1, 2000)), "b": rng.gamma(2, 3, 500), "same": np.full(50, 2.0)}
    for found in (densities(samples, lower=0.0), densities(samples, log=True)):
        x = np.log10(found.grid) if found.log else found.grid
        for name, curve in found.curves.items():
            assert np.isfinite(curve).all() and (curve >= 0).all()
            assert np.trapezoid(curve, x) == pytest.approx(1, abs=0.02), name
        assert found.grid.min() >= 0
    assert found.medians["same"] == 2.0


def test_the_band_of_a_is_where_a_does_not_flag(models_dir):
    calibration = AMADetector.load(models_dir / "digits").calibration_
    low, high = a_band(calibration, 0.1)
    limit = -calibration.threshold("A", 0.1)
    at_ends = log_a_score(np.array([low, high]), calibration.mu, calibration.sigma)
    assert at_ends == pytest.approx([limit, limit])
    assert low + high == pytest.approx(2 * calibration.mu)
    assert share_below(2.0, np.array([1.0, 2.0, 3.0, 4.0])) == 0.25


def test_stored_scores_reach_the_chart(open_page, models_dir):
    at = open_page("densities", model="digits", ood=["gradients"], axis="pixels")
    stored = next(s for s in read_scores(models_dir / "digits") if s.name == "gradients")
    assert f"gradients {np.median(stored.scores['pixel_l1']):.3g}" in words(at)
