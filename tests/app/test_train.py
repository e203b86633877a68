"""The page that trains: from the form to a finished run in the list, and what happens to bad input."""

import io
import json
import re
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from ama_core.detectors import registry
from ama_core.errors import ConfigError
from ama_core.evaluation import protocol as evaluation
from ama_core.paper.lengths import LengthRun
from ama_core.runs import execute as runs
from ama_core.runs import queue, timing
from ama_core.runs.folder import list_runs
from ama_core.runs.spec import RunSpec
from ama_core.runs.status import Status
from tests.common import APP, REPEATED_IN_CI, words
from tests.runs.reading import read_log, read_status, skip_asked, stop_asked, this_process, write_status

pytestmark = REPEATED_IN_CI
MAIN = APP / "main.py"
PATIENCE = 900  # seconds; only a very busy machine needs more than a few


@pytest.fixture
def no_worker(monkeypatch):
    monkeypatch.setattr(queue, "ensure_worker", lambda folder: None)


def page(**query) -> AppTest:
    app = AppTest.from_file(str(MAIN), default_timeout=PATIENCE)
    app.switch_page("views/train.py")
    for key, value in query.items():
        app.query_params[key] = value
    return app.run()


def button(app, label):
    return next(button for button in app.button if button.label == label)


def make_tiny(app):
    """A run of three steps, as small as the bounds allow."""
    small = {"nz": 8, "width_encoder": 4, "width_generator": 4, "width_critic": 4, "batch_size": 16, "max_steps": 3}
    for name, value in small.items():
        app.number_input(key=f"hp-{name}").set_value(value)
    app.toggle(key="train-measure").set_value(False)
    return app


def stored(folder, name, status, spec) -> Path:
    run = folder / name
    run.mkdir(parents=True)
    (run / "run.json").write_text(spec.to_json())
    write_status(run, status)
    return run


def table(app):
    return app.dataframe[0].value.set_index("Run")


def test_a_run_from_the_form_finishes_and_is_listed(folder):
    app = make_tiny(page(data="digits", preset="tiny"))
    assert not app.exception and "No run yet" in app.info[-1].value
    app.text_input(key="train-name-0").set_value("my-first")
    button(app, "Train").click().run()
    assert not app.exception and not app.error
    assert RunSpec.read(folder / "my-first").config.nz == 8
    assert app.selectbox(key="run").value == "my-first" and app.text_input(key="train-name-1").value == ""
    end = time.time() + PATIENCE
    while read_status(folder / "my-first")["state"] in ("queued", "running") and time.time() < end:
        time.sleep(0.5)

    app = page(run="my-first")  # as after a reload: everything comes from the files
    assert not app.exception
    assert table(app).loc["my-first", "State"] == "finished", read_log(folder / "my-first")
    assert table(app).loc["my-first", "Progress"] == 1.0
    assert "finished" in app.code[-1].value or any("finished" in block.value for block in app.code)
    assert len(app.get("plotly_chart")) >= 2
    assert button(app, "Pause").disabled and button(app, "Resume").disabled
    assert any(link.proto.label == "Check images with it" for link in app.get("page_link"))


def test_bad_values_are_said_and_nothing_typed_is_lost(folder, no_worker):
    app = page()
    app.text_input(key="train-name-0").set_value("not a name!")
    app.number_input(key="hp-nz").set_value(48)
    button(app, "Train").click().run()
    assert "cannot be called" in app.error[0].value and not app.exception
    app.text_input(key="train-name-0").set_value("fine")
    app.number_input(key="hp-k").set_value(8)
    app.number_input(key="hp-batch_size").set_value(4).run()
    assert "cannot be mixed" in app.error[0].value
    app.number_input(key="hp-batch_size").set_value(32).run()
    assert not app.error
    assert (app.number_input(key="hp-nz").value, app.number_input(key="hp-k").value) == (48, 8)
    button(app, "Train").click().run()
    assert not app.error and RunSpec.read(folder / "fine").config.k == 8
    assert app.number_input(key="hp-nz").value == 48
    assert table(app).loc["fine", "State"] == "queued, number 1"


def test_own_images_need_a_path_that_exists(folder, no_worker):
    app = page(data="my own images")
    button(app, "Train").click().run()
    assert "give a path" in app.error[0].value
    missing = str(folder / "no-such-folder")  # the folder of runs is one that the app may read
    app.text_input(key="train-path").set_value(missing).run()
    button(app, "Train").click().run()
    assert "existing path" in app.error[0].value and app.text_input(key="train-path").value == missing
    app.text_input(key="train-path").set_value("/no/such/folder").run()
    button(app, "Train").click().run()
    assert "lies outside" in app.error[0].value and app.text_input(key="train-path").value == "/no/such/folder"
    assert not list_runs(folder)


def test_a_folder_of_runs_that_cannot_be_written_is_said_in_words(folder, no_worker):
    folder.write_text("no folder")
    app = page()
    button(app, "Train").click().run()
    assert not app.exception and "cannot be used" in app.error[0].value
    app.selectbox(key="data").select("my own images").run()
    app.get("file_uploader")[0].set_value(("mine.zip", b"PK", "application/zip")).run()
    assert not app.exception and "cannot be used" in app.error[0].value


def test_the_size_of_the_training_and_the_time_of_each_preset(folder, no_worker, monkeypatch):
    monkeypatch.setattr(timing, "measure", lambda config, _: timing.StepTime(config.nz / 100, "abacus", "guessed"))
    app = page()
    assert any("700 steps on 1,297 images. How long" in caption.value for caption in app.caption)
    button(app, "Time the presets on this machine").click().run()
    assert any(
        "tiny about 4 min, small about 27 min, fast64 about 4 min, paper about 9 min" in caption.value
        for caption in app.caption
    )
    button(app, "Measure how long it takes here").click().run()
    assert any("**about 4 min** of training on this machine (abacus; guessed)" in text.value for text in app.markdown)
    app.number_input(key="hp-batch_size").set_value(2000).run()
    assert not app.exception and "do not fill one batch" in app.warning[0].value


def test_an_uploaded_archive_is_kept_among_the_runs(folder, no_worker, tmp_path):
    picture, archive = io.BytesIO(), io.BytesIO()
    Image.new("L", (32, 32), 90).save(picture, "PNG")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.png", picture.getvalue())
    app = page(data="my own images")
    app.get("file_uploader")[0].set_value(("mine.zip", archive.getvalue(), "application/zip")).run()
    button(app, "Train").click().run()
    assert not app.exception and not app.error
    (run,) = list_runs(folder).values()
    assert Path(RunSpec.read(run).dataset).parent == (folder / "uploads").resolve()


def test_a_set_that_is_not_here_says_how_to_get_it(folder, no_worker):
    app = page(data="mnist")
    assert "--download mnist" in app.code[0].value
    assert button(app, "Train").disabled


def test_a_preset_fills_the_form_and_a_data_set_only_what_suits_it(folder, no_worker):
    app = page()
    app.number_input(key="hp-nz").set_value(48).run()
    app.selectbox(key="data").select("photos").run()
    assert (app.number_input(key="hp-nz").value, app.selectbox(key="hp-channels").value) == (48, 3)
    app.selectbox(key="preset").select("paper").run()
    assert (app.number_input(key="hp-nz").value, app.number_input(key="hp-lr").value) == (128, 3e-4)
    assert page(preset="small").number_input(key="hp-nz").value == 64


def test_states_buttons_and_deleting(folder, no_worker, tiny_config):
    spec = RunSpec("digits", tiny_config)
    progress = {"step": 30, "total_steps": 100, "images_per_s": 123.4, "eta_s": 60.0, "device": "CPU, 1 thread"}
    stored(folder, "gone", {"state": "running", "pid": 2**22 + 5, **progress}, spec)
    stored(folder, "waits", {"state": "queued", "submitted": 1.0}, spec)
    app = page(run="gone")
    assert not app.exception
    rows = table(app)
    assert (rows.loc["gone", "State"], rows.loc["waits", "State"]) == ("interrupted", "queued, number 1")
    assert rows.loc["gone", "Progress"] == 0.3 and rows.loc["gone", "Device"] == "CPU, 1 thread"
    button(app, "Resume").click().run()
    assert table(app).loc["gone", "State"] == "queued, number 2"
    button(app, "Stop").click().run()
    assert table(app).loc["gone", "State"] == "stopped"
    button(app, "Yes, delete gone").click().run()
    assert not app.exception and list(table(app).index) == ["waits"]
    assert not (folder / "gone").exists()


def test_a_run_that_measures_says_how_far_it_is_and_can_be_stopped(folder, no_worker, tiny_config, monkeypatch):
    monkeypatch.setattr(Status, "is_alive", lambda status: True)
    status = {"state": "measuring", "step": 9, "total_steps": 9, "measured_sets": 3, "sets_to_measure": 12, "measuring": "_a_"}
    status |= {"set_number": 3, "sets": 7}
    stored(folder, "seen", {**status, **this_process()}, RunSpec("digits", tiny_config))
    app = page(run="seen")
    assert not app.exception
    assert [bar.proto.text for bar in app.get("progress")] == ["step 9 of 9", r"measuring, set 3 of 7: \_a\_"]
    assert app.get("progress")[1].proto.value == 25
    assert not button(app, "Pause").disabled and not button(app, "Stop").disabled and button(app, "Resume").disabled
    button(app, "Stop").click().run()
    assert not app.exception and not app.error and stop_asked(folder / "seen") == "stop"
    assert table(app).loc["seen", "State"] == "stopping"


def test_measuring_counts_its_sets_and_ends_when_asked_and_goes_on(tmp_path, tiny_config, monkeypatch):
    monkeypatch.setattr(evaluation, "available_sets", lambda: ["digits", "gradients", "textures"])
    monkeypatch.setitem(sys.modules, "umap", None)  # compiling it would take half a minute
    spec, seen = RunSpec("digits", tiny_config.replace(max_steps=3)), []

    def progress(done: int, total: int, name: str) -> None:
        seen.append(json.loads((tmp_path / "run" / "status.json").read_text()))
        if len(seen) == 12:
            queue.stop(tmp_path / "run")

    monkeypatch.setattr(Status, "is_alive", lambda status: True)  # the run is this process, which does not count as one
    with pytest.raises(runs.RunStopped, match="measuring"):
        runs.execute(tmp_path / "run", spec, claimed=True, device="cpu", on_progress=progress)
    assert read_status(tmp_path / "run")["state"] == "stopped"
    monkeypatch.undo()
    monkeypatch.setattr(evaluation, "available_sets", lambda: ["digits", "gradients", "textures"])
    monkeypatch.setitem(sys.modules, "umap", None)

    seen.clear()
    statuses = lambda *_: seen.append(json.loads((tmp_path / "run" / "status.json").read_text()))  # noqa: E731
    runs.execute(tmp_path / "run", spec, device="cpu", resume=True, on_progress=statuses)
    counts = [status["measured_sets"] for status in seen]
    assert counts == sorted(counts) and set(counts) == set(range(1 + seen[0]["sets_to_measure"])), "up to the last, one by one"
    assert {"digits", "gradients", "textures"} <= {status.get("measuring") for status in seen}
    assert read_status(tmp_path / "run")["state"] == "finished" and (tmp_path / "run" / "response.json").exists()


def test_the_first_event_of_a_run_is_drawn(folder, no_worker, tiny_config):
    run = stored(folder, "young", {"state": "stopped", "step": 1, "total_steps": 9}, RunSpec("digits", tiny_config))
    first = {"kind": "progress", "step": 1, "total_steps": 9, "loss_critic": 1.5, "wasserstein": 2.0, "z_ratio": 0.5}
    (run / "metrics.jsonl").write_text(json.dumps(first))
    app = page(run="young")
    assert not app.exception
    alts = [chart.proto.alt for chart in app.get("plotly_chart")]
    assert any(alt.startswith("Losses over the steps") for alt in alts) and any("‖z‖ / √d 0.5" in alt for alt in alts)


def test_a_training_whose_differences_are_rounded_away_says_so(folder, no_worker, tiny_config):
    warning = "The critic's differences are about 5.8, and rounding moves them by 19. Train again with lambda_drift=0.001."
    stored(folder, "long", {"state": "finished", "warning": warning}, RunSpec("digits", tiny_config))
    stored(folder, "short", {"state": "finished"}, RunSpec("digits", tiny_config))
    (shown,) = page(run="long").warning
    assert shown.value.replace("\\", "") == warning
    assert not page(run="short").warning


def test_damaged_and_failed_runs_do_not_break_the_page(folder, no_worker, tiny_config):
    spec = RunSpec("digits", tiny_config)
    stored(folder, "failed", {"state": "failed", "error": "Training diverged at step 3."}, spec)
    damaged = stored(folder, "damaged", {"state": "stopped"}, spec)
    (damaged / "status.json").write_text("{")
    (damaged / "run.json").write_text("[]")
    for name in ("failed", "damaged"):
        app = page(run=name)
        assert not app.exception
        assert set(table(app)["State"]) == {"failed", "damaged"}
    assert any("Training diverged" in error.value for error in page(run="failed").error)


def test_a_run_that_is_not_there_is_said_to_be_missing(folder, no_worker, tiny_config):
    for name in ("a", "b"):
        stored(folder, name, {"state": "stopped"}, RunSpec("digits", tiny_config))
    app = page(run="no_such")
    (said,) = [warning.value for warning in app.warning if "no run called no\\_such" in warning.value]
    assert f"this shows **{app.selectbox(key='run').value}**" in said
    assert "run" not in app.query_params  # Streamlit drops it, and the page, reconstructed by itself, goes on to say it
    assert "no run called" in words(app.run())
    other = next(name for name in ("a", "b") if name != app.selectbox(key="run").value)
    assert "no run called" not in words(app.selectbox(key="run").set_value(other).run())
    assert "no run called" not in words(page(run="b"))
    app = page(run="b")
    button(app, "Yes, delete b").click().run()
    assert not app.exception and "no run called" not in words(app), "of what was just deleted nothing need be said"


def test_names_are_shown_as_they_are_and_fit_a_legend(folder, no_worker, tiny_config, monkeypatch):
    odd, long = "modèle ☃ _x_ $5 <b>y", "n" * 40 + "-" + "m" * 40
    for name in (odd, long):
        run = stored(folder, name, {"state": "stopped"}, RunSpec("digits", tiny_config))
        line = {"kind": "progress", "step": 1, "total_steps": 9, "images_per_s": 1.0}
        (run / "metrics.jsonl").write_text("\n".join(json.dumps(line | {"step": step}) for step in (1, 2)))
    monkeypatch.setattr(timing, "known", lambda *_: timing.StepTime(0.1, "one core", f"as the run {odd} took"))
    app = page(compare=[odd, long], value="speed")
    assert not app.exception
    (said,) = [text.value for text in app.markdown if "as the run" in text.value]
    assert r"\_x\_ \$5 \<b\>y took" in said
    names = [trace["name"] for trace in json.loads(app.get("plotly_chart")[-1].proto.spec)["data"]]
    assert "modèle ☃ _x_ $5 &lt;b&gt;y" in names and all(len(name) < 50 for name in names)
    assert any(name.startswith("nnn") and name.endswith("mmm") for name in names), "both ends tell it from others"


def test_runs_are_compared_on_one_chart(folder, no_worker, tiny_config):
    for name in ("a", "b"):
        run = stored(folder, name, {"state": "stopped"}, RunSpec("digits", tiny_config))
        lines = [{"kind": "progress", "step": s, "total_steps": 9, "images_per_s": s / 7} for s in range(1, 9)]
        (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    app = page(compare="b", value="speed")
    chart = app.get("plotly_chart")[-1].proto.spec
    assert '"name":"b"' in chart and '"name":"a"' not in chart
    app.multiselect(key="compare").set_value(["a", "b"]).run()
    chart = app.get("plotly_chart")[-1].proto.spec
    assert '"name":"b"' in chart and '"name":"a"' in chart


# The run that is looked at


@pytest.fixture
def watched(folder, no_worker, tiny_config):
    """A run that was watched against `textures` for four looks, R below chance at the last one."""
    run = stored(
        folder, "seen", {"state": "stopped", "step": 4, "total_steps": 9}, RunSpec("digits", tiny_config, watch="textures")
    )
    values = {1: (0.5, 0.51), 2: (0.45, 0.6), 4: (0.2, 0.9)}
    lines = [{"kind": "watch", "step": s, "total_steps": 9, "watched_R": r, "watched_A": a} for s, (r, a) in values.items()]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rng = np.random.default_rng(0)
    (run / "watched").mkdir()
    for step in values:
        arrays = {
            f"{score}/{kind}": rng.uniform(1, 2, 30) * (1 + place)
            for score in "RA"
            for place, kind in enumerate(("normal", "others"))
        }
        np.savez(run / "watched" / f"step-{step:07d}.npz", **arrays)
        Image.new("L", (256, 64), 20 * step).save(run / "watched" / f"step-{step:07d}.png")
    return run


def test_a_watched_run_shows_images_density_and_auroc_with_a_verdict(watched):
    app = page()
    assert not app.exception and app.selectbox(key="run").value == "seen"
    said = words(app)
    verdict = next(line for line in said.splitlines() if "Step 4, against" in line)
    assert "R finds them *more normal* than normal images in 80 of 100 pairs (AUROC 0.20)" in verdict
    assert "A finds them more anomalous in 90 of 100 pairs" in verdict and "R is wrong here" in verdict
    alts = [chart.proto.alt for chart in app.get("plotly_chart")]
    assert any(alt.startswith("AUROC against") and "newest: R 0.200, A 0.900" in alt for alt in alts)
    (density,) = [chart for chart in app.get("plotly_chart") if chart.proto.alt.startswith("Densities of R")]
    assert "after step 4" in density.proto.alt and "step 4" in density.proto.spec
    assert "after step 4" in said and "the raw score" in said and "30 images against 30 held-out" in said
    app.select_slider(key="sample-seen").set_value(1).run()
    (density,) = [chart for chart in app.get("plotly_chart") if chart.proto.alt.startswith("Densities of R")]
    assert "after step 1" in density.proto.alt and "after step 1" in words(app)
    verdict = next(line for line in words(app).splitlines() if "Step 4, against" in line)  # the newest, always
    assert verdict


def test_a_damaged_look_is_a_sentence(watched):
    (watched / "watched" / "step-0000004.npz").write_bytes(b"half")
    app = page()
    assert not app.exception and any("step-0000004.npz is damaged" in error.value for error in app.error)


def test_a_run_just_queued_is_the_one_that_is_shown(watched):
    app = page()
    assert app.selectbox(key="run").value == "seen"
    button(app, "Train").click().run()
    assert not app.exception and not app.error
    assert app.selectbox(key="run").value == "digits-tiny" and "was queued" in app.success[0].value
    assert app.session_state["run"] == "digits-tiny"


def test_measuring_can_be_skipped_from_the_page(folder, no_worker, tiny_config, monkeypatch):
    monkeypatch.setattr(Status, "is_alive", lambda status: True)
    status = {"state": "measuring", "step": 9, "total_steps": 9, "measured_sets": 3, "sets_to_measure": 12}
    run = stored(folder, "seen", {**status, **this_process()}, RunSpec("digits", tiny_config))
    app = page(run="seen")
    button(app, "Skip the rest").click().run()
    assert not app.exception and not app.error and skip_asked(run)
    assert button(app, "Skip the rest").disabled
    write_status(run, {"state": "finished"})
    assert not [b for b in page(run="seen").button if b.label == "Skip the rest"]
    with pytest.raises(ConfigError, match="measuring"):
        queue.skip(run)


# The form


def test_three_plain_controls_and_no_marks(folder, no_worker):
    app = page()
    plain = app.selectbox(key="preset"), app.number_input(key="hp-max_steps"), app.selectbox(key="hp-atypical")
    assert [widget.label for widget in plain] == ["Size", "Length: training steps", "Negatives"]
    assert app.number_input(key="hp-nz").label == "Numbers in a code"
    helps = [widget.help or "" for kind in (app.selectbox, app.number_input, app.text_input) for widget in kind]
    shown = words(app) + "".join(helps)
    assert "In the released code: 128." in shown
    assert not re.search(r"\[[PCD]\]", shown)
    app.selectbox(key="hp-atypical").set_value("none")
    app.number_input(key="hp-max_steps").set_value(50).run()
    assert "Changed from the preset: Length: training steps: 50; Negatives: none: normal images alone." in words(app)
    button(app, "Train").click().run()
    config = RunSpec.read(folder / "digits-tiny").config
    assert (config.atypical, config.max_steps) == ("none", 50)


def test_what_it_is_watched_against_follows_the_data_and_can_be_left_out(folder, no_worker):
    app = page(data="photos")
    assert app.selectbox(key="train-watch").value == "house_numbers"
    app.selectbox(key="train-watch").set_value("noise").run()
    app.number_input(key="hp-nz").set_value(16).run()
    assert app.selectbox(key="train-watch").value == "noise", "a choice stays"
    app.selectbox(key="data").set_value("digits").run()
    assert app.selectbox(key="train-watch").value != "digits"
    app.selectbox(key="train-watch").set_value(None).run()
    button(app, "Train").click().run()
    assert not app.error and RunSpec.read(folder / "digits-tiny").watch is None


def test_a_detector_whose_scores_are_slow_is_not_watched(folder, no_worker):
    app = page()
    for name in ("anogan", "pca"):
        app.selectbox(key="detector").set_value(registry.detector_class(name).title).run()
        assert not app.exception and "train-watch" not in [box.key for box in app.selectbox]
    app.selectbox(key="detector").set_value(registry.detector_class("deepsvdd").title).run()
    assert "train-watch" in [box.key for box in app.selectbox]


def test_thirty_photographs_can_be_trained_on_and_the_page_says_what_they_allow(folder, no_worker, tmp_path, monkeypatch):
    monkeypatch.setenv("AMA_DATA_ROOTS", str(tmp_path))
    rng = np.random.default_rng(0)
    for name, n in (("good", 30), ("bad", 4)):
        (tmp_path / name).mkdir()
        for i in range(n):
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    app = page(data="my own images")
    app.text_input(key="train-path").set_value(str(tmp_path / "good")).run()
    assert not app.warning and not app.error
    assert app.number_input(key="hp-batch_size").value == 6 and app.number_input(key="hp-calibration_fraction").value == 0.5
    assert "6 of them can be set aside" in words(app) and "1/7 = 14 %" in words(app)
    app.text_input(key="train-watch-path").set_value(str(tmp_path / "bad")).run()
    button(app, "Train").click().run()
    assert not app.error and not app.exception
    spec = RunSpec.read(folder / "my-own-images-tiny")
    assert spec.watch == str(tmp_path / "bad") and spec.anomalies is None and spec.validate_ood is None
    app.selectbox(key="detector").set_value(registry.detector_class("nearest").title).run()
    app.selectbox(key="data").set_value("my own images").run()
    button(app, "Train").click().run()
    assert not app.error and RunSpec.read(folder / "my-own-images-nearest").watch == str(tmp_path / "bad")
    app.selectbox(key="detector").set_value(registry.detector_class("ama").title).run()
    app.selectbox(key="data").set_value("digits").run()
    assert app.number_input(key="hp-batch_size").value == 64


# The paper's first row


def test_the_paper_s_first_row_is_queued_as_two_runs_and_drawn_towards_its_lines(folder, no_worker, monkeypatch):
    monkeypatch.syspath_prepend(str(APP))
    app = page()
    assert "--download fashionmnist mnist" in "".join(code.value for code in app.code)
    from training import paper_row

    monkeypatch.setattr(paper_row, "available", lambda name: ("train", "test"))
    monkeypatch.setattr(queue, "check", lambda spec: None)
    app = page()
    app.button(key="paper-row").click().run()
    assert not app.exception and not app.error
    specs = {RunSpec.read(path).config.reconstruction: path for path in list_runs(folder).values()}
    assert set(specs) == {"mirrored", "plain"}
    for path in specs.values():
        spec = RunSpec.read(path)
        assert (spec.dataset, spec.watch, spec.config.max_steps) == ("fashionmnist", "mnist", 2000)
    assert "paper-row" not in [b.key for b in app.button], "both are there"
    for kind, auroc in (("mirrored", 0.95), ("plain", 0.65)):
        lines = [{"kind": "watch", "step": s, "total_steps": 2000, "watched_A": auroc} for s in (1, 100)]
        (specs[kind] / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    app = page()
    assert not app.exception
    (chart,) = [chart for chart in app.get("plotly_chart") if chart.proto.alt.startswith("AUROC of A of the mirrored")]
    shapes = json.loads(chart.proto.spec)["layout"]["shapes"]
    assert [shape["y0"] for shape in shapes] == [0.987, 0.653]
    said = words(app)
    assert "mirrored 0.950 after 100 of 2,000 steps, 0.037 below the paper's 0.987" in said
    assert "plain 0.650 after 100 of 2,000 steps, the paper's 0.653" in said
    queue.delete(specs["plain"])
    assert button(page(), "Train the plain one")


def test_the_paper_s_first_row_says_what_is_stored_of_its_length_and_nothing_else(folder, no_worker, monkeypatch):
    monkeypatch.syspath_prepend(str(APP))
    import paper_tables

    def run(kind, steps, seed, a, t):
        return LengthRun("fashionmnist", kind, steps, seed, {"mnist": {"A": a, "T": t}, "digits": {"A": 0.123, "T": 0.123}})

    runs = [run("mirrored", 2000, 0, 0.7, 0.99), run("mirrored", 2000, 1, 0.8, 0.97), run("plain", 2000, 0, 0.6, 0.4)]
    runs += [run("mirrored", 500, 0, 0.123, 0.123)]
    monkeypatch.setattr(paper_tables, "training_lengths", lambda: runs)
    said = words(page())
    assert "mirrored A 0.750 ± 0.071 and T 0.980 ± 0.014 (2 trainings); plain A 0.600 and T 0.400 (1 training)." in said
    assert "0.123" not in said and "0.671" not in said
    monkeypatch.setattr(paper_tables, "training_lengths", lambda: runs[3:])
    said = words(page())
    assert "without it (plain)." in said and "stored trainings" not in said
