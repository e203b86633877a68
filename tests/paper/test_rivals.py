"""The paper's other methods: planned, trained and stored like AMA, and set beside what the paper prints of them."""

import json
from dataclasses import asdict, replace

import pytest

from ama_core.detectors import registry
from ama_core.evaluation.metrics import auroc_interval
from ama_core.paper import jobs, published, rivals, rows, training
from ama_core.paper.records import read_record, read_results
from ama_core.paper.report import report
from ama_core.paper.tables import stored_members
from ama_core.storage import bundle
from ama_core.storage.bundle import PRETRAINED, read_info, read_scores
from tests.paper.records import record


def rival(name="deepsvdd", normal="fashionmnist", ood="mnist", value=0.9, **changes):
    """A stored result of a rival with a chosen AUROC; its two-sided version 0.1."""
    kind = registry.detector_class(name)
    stored = record(row=name, normal=normal, ood=ood)
    scores = {kind.decides: value, **{other: 0.1 for other in [score.name for score in kind.SCORES] if other != kind.decides}}
    found = replace(stored.results[0], scores={key: {"auroc": v, "auprc": 0.3, "fpr95": 0.9} for key, v in scores.items()})
    table = rows.RIVALS if changes.get("label") is None else rows.RIVALS_ONE_CLASS
    values = dict(table=table, mode="", width={}, results=(found,), decides=kind.decides, config=kind.Settings().to_dict())
    return replace(stored, **{**values, **changes})


def test_every_rival_of_the_paper_is_a_detector_and_is_planned():
    assert set(published.DETECTORS) == {*published.methods(1), *published.methods(2)} - {published.AMA}
    assert set(published.DETECTORS.values()) <= set(registry.DETECTORS)
    planned = jobs.plan(["rivals"], only=["-fashionmnist"])
    assert [job.detector for job in planned] == [name for name in registry.DETECTORS if name != "ama"]
    assert all(job.ood == ("mnist", "omniglot") for job in planned)
    one_class = jobs.plan(["rivals-one-class"], only=["deepsvdd-mnist-[0-1]"], seeds=2)
    assert [(job.label, job.seed, job.ood) for job in one_class] == [
        (0, 0, ("rest",)),
        (1, 0, ("rest",)),
        (0, 1, ("rest",)),
        (1, 1, ("rest",)),
    ]
    assert one_class[0].config == registry.detector_class("deepsvdd").Settings.preset("tiny", channels=1, fit="pad", seed=0)
    assert jobs.Job.from_json(one_class[0].to_json()) == one_class[0]
    assert "benchmark rivals-one-class" in one_class[0].command and "--only deepsvdd-mnist-0" in one_class[0].command


@pytest.mark.parametrize(
    "name, settings, status",
    [("nearest", {}, "reduced"), ("deepsvdd", {"max_steps": "4", "batch_size": "16", "width": "8"}, "smoke")],
)
def test_a_job_trains_measures_and_stores_any_detector(tmp_path, name, settings, status):
    job = jobs.Job(rows.RIVALS, name, "digits", None, ("textures", "gradients"), "tiny", settings, 3)
    assert not jobs.is_stored(job, tmp_path / "results")
    made = training.carry_out(job, tmp_path / "out", tmp_path / "results", "cpu")
    assert jobs.is_stored(job, tmp_path / "results") and made.name == job.name
    stored = read_record(tmp_path / "results" / f"{job.name}.json")
    assert stored == made and stored.status == status and stored.seed == 3 and stored.config["seed"] == 3
    kind = registry.detector_class(name)
    assert stored.decides == kind.decides and [found.ood for found in stored.results] == ["textures", "gradients"]
    assert all(set(found.scores) == {score.name for score in kind.SCORES} for found in stored.results)
    behind = read_scores(tmp_path / "results" / "scores" / job.name)
    assert {s.name for s in behind} == {"digits", "textures", "gradients"}
    again = training.carry_out(job, tmp_path / "out", tmp_path / "results", "cpu")
    assert [found.scores for found in again.results] == [found.scores for found in made.results]


@pytest.mark.parametrize(
    "name, preset, settings, steps, status",
    [
        ("deepsvdd", "paper", {}, 112_500, "full"),
        ("deepsvdd", "paper", {}, 9, "smoke"),
        ("deepsvdd", "paper", {"width": "16"}, 112_500, "reduced"),
        ("deepsvdd", "tiny", {}, 1500, "reduced"),
        ("nearest", "paper", {}, 0, "full"),
        ("alad", "paper", {}, 140_000, "reduced"),  # no dropout, whatever its size
    ],
)
def test_full_is_the_published_method_at_its_size(name, preset, settings, steps, status):
    job = jobs.Job(rows.RIVALS, name, "cifar10", None, ("textures",), preset, settings, 0)
    assert training.job_status(job, {"steps": steps}) == status


def test_a_detector_that_departs_from_its_publication_says_how():
    assert set(registry.DETECTORS) >= published.DEPARTING
    assert all("Notes:" in registry.detector_class(name).__doc__ for name in published.DEPARTING)


def test_table_1_has_every_published_figure_and_ours_beside_it():
    bare = rivals.rival_lines([])
    assert all(line.ours is None and line.status == "not measured" for line in bare)
    published_cells = [(a, b, m) for a, b in published.TASKS for m in published.methods(1) if m != published.AMA]
    known = [published.table1(*cell) for cell in published_cells if published.table1(*cell) is not None]
    assert [line.paper for line in bare] == known

    entries = rivals.stored_entries([rival(value=0.8), rival(value=0.9, seed=1), rival(value=0.7, condition="def", steps=50)])
    lines = [line for line in rivals.rival_lines(entries) if line.method == "DeepSVDD" and line.ood == "mnist"]
    assert [line.ours for line in lines] == [(pytest.approx(0.85), pytest.approx(0.0707, abs=1e-4)), (0.7, None)]
    assert {line.paper for line in lines} == {0.864}
    assert lines[0].interval == pytest.approx((0.85 - 0.0707, 0.85 + 0.0707), abs=1e-3)
    assert lines[1].interval == auroc_interval(0.7, 100, 20)


def test_a_detector_that_the_paper_does_not_have_stands_where_it_was_measured():
    lines = [line for line in rivals.rival_lines(rivals.stored_entries([rival("pixelcnn", value=0.04)])) if line.ours]
    (line,) = lines
    assert (line.detector, line.normal, line.ood, line.paper) == ("pixelcnn", "fashionmnist", "mnist", None)


def test_means_need_all_ten_classes_of_one_seed():
    nine = [rival(normal="mnist", ood="rest", label=label, value=0.5 + label / 100) for label in range(9)]
    means = {(line.method, line.normal): line for line in rivals.rival_means(rivals.stored_entries(nine))}
    assert means["DeepSVDD", "mnist"].ours is None and means["DeepSVDD", "mnist"].paper == 0.921
    other_seed = rival(normal="mnist", ood="rest", label=9, value=0.9, seed=1)
    assert not any(line.ours for line in rivals.rival_means(rivals.stored_entries([*nine, other_seed])))
    ten = [*nine, rival(normal="mnist", ood="rest", label=9, value=0.9)]
    means = {(line.method, line.normal): line for line in rivals.rival_means(rivals.stored_entries(ten))}
    mean = pytest.approx((sum(0.5 + k / 100 for k in range(9)) + 0.9) / 10)
    assert means["DeepSVDD", "mnist"].ours == (mean, None)
    means = {(line.method, line.normal): line for line in rivals.rival_means(rivals.stored_entries([*ten, other_seed]))}
    line = means["DeepSVDD", "mnist"]
    assert line.ours == (mean, None) and {entry.seed for entry in line.entries} == {0}, "the unfinished seed counts nowhere"


def test_models_here_count_and_those_of_ama_or_shown_anomalies_do_not():
    kind = registry.detector_class("deepsvdd")
    normal = {"name": "fashionmnist", "source": "fashionmnist", "label": None, "n": 9, "anomalies": None}
    info = {"detector": "deepsvdd", "config": kind.Settings().to_dict(), "normal": normal, "training": {"steps": 900}}
    row = {"ood": "mnist", "n_normal": 100, "n_ood": 20, "scores": {kind.decides: {"auroc": 0.8}}}
    (entry,) = rivals.model_entries("mine", info, [row])
    assert entry.model and entry.status == "reduced" and entry.found.scores[entry.by]["auroc"] == 0.8
    assert rivals.model_entries("mine", info | {"training": {"steps": 9}}, [row])[0].status == "smoke"
    assert not rivals.model_entries("mine", info | {"detector": "ama"}, [row])
    assert not rivals.model_entries("mine", info | {"normal": normal | {"anomalies": "flat"}}, [row])
    assert not rivals.model_entries("mine", info | {"normal": normal | {"source": "/my/folder"}}, [row])


def test_the_report_has_a_section_of_its_own_and_the_tables_of_ama_stay_as_they_were(tmp_path):
    own = [record(normal="fashionmnist", ood="mnist", a=0.9)]
    with_rival = [*own, rival(value=0.8)]
    before, after = report(own), report(with_rival)
    assert "| FashionMNIST → MNIST | DeepSVDD | 0.864 | 0.800 | distance | 1 | stored, tiny, 700 steps | reduced |" in after
    assert "| FashionMNIST → MNIST | DeepSVDD | 0.864 | – | – | – | – | not measured |" in before
    info, results = read_info(PRETRAINED / "fashionmnist-deepsvdd"), bundle.read_results(PRETRAINED / "fashionmnist-deepsvdd")
    (auroc,) = (row["scores"]["distance"]["auroc"] for row in results["results"] if row["ood"] == "mnist")
    with_bundles = report(own, rivals.bundled_entries())
    steps = info["training"]["steps"]
    assert f"| 0.864 | {auroc:.3f} | distance | 1 | `fashionmnist-deepsvdd`, {steps:,} steps | reduced |" in with_bundles
    assert before.split("## The other methods")[0] == after.split("## The other methods")[0]
    assert not stored_members([rival()])
    for number, one in enumerate(with_rival):
        (tmp_path / f"{number}.json").write_text(json.dumps(asdict(one)))
    assert [one.row for one in read_results(tmp_path)] == [published.AMA, "deepsvdd"]


def test_our_sets_beside_the_papers_have_lines_where_they_were_measured():
    nearest = rival("nearest", normal="cifar10", ood="gtsrb", value=0.7, steps=0)
    found = rivals.rival_lines(rivals.stored_entries([rival(normal="cifar10", ood="gtsrb", value=0.4), nearest]))
    lines = [(line.method, line.paper, line.ours[0]) for line in found if line.ood == "gtsrb"]
    assert lines == [("DeepSVDD", None, 0.4), (registry.detector_class("nearest").title, None, 0.7)]
    assert not [line for line in found if line.ood == "house_numbers"]
    assert "| 0.700 | distance | 1 | stored, tiny | reduced |" in report([nearest])
