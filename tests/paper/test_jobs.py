"""The tables by command: what is declared, trained, interrupted, stored, and how the report reads it."""

import dataclasses
import io
import itertools
import json
from statistics import mean, stdev

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from ama_core import AMADetector, Config
from ama_core.cli.main import main
from ama_core.data import hold_out, load, one_class
from ama_core.detectors.ama.scores import SCORES
from ama_core.detectors.autoencoder import AutoencoderDetector, AutoencoderSettings
from ama_core.detectors.lossless_length import lossless_length
from ama_core.detectors.pixel_mean import PixelMeanDetector, PixelMeanSettings, pixel_mean
from ama_core.errors import BundleError, ConfigError
from ama_core.evaluation import protocol as evaluation
from ama_core.paper import jobs as benchmark
from ama_core.paper import published as paper
from ama_core.paper import rows, training
from ama_core.paper.jobs import Job, plan
from ama_core.paper.lengths import read_lengths
from ama_core.paper.records import RESULTS, read_results, scores_folder
from ama_core.paper.report import condition_letters, report
from ama_core.paper.rivals import bundled_entries
from ama_core.paper.tables import lines
from ama_core.runs import execute as runs
from ama_core.runs import processes
from ama_core.storage.bundle import read_scores
from tests.common import CPU, TINY
from tests.paper.records import record
from tests.runs.reading import read_log, read_status

SETTINGS = {key: str(value) for key, value in (TINY | {"max_steps": 3}).items() if key not in ("channels", "fit")}


def job(row=paper.AMA, normal="digits", label=3, ood=("rest",), steps=3, seed=0, **more) -> Job:
    table = "table1" if label is None else "table2"
    return Job(table, row, normal, label, ood, "tiny", SETTINGS | {"max_steps": str(steps)}, seed, **more)


def cells_of(text: str, start: str) -> list[str]:
    """The cells of the table line that starts like this, in the last table that has one."""
    line = [line for line in text.splitlines() if line.startswith(f"| {start} |")][-1]
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture
def digits_only(monkeypatch):
    """Tables of one class that exists and one that does not."""
    monkeypatch.setattr(benchmark, "tasks", lambda table: [("digits", 77, ("rest",)), ("digits", 3, ("rest",))])


def test_conditions_have_letters_also_beyond_the_alphabet():
    found = condition_letters([record(condition=f"c{i:02d}") for i in range(29)])
    assert list(found.values()) == [*"abcdefghijklmnopqrstuvwxyz", "z1", "z2", "z3"] and found["c26"] == "z1"


def test_every_stored_result_belongs_to_a_job_of_the_command_that_made_it():
    """Else a setting that came later, or a new default, would train everything again."""
    stored = read_results(RESULTS)
    assert stored
    for table, preset, settings in {(r.table, r.preset, tuple(r.settings.items())) for r in stored}:
        own = {r.name: r for r in stored if (r.table, r.preset, tuple(r.settings.items())) == (table, preset, settings)}
        jobs = {job.name for job in plan([table], preset, dict(settings), 1 + max(r.seed for r in own.values()))}
        assert not own.keys() - jobs


def test_a_stored_result_says_by_which_settings_it_was_trained_and_its_command_asks_for_them():
    for stored in read_results(RESULTS):
        if stored.table in rows.RIVAL_TABLES:
            continue
        config = Config.preset(stored.preset, **stored.settings)
        assert config.lambda_drift == stored.config.get("lambda_drift", 0.0) and config.max_steps == stored.config["max_steps"]
        words = stored.command.split()
        given = dict(after.split("=") for word, after in itertools.pairwise(words) if word == "--set")
        assert given == stored.settings, stored.name


def test_what_the_preset_has_anyway_is_no_setting_of_a_job():
    short, long = (plan(["table2"], settings={"max_steps": "2000"} | more) for more in ({}, {"lambda_drift": "1e-3"}))
    assert short == long and short[0].settings == {"max_steps": "2000"}
    assert plan(["table2"], settings={"lambda_drift": "0"})[0].settings == {"lambda_drift": "0"}


def test_tasks_are_the_papers_with_stand_ins_and_ours_beside():
    found = {normal: ood for normal, _, ood in rows.tasks("table1")}
    assert found["fashionmnist"] == ("mnist", "omniglot")
    assert found["cifar10"] == ("svhn", "tinyimagenet", "cifar100", "gtsrb", "house_numbers")
    assert found["svhn"] == ("cifar10", "tinyimagenet", "cifar100")
    assert len(rows.tasks("table2")) == 20


def test_rows_change_what_they_say_and_share_a_condition():
    jobs = {(j.row, j.normal, j.few_from): j for j in plan(["table1", "ablations"], settings={"nz": "16"})}
    ama = jobs[paper.AMA, "cifar10", None]
    assert ama.table == "table1" and ama.config.nz == 16 and ama.config.channels == 3
    for row in paper.ABLATIONS[:3]:
        config = jobs[row, "cifar10", None].config
        assert paper.variant(config) == row
        assert config.replace(**{key: getattr(ama.config, key) for key in rows.ROWS[row].changes}) == ama.config
    assert jobs[rows.RELEASED, "cifar10", None].config.mode == "released"
    assert (rows.OUTWARD, "cifar10", None) not in jobs, "that is the AMA row of preset tiny"
    assert jobs[rows.INWARD, "cifar10", None].config.atypical == "inward"
    assert jobs[rows.SEMI, "fashionmnist", "mnist"].ood == ("mnist",)
    assert {j.condition for j in jobs.values()} == {ama.condition}, "over rows and sets"
    assert plan(["table1"], seeds=2)[-1].condition != ama.condition == plan(["table1"], settings={"nz": "16"})[0].condition
    assert len({j.name for j in jobs.values()}) == len(jobs)
    assert Job.from_json(ama.to_json()) == ama


def test_seeds_and_patterns():
    jobs = plan(["table2"], seeds=2, only=["ama-mnist-[0-2]"])
    assert [(j.label, j.seed) for j in jobs] == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)], "one seed of all first"
    assert all(j.config.seed == j.seed for j in jobs)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"tables": ["table3"]}, "no table table3"),
        ({"settings": {"seed": "3"}}, "seed cannot be set"),
        ({"settings": {"reconstruction": "plain"}}, "reconstruction cannot be set"),
        ({"settings": {"lambda_inter": "0"}}, "another row"),
        ({"settings": {"wings": "2"}}, "Unknown hyper-parameter wings"),
        ({"only": ["nothing"]}, "names no training"),
        ({"seeds": 0}, "0 seeds"),
    ],
)
def test_a_plan_that_would_mislead_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        plan(**{"tables": ["table1"], **options})


def test_what_is_not_available_is_said():
    (ama, *_) = plan(["table1"], only=["ama-svhn"])
    assert "svhn (train)" in ama.missing()
    assert job().missing() is None
    assert job(label=None, ood=("svhn", "gradients")).measurable() == ("gradients",)
    assert "svhn (test)" in job(label=None, ood=("svhn",)).missing()


@pytest.mark.parametrize(
    "preset, steps, n, expected",
    [
        ("paper", 17600, 45_000, "full"),
        ("paper", 1700, 45_000, "reduced"),
        ("tiny", 10**6, 6000, "reduced"),
        ("paper", 199, 1, "smoke"),
    ],
)
def test_status(preset, steps, n, expected):
    assert (
        training.job_status(
            Job("table1", paper.AMA, "cifar10", None, ("gtsrb",), preset, {}, 0), {"steps": steps, "n_train": n}
        )
        == expected
    )


def test_the_command_trains_stores_reports_and_skips(digits_only, tmp_path, capsys):
    words = ["benchmark", "table2", "--only", "ama", "--out", str(tmp_path / "out"), "--results", str(tmp_path / "results")]
    words += [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")] + ["--device", "cpu"]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "ama-digits-77 seed 0 failed" in err and "there is no 77" in err and "1 of 2 trainings failed" in err
    assert "ama-digits-3 seed 0 stored   rest A" in err, "the others go on"

    (stored,) = read_results(tmp_path / "results")
    assert (stored.table, stored.row, stored.normal, stored.label, stored.seed) == ("table2", paper.AMA, "digits", 3, 0)
    assert (stored.status, stored.steps, stored.mode, stored.precision) == ("smoke", 3, "paper", "fp32")
    assert stored.width == {"encoder": 8, "generator": 8, "critic": 8} and stored.config["nz"] == 8
    assert stored.epochs == pytest.approx(3 * 16 / stored.n_images, abs=1e-3) and stored.versions["torch"]
    detector = AMADetector.load(next((tmp_path / "out").glob("*-3-*")), device=CPU)
    (row,) = evaluation.evaluate(detector, ["rest"])["results"]
    assert (stored.results[0].n_normal, stored.results[0].n_ood) == (row["n_normal"], row["n_ood"])
    for by in SCORES:
        assert stored.results[0].scores[by] == pytest.approx(row["scores"][by], abs=1e-6)
    behind = read_scores(scores_folder(stored, tmp_path / "results"))
    assert [(s.name, s.n) for s in behind] == [("digits", row["n_normal"]), ("rest", row["n_ood"])]
    for by, auroc in evaluation.stored_aurocs(detector, behind)["rest"].items():
        assert auroc == pytest.approx(row["scores"][by]["auroc"], abs=1e-4), "the scores behind the figures"
    assert (tmp_path / "RESULTS.md").read_text() == report([stored])

    assert main([*words[:3], "ama-digits-3", *words[4:]]) == 0
    assert "0 to train" in capsys.readouterr().err
    assert main([*words, "--list"]) == 0
    assert "stored" in capsys.readouterr().out


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "POLL_SECONDS", 0.02)  # so that it is seen before it ends
    one = job(steps=80)
    folder, results = tmp_path / "out" / one.name, tmp_path / "results"

    def end_by(error):
        def interrupt(progress):
            if progress.done > 0:
                raise error

        training.train_all([one], tmp_path / "out", results, parallel=1, device="cpu", on_progress=interrupt)

    with pytest.raises(ZeroDivisionError):
        end_by(ZeroDivisionError())  # any fault of ours: no training may go on that nobody looks after
    assert read_status(folder)["state"] == "stopped"
    with pytest.raises(runs.RunStopped, match="the same command continues"):
        end_by(KeyboardInterrupt())  # as Ctrl-C does
    assert read_status(folder)["state"] == "stopped" and not list(results.glob("*"))
    seen = []
    assert training.train_all([one], tmp_path / "out", results, parallel=1, device="cpu", on_progress=seen.append) == []
    assert "continues at step" in read_log(folder) and read_results(results)[0].steps == 80
    assert [p.what for p in seen if p.job] == ["started", "stored"] and max(p.done for p in seen) == 1


def test_validated_stands_beside_the_last_step(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(training, "DENSITY_SAMPLE", 7)
    one = job(label=None, ood=("gradients",), validate=True)
    stored = training.carry_out(one, tmp_path / "out", tmp_path / "results", "cpu")
    assert stored.validation_ood == "gradients"
    validation, untested = evaluation.choose_validation_anomalies("gradients", 0)
    detector = AMADetector(one.config, device=CPU).fit(
        digits.images, validation_anomalies=validation.images, select="validated"
    )
    detector.info_["normal"] = {"name": "digits", "source": "digits", "label": None, "validation_ood": "gradients"}
    (row,) = evaluation.evaluate(detector, ["gradients"])["results"]
    assert stored.against("gradients").validated["A"] == pytest.approx(row["scores"]["A"], abs=1e-6)
    assert [s.n for s in read_scores(scores_folder(stored, tmp_path / "results"))] == [7, 7]
    again = training.carry_out(one, tmp_path / "out", tmp_path / "results", "cpu")
    assert again.against("gradients") == stored.against("gradients"), "measured again without training"


def test_a_few_real_anomalies(tmp_path):
    one = job(rows.SEMI, label=None, ood=("textures",), few_from="textures")
    stored = training.carry_out(one, tmp_path / "out", tmp_path / "results", "cpu")
    assert stored.few_anomalies == {"source": "textures", "n": 50} and stored.against("textures").n_ood > 0
    (folder,) = (tmp_path / "out" / "anomalies").glob("*")
    files = sorted((folder / "train").glob("*.png"))
    train = load("textures", "train").images
    assert len(files) == 50 and all((train == np.asarray(Image.open(file))).all(axis=(1, 2, 3)).any() for file in files[:5])


def test_the_few_real_anomalies_that_jobs_share_are_whole_and_counted(tmp_path, monkeypatch):
    out, results = tmp_path / "out", tmp_path / "results"
    save = Image.Image.save

    def cut(image, target, *given, **more):  # as by a process that is killed while it writes
        data = io.BytesIO()
        save(image, data, "PNG")
        half = data.getvalue()[: len(data.getvalue()) // 2]
        target.write(half) if hasattr(target, "write") else target.write_bytes(half)
        raise KeyboardInterrupt

    jobs = [job(rows.SEMI, normal, label=None, ood=("textures",), few_from="textures") for normal in ("digits", "photos")]
    few = load("textures", "train").take(np.arange(7))
    known = training.load_any
    monkeypatch.setattr(training, "load_any", lambda name, *a, **b: few if name == "textures" else known(name, *a, **b))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Image.Image, "save", cut)
        training.carry_out(jobs[0], out, results, "cpu")
    assert not list(out.glob("anomalies/*/train/*.png")), "no half image that another job would read"
    assert training.carry_out(jobs[0], out, results, "cpu").few_anomalies == {"source": "textures", "n": 7}
    first = {file: file.stat().st_ino for file in out.glob("anomalies/*/train/*.png")}
    assert len(first) == 7
    training.carry_out(jobs[1], out, results, "cpu")
    assert {file: file.stat().st_ino for file in out.glob("anomalies/*/train/*.png")} == first, "not written again"


def test_simple_scores_against_numpy(digits):
    images = digits.images[:40]
    values = pixel_mean(images)
    np.testing.assert_allclose(values, images.reshape(40, -1).astype(float).mean(axis=1))
    fitted = PixelMeanDetector(PixelMeanSettings(channels=1))
    fitted.fit_statistics(images[:9], images[9:])
    found = fitted.raw_scores(images)["brightness"]
    np.testing.assert_allclose(found, abs(values - np.mean(values[:9])) / np.std(values[:9]))
    fitted.fit_statistics(np.full((4, 32, 32, 1), 3, np.uint8), images)  # a statistic that does not vary counts as it is
    assert (fitted.raw_scores(np.stack([np.full((32, 32, 1), v, np.uint8) for v in (3, 5)]))["brightness"] == [0, 2]).all()
    buffer = io.BytesIO()
    Image.fromarray(images[0, ..., 0]).save(buffer, "PNG", optimize=True)
    assert lossless_length(images[:1], "PNG") == len(buffer.getvalue())
    flat, noise = np.zeros((1, 32, 32, 3), np.uint8), load("noise", "test").images[:1]
    assert lossless_length(flat) < lossless_length(noise)


def l2_score(digits, config):
    return AutoencoderDetector(AutoencoderSettings.like(config), device=CPU, verbose=False).fit(digits.images).anomaly_score


def test_the_l2_autoencoder_learns_and_repeats(digits, tiny_config):
    config = tiny_config.replace(max_steps=150, lr=3e-3)
    score = l2_score(digits, config)
    seen, noise = digits.images[:100], np.random.default_rng(0).integers(0, 256, (100, 32, 32, 1), dtype=np.uint8)
    x = seen.astype(np.float64) / 127.5 - 1
    assert score(seen).mean() < 0.7 * ((x - x.mean(axis=0)) ** 2).mean(), "better than the mean image"
    assert score(noise).min() > score(seen).max()
    first, second = (l2_score(digits, config.replace(max_steps=3))(seen) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_the_row_of_simple_methods_under_the_protocol(tmp_path):
    stored = training.carry_out(job(rows.SIMPLE_ROW), tmp_path / "out", tmp_path / "results", "cpu")
    train, test = one_class(load("digits", "train"), 3), load("digits", "test")
    reference = train.images[hold_out(len(train), 0.1, 0).train].mean(axis=(1, 2, 3))
    distance = abs(test.images.mean(axis=(1, 2, 3)) - reference.mean())
    (row,) = stored.results
    assert row.scores["pixel mean"]["auroc"] == pytest.approx(roc_auc_score(test.labels != 3, distance))
    assert set(row.scores) == {"pixel mean", "lossless length", "L2 autoencoder"}, "the names of earlier results"
    assert stored.codec.endswith("lossless") and stored.n_images == len(reference)
    whole = training.carry_out(job(rows.SIMPLE_ROW, label=None, ood=("gradients",)), tmp_path, tmp_path / "results", "cpu")
    assert whole.against("gradients").n_ood == round(0.2 * len(test))


def test_results_survive_the_disk_and_damage_is_named(tmp_path):
    (tmp_path / "one.json").write_text(json.dumps(dataclasses.asdict(record(label=4))))
    assert read_results(tmp_path) == [record(label=4)]
    for text in ("{", "[]", json.dumps(dataclasses.asdict(record(label=4)) | {"schema": 9})):
        (tmp_path / "one.json").write_text(text)
        with pytest.raises(BundleError, match="one.json"):
            read_results(tmp_path)


def test_mean_and_sd_over_seeds_by_hand():
    found = [record(label=0, seed=seed, a=a) for seed, a in enumerate((0.90, 0.96, 0.93))]
    line = next(line for line in lines("table2", found) if line.ours)
    assert line.seeds == (0, 1, 2) and line.paper == paper.table2("mnist", 0) == 0.986
    assert line.ours["A"] == pytest.approx((0.93, 0.03)) and line.ours["R"] == pytest.approx((0.11, 0.0))
    cells = cells_of(report(found), "MNIST → 0")
    assert cells[1:6] == ["0.986", "0.110 ± 0.000", "0.930 ± 0.030", "0.220 ± 0.000", "0.600 ± 0.000"]
    assert cells[-3:] == ["3", "100 / 20", "reduced (a)"]


def test_the_mean_over_classes_is_taken_seed_by_seed(rng):
    values = rng.uniform(0.5, 1, (2, 10)).round(3)
    found = [record(label=c, seed=s, a=float(values[s, c])) for s in range(2) for c in range(10)]
    found.append(record(label=0, seed=2, a=0.1))  # a seed without its other classes
    whole = next(line for line in lines("table2", found) if line.classes)
    assert whole.classes == 10 and whole.paper == paper.table2_mean("mnist") and whole.seeds == (0, 1)
    assert whole.ours["A"] == pytest.approx((values.mean(), stdev(values.mean(axis=1))))
    part = next(line for line in lines("table2", found[:3]) if line.classes)
    assert part.classes == 3 and part.paper == pytest.approx(mean(paper.table2("mnist", c) for c in range(3)))
    assert not any(line.classes for line in lines("table2", found[:1])), "one class has no mean"
    assert cells_of(report(found[:3]), "MNIST, mean of 10 classes")[-2:] == ["–", "not measured"], (
        "no target from three classes"
    )


def test_ours_and_the_papers_never_mix():
    empty = report([])
    assert cells_of(empty, "CIFAR-10 → SVHN | AMA")[2] == "0.958"
    for line in (line for table in rows.TABLES for line in lines(table, [])):
        assert line.ours is None and line.paper is not None and line.status == "not measured" and not line.records
    assert "SVHN was not available" in empty and "Conditions" not in empty
    other = record(normal="cifar10", ood="gtsrb", a=0.123)
    text = report([other])
    ours = cells_of(text, "CIFAR-10 → Traffic signs (GTSRB) | AMA")
    assert ours[2:5] == ["–", "0.110", "0.123"], "a set of ours has no number of the paper"
    assert cells_of(text, "CIFAR-10 → SVHN | AMA")[3] == "–"
    assert "for the paper's ImageNet" in text


def test_conditions_are_not_averaged_and_raw_r_is_of_the_ama_row():
    found = [
        record(normal="fashionmnist", ood="mnist"),
        record(normal="fashionmnist", ood="mnist", a=0.7, condition="xyz", settings={"nz": "64"}, steps=2000),
    ]
    here = [line for line in lines("ablations", found) if line.ours]
    assert [(line.row, line.condition) for line in here if line.row == paper.AMA] == [(paper.AMA, "xyz"), (paper.AMA, "abc")]
    raw = [line for line in here if line.row == paper.WITHOUT_A]
    assert len(raw) == 2 and set(raw[0].ours) == {"R"} and raw[0].paper == 0.991
    assert {line.condition for line in here if line.row == rows.OUTWARD} == {"abc", "xyz"}, "preset tiny is outward"
    text = report(found)
    assert "**(a)** preset tiny with nz=64; " in text and "**(b)** preset tiny; " in text


def test_conditions_stand_longest_first_and_of_equally_long_ones_that_nearest_to_the_preset():
    changed = {"max_steps": "2000", "lambda_drift": "0"}
    every = [("b", {}, 700), ("a", changed, 2000), ("c", {"max_steps": "2000"}, 2000)]
    found = [record(normal="fashionmnist", ood="mnist", condition=c, settings=s, steps=n) for c, s, n in every]
    assert [line.condition for line in lines("table1", found) if line.ours] == ["c", "a", "b"]
    assert condition_letters(found) == {"c": "a", "a": "b", "b": "c"}


def test_targets_name_what_is_reached_and_missed():
    found = [record(normal="fashionmnist", ood="mnist", a=0.99, t=0.5), record(normal="cifar10", ood="cifar100", a=0.5, t=0.54)]
    text = report(found).split("## Table 1")[0]
    assert cells_of(text, "FashionMNIST → MNIST")[2:5] == ["0.990", "0.500", "reached by A"]
    assert cells_of(text, "CIFAR-10 → CIFAR-100")[4:] == ["missed by 0.011", "reduced (a)"] or "(b)" in text
    assert cells_of(text, "CIFAR-10 → SVHN")[-1] == "not measured"


def test_a_simple_score_that_does_as_well_is_bold():
    found = [record(label=1, a=0.9, t=0.8), record(rows.SIMPLE_ROW, label=1, a=0.85, codec="WebP lossless")]
    assert cells_of(report(found), "MNIST → 1")[7:10] == ["**0.850**"] * 3
    found[1] = record(rows.SIMPLE_ROW, label=1, a=0.79, codec="WebP lossless")
    assert cells_of(report(found), "MNIST → 1")[7:10] == ["0.790"] * 3


def test_the_committed_report_is_made_from_the_committed_results():
    assert (RESULTS.parent / "RESULTS.md").read_text() == report(read_results(), bundled_entries(), read_lengths())


def test_bad_words_end_with_one_line(capsys):
    assert main(["benchmark"]) == 2 and "Name tables" in capsys.readouterr().err
    assert main(["benchmark", "table9"]) == 2 and "no table table9" in capsys.readouterr().err


def test_what_is_stored_behind_the_committed_figures_is_small():
    folders = {scores_folder(stored, RESULTS): stored for stored in read_results()}
    assert any(folder.is_dir() for folder in folders)
    for folder, stored in folders.items():
        behind = read_scores(folder)
        assert not behind or {s.name for s in behind} >= {result.ood for result in stored.results}, folder
        assert all(s.n == min(s.n_total, training.DENSITY_SAMPLE) for s in behind), folder
