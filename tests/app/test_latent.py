"""The pages Latent shell and Simplex, run without a browser on a tiny model, its plain sibling, and damaged files."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from ama_core import AMADetector
from ama_core.analysis import latent_map, shell, simplex
from ama_core.data import load
from ama_core.runs.execute import execute
from ama_core.runs.spec import RunSpec
from tests.common import APP


@pytest.fixture(scope="session")
def latent_models(tmp_path_factory, tiny_bundle, tiny_config) -> Path:
    """`digits` with a stored map, `digits-plain` without one."""
    folder = tmp_path_factory.mktemp("latent-models")
    shutil.copytree(tiny_bundle, folder / "digits")
    plain = tiny_config.replace(reconstruction="plain", max_steps=3)
    execute(folder / "digits-plain", RunSpec("digits", plain, measure=False), device="cpu")
    return folder


@pytest.fixture
def open_page(latent_models, monkeypatch):
    """Opens a page with what its address says: open_page("shell", direction="outward")."""
    monkeypatch.setenv("AMA_MODELS_DIR", str(latent_models))
    monkeypatch.syspath_prepend(str(APP))

    def open_(page: str, models: Path = latent_models, **address) -> AppTest:
        monkeypatch.setenv("AMA_MODELS_DIR", str(models))
        at = AppTest.from_file(APP / "views" / f"{page}.py", default_timeout=60)
        for key, value in address.items():
            at.query_params[key] = value
        return at.run()

    return open_


def words(at: AppTest) -> str:
    """Everything that a page says in text."""
    kinds = (at.title, at.markdown, at.caption, at.info, at.warning, at.error, at.success, at.subheader)
    return "\n".join(element.value for kind in kinds for element in kind)


def html(at: AppTest) -> str:
    return "\n".join(element.proto.body for element in at.get("html"))


def weights(at: AppTest) -> list[float]:
    return [at.slider(key=key).value for key in ("wa", "wb", "wc")]


# Latent shell


def test_shell_says_plainly_whether_norms_follow_the_shell(open_page, latent_models):
    at = open_page("shell")
    assert not at.exception and not at.error
    stored = latent_map.read_latents(latent_models / "digits")
    facts = shell.shell_facts(stored.codes[stored.entries[1].rows])
    said = [element.value for element in (*at.success, *at.warning) if "√d" in element.value]
    assert len(said) == 1 and f"{facts.median_ratio:.2f} √d" in said[0] and f"{100 * facts.share_in_band:.0f} %" in said[0]
    assert ("do not keep" in said[0]) == (facts.share_in_band < 0.6)


def test_shell_draws_map_histogram_and_polar_view(open_page):
    at = open_page("shell")
    charts = at.get("plotly_chart")
    assert len(charts) == 4 and all(chart.proto.alt for chart in charts)  # map, norms, polar view, ‖z‖ against R
    shown = html(at)
    assert shown.count("<img") >= 12 + 8 and "Decode of atypical code 8" in shown


def test_shell_without_umap_offers_pca_alone_and_says_why(open_page):
    at = open_page("shell", map="UMAP")
    assert not at.exception
    assert at.button_group(key="map").options == ["PCA"]
    assert "umap-learn is not installed" in words(at)


def test_shell_with_umap_offers_it_and_warns_of_it(open_page, latent_models, tmp_path):
    shutil.copytree(latent_models / "digits", tmp_path / "digits")
    stored = latent_map.read_latents(tmp_path / "digits")
    umap = np.random.default_rng(0).normal(size=(len(stored.codes), 2))
    latent_map.write_latents(tmp_path / "digits", replace(stored, umap=umap))
    at = open_page("shell", models=tmp_path, map="UMAP", colour="‖z‖ − √d")
    assert not at.exception and "loses the radius" in words(at)


def test_shell_moves_atypical_codes_with_delta_and_direction(open_page):
    at = open_page("shell", direction="outward", delta="1.0")
    before = html(at)
    at.slider(key="delta").set_value(2.5).run()
    further = html(at)
    assert not at.exception and further != before
    at.button_group(key="direction").set_value("sipple").run()
    assert not at.exception and html(at) != further and at.slider(key="delta").disabled


def test_shell_shows_the_ends_of_a_set_and_atypical_decodes(open_page, latent_models):
    at = open_page("shell", of="atypical inward", end="longest codes")
    assert not at.exception and "stand for no image" in words(at)
    stored = latent_map.read_latents(latent_models / "digits")
    test = stored.entries[1]
    shortest = test.start + int(np.linalg.norm(stored.codes[test.rows], axis=1).argmin())
    assert f"Image of test {stored.index[shortest]}," in html(open_page("shell"))


def test_shell_hover_map_carries_images(open_page):
    at = open_page("shell", hover="true")
    assert not at.exception and len(at.get("plotly_chart")) == 3
    assert len(at.get("arrow_vega_lite_chart") or at.get("vega_lite_chart")) == 1


def test_shell_without_stored_codes_says_how_to_make_them(open_page, latent_models):
    at = open_page("shell", model="digits-plain")
    assert not at.exception and not at.error
    assert "no stored codes" in words(at) and "ama_core measure" in at.code[0].value


def test_shell_with_a_damaged_map_is_a_sentence(open_page, latent_models, tmp_path):
    shutil.copytree(latent_models / "digits", tmp_path / "digits")
    (tmp_path / "digits" / latent_map.FILE).write_bytes(b"broken")
    at = open_page("shell", models=tmp_path)
    assert not at.exception and "is damaged" in at.error[0].value


def test_shell_of_images_that_are_not_available_says_so(open_page, latent_models, tmp_path):
    shutil.copytree(latent_models / "digits", tmp_path / "digits")
    stored = latent_map.read_latents(tmp_path / "digits")
    entries = tuple(replace(entry, name="mnist") if entry.name == "gradients" else entry for entry in stored.entries)
    latent_map.write_latents(tmp_path / "digits", replace(stored, entries=entries))
    at = open_page("shell", models=tmp_path, of="mnist")
    assert not at.exception and not at.error
    assert any("MNIST cannot be shown" in element.value and "--download mnist" in element.value for element in at.info)


def test_shell_with_no_set_chosen_asks_for_one(open_page):
    at = open_page("shell")
    at.multiselect(key="sets").set_value([]).run()
    assert not at.exception and "Choose at least one set" in words(at)


# Simplex


def test_simplex_shows_triangle_mixture_and_path(open_page, latent_models):
    at = open_page("simplex")
    assert not at.exception and not at.error
    assert len(at.get("plotly_chart")) == 1 and "21 decodes" in words(at)
    assert html(at).count("<img") == 4 + 9
    detector = AMADetector.load(latent_models / "digits", device="cpu")
    parents = load("digits", "test").images[:3]
    decode = detector.decode(simplex.mixtures(detector.encode(parents), [[0.34, 0.33, 0.33]]))
    shown = {metric.label: metric.value for metric in at.metric}
    assert shown["critic D̄"] == f"{simplex.mixture_critic(detector, decode, detector.prepared(parents))[0]:.3g}"
    assert shown["R"] == f"{detector.r_score(decode)[0]:.4g}"
    assert shown["p by T"] == f"{detector.p_value(decode)[0]:.3f}"


def test_simplex_counts_the_mixtures_that_are_flagged(open_page, latent_models):
    detector = AMADetector.load(latent_models / "digits", device="cpu")
    parents = load("digits", "test").images[:3]
    decoded = detector.decode(simplex.mixtures(detector.encode(parents), simplex.triangle_weights()))
    for alpha in (0.05, 0.2):
        flagged = [int((detector.scores(images)["p_T"] <= alpha).sum()) for images in (decoded, parents)]
        at = open_page("simplex", alpha=str(alpha))
        said = [element.value for element in (*at.success, *at.warning) if "of 21 mixtures" in element.value]
        assert len(said) == 1 and f"**{flagged[0]} of 21 mixtures are flagged**" in said[0]
        assert f"themselves, {flagged[1] or 'none'} " in said[0]
        assert ("not filled" in said[0]) == (flagged[0] > 2 * alpha * 21) == (said[0] in [e.value for e in at.warning])
    assert "mixtures are flagged" not in words(open_page("simplex", alpha="0.001")), "at a rate at which none can be"


def test_simplex_sliders_keep_the_sum_at_one(open_page):
    at = open_page("simplex", wa="0.2", wb="0.3", wc="0.5")
    assert weights(at) == pytest.approx([0.2, 0.3, 0.5])
    at.slider(key="wa").set_value(0.6).run()
    assert not at.exception and weights(at)[0] == pytest.approx(0.6) and sum(weights(at)) == pytest.approx(1)


def test_simplex_outside_is_allowed_and_said(open_page):
    at = open_page("simplex", wa="1.4", wb="-0.2", wc="-0.2")
    assert not at.exception and any("outside the simplex" in element.value for element in at.warning)
    assert "21 decodes" not in words(at)
    assert "beyond the two images" in words(open_page("simplex", outside="true"))


def test_simplex_weights_that_cancel_are_a_sentence(open_page):
    at = open_page("simplex", wa="-0.5", wb="0.0", wc="0.5")
    assert not at.exception and "add up to more than 0.1" in at.error[0].value


def test_simplex_draws_three_others_the_same_way_each_time(open_page):
    drawn = []
    for _ in range(2):
        at = open_page("simplex", setb="gradients")
        at.button[0 if at.button[0].label == "Draw three others" else 1].click().run()
        assert not at.exception
        drawn.append([at.number_input(key=f"n{letter}").value for letter in "abc"])
    assert drawn[0] == drawn[1] != [0, 1, 2]


def test_simplex_forgets_a_number_that_the_new_set_may_not_have(open_page):
    at = open_page("simplex", seta="gradients", na="1999")
    assert at.number_input(key="na").value == 1999
    at.selectbox(key="seta").set_value("normal test images").run()
    assert not at.exception and at.number_input(key="na").value == 0


def test_simplex_of_a_plain_model_shows_the_critic_alone(open_page):
    at = open_page("simplex", model="digits-plain")
    assert not at.exception and "critic D" in [metric.label for metric in at.metric]


def test_simplex_without_its_own_images_takes_others(open_page, latent_models, tmp_path, monkeypatch):
    shutil.copytree(latent_models / "digits", tmp_path / "digits")
    config = tmp_path / "digits" / "config.json"
    config.write_text(config.read_text().replace('"source": "digits"', '"source": "mnist"'))
    at = open_page("simplex", models=tmp_path)
    assert not at.exception and not at.error
    assert any("not on this computer" in element.value for element in at.info) and html(at).count("<img") == 13
