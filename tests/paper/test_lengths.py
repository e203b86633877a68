"""Figures of trainings of several lengths: means over seeds, of the study and of the tables, each training once."""

import dataclasses
import json

import pytest

from ama_core.errors import BundleError
from ama_core.paper import published as paper
from ama_core.paper.lengths import LAMBDA_DRIFT, Length, curve, of_several_lengths, read_lengths, with_records
from ama_core.paper.report import report
from ama_core.runs.spec import config_for
from tests.paper.records import record


def store(folder, loss, steps, seed, t, ood="mnist", lr_fall=0.5, lambda_drift=LAMBDA_DRIFT, **of):
    run = {"reconstruction": loss, "steps": steps, "seed": seed, "lr_fall": lr_fall, "lambda_drift": lambda_drift, **of}
    auroc = {"last": {ood: {"A": 0.5, "T": t}}}
    name = "-".join(map(str, [ood, *run.values()]))
    (folder / f"{name}.json").write_text(json.dumps({"run": run, "auroc": auroc}))


def trained(row=paper.AMA, *, steps, seed=0, nz=32, lambda_drift=LAMBDA_DRIFT, **more):
    """A stored training of preset tiny."""
    changes = {"reconstruction": "plain"} if row == paper.WITHOUT_MIRRORED else {}
    config = config_for(more["normal"], "tiny", max_steps=steps, seed=seed, nz=nz, lambda_drift=lambda_drift, **changes)
    return record(row, steps=steps, seed=seed, config=dataclasses.asdict(config), **more)


def test_a_curve_is_the_mean_over_seeds_at_every_length(tmp_path):
    store(tmp_path, "mirrored", 1000, 0, 0.9)
    store(tmp_path, "mirrored", 500, 0, 0.6)
    store(tmp_path, "mirrored", 500, 1, 0.8)
    store(tmp_path, "mirrored", 500, 2, 0.1, lr_fall=0.9)
    store(tmp_path, "plain", 500, 0, 0.2)
    runs = read_lengths(tmp_path)
    short, long = curve(runs, "mirrored", "mnist", "T")
    assert (short.steps, short.auroc, short.seeds) == (500, pytest.approx(0.7), 2) and short.sd == pytest.approx(0.2 / 2**0.5)
    assert long == Length(1000, 0.9, None, 1)
    assert [x.auroc for x in curve(runs, "plain", "mnist", "T")] == [0.2]
    assert curve(runs, "mirrored", "omniglot", "T") == [] and curve(runs, "mirrored", "mnist", "C") == []


def test_trainings_of_the_tables_count_where_they_differ_in_length_and_seed_alone(tmp_path):
    store(tmp_path, "mirrored", 2000, 0, 0.9)
    asked = dict(normal="fashionmnist", ood="mnist", steps=2000)
    records = [
        trained(seed=0, t=0.6, **asked),  # is in the study as well, where T is 0.9
        trained(seed=1, t=0.8, **asked),
        trained(paper.WITHOUT_MIRRORED, seed=1, t=0.4, **asked),
        trained(paper.WITHOUT_SIMPLEX, seed=1, t=0.3, **asked),
        trained(seed=2, t=0.2, nz=64, **asked),
        trained(seed=2, t=0.2, lambda_drift=0.5, **asked),
        trained(seed=3, t=0.2, **asked | {"normal": "cifar10"}),
        trained(seed=4, t=0.2, **asked | {"steps": 20}),  # only shows that the command runs
    ]
    runs = with_records(read_lengths(tmp_path), records)
    assert [x.auroc for x in curve(runs, "mirrored", "mnist", "T")] == [pytest.approx(0.7)]
    assert [x.auroc for x in curve(runs, "plain", "mnist", "T")] == [0.4]


def test_a_training_in_both_has_the_sets_of_both(tmp_path):
    store(tmp_path, "mirrored", 2000, 0, 0.9)
    runs = with_records(read_lengths(tmp_path), [trained(normal="fashionmnist", ood="omniglot", t=0.7, steps=2000)])
    assert [curve(runs, "mirrored", ood, "T")[0].auroc for ood in ("mnist", "omniglot")] == [0.9, 0.7]


def test_results_have_a_table_of_lengths_where_there_are_several(tmp_path):
    store(tmp_path, "mirrored", 500, 0, 0.6)
    assert "## Length" not in report([], (), read_lengths(tmp_path))
    store(tmp_path, "mirrored", 1000, 0, 0.9)
    text = report([], (), read_lengths(tmp_path))
    assert "| mirrored | 500 | 1 | – | 0.500 | – | 0.600 |" in text.split("## Length of training")[1]


def test_every_set_has_lengths_of_its_own(tmp_path):
    store(tmp_path, "mirrored", 500, 0, 0.6)
    store(tmp_path, "mirrored", 1000, 0, 0.9)
    store(tmp_path, "mirrored", 500, 0, 0.3, "gtsrb", normal="cifar10")
    store(tmp_path, "plain", 1000, 0, 0.3, "gtsrb", normal="cifar10")
    asked = dict(normal="cifar10", ood="gtsrb", steps=2000, t=0.2)
    assert list(of_several_lengths(read_lengths(tmp_path))) == ["fashionmnist"]
    runs = with_records(read_lengths(tmp_path), [trained(**asked)])
    assert [at.auroc for at in curve(runs, "mirrored", "gtsrb", "T", "cifar10")] == [0.3, 0.2]
    assert [at.auroc for at in curve(runs, "mirrored", "mnist", "T")] == [0.6, 0.9]
    text = report([], (), runs).split("## Length of training")[1]
    first, second = text.split("Trained on CIFAR-10")
    assert "Trained on FashionMNIST" in first and "GTSRB" not in first
    assert "MNIST" not in second and "SVHN" not in second and "| mirrored | 2,000 | 1 |" in second


RUN = {"reconstruction": "plain", "steps": 500, "seed": 0, "lr_fall": 0.5, "lambda_drift": LAMBDA_DRIFT}


@pytest.mark.parametrize(
    "stored",
    [
        {},
        [],
        {"run": RUN | {"steps": None}, "auroc": {"last": {}}},
        {"run": RUN, "auroc": {"last": None}},
        {"run": RUN, "auroc": {"last": {"mnist": {"T": None}}}},
        {"run": RUN, "auroc": {"last": {"mnist": {"T": "nan"}}}},
    ],
)
def test_a_damaged_run_is_named(tmp_path, stored):
    (tmp_path / "plain-500-s0.json").write_text(json.dumps(stored))
    with pytest.raises(BundleError, match="plain-500-s0.json is damaged"):
        read_lengths(tmp_path)


def test_runs_of_another_fall_of_the_rate_or_drift_term_make_no_length(tmp_path):
    store(tmp_path, "mirrored", 500, 0, 0.6, lr_fall=0.9)
    store(tmp_path, "mirrored", 2000, 0, 0.6, lambda_drift=0.5)
    store(tmp_path, "mirrored", 1000, 0, 0.6)
    assert [run.steps for run in read_lengths(tmp_path)] == [1000]
    assert "## Length" not in report([], (), read_lengths(tmp_path))
