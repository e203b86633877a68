"""The published numbers: a few read again from the paper, their order, and what counts as reduced."""

import numpy as np
import pytest

from ama_core import Config, preset
from ama_core.data import catalog
from ama_core.paper import published as paper


def test_cells_of_table_1_and_its_ablations():
    assert paper.table1("fashionmnist", "mnist") == 0.987
    assert paper.table1("cifar10", "svhn") == 0.958
    assert paper.table1("cifar10", "cifar100") == 0.551
    assert paper.table1("svhn", "imagenet") == 1.0
    assert paper.table1("cifar10", "svhn", "DeepSVDD") == 0.533
    assert paper.table1("fashionmnist", "mnist", paper.TYPICALITY) == 0.140
    assert paper.ablation(paper.WITHOUT_A, "cifar10", "svhn") == 0.442
    assert paper.ablation(paper.WITHOUT_MIRRORED, "svhn", "cifar100") == 0.592


def test_a_cell_that_the_paper_does_not_have_is_none():
    assert paper.table1("cifar10", "gtsrb") is None
    assert paper.table1("svhn", "cifar10", "WAIC") is None
    assert paper.ablation(paper.WITHOUT_SIMPLEX, "digits", "noise") is None
    assert paper.table2("fashionmnist", 0) is None and paper.table2("mnist", 10) is None and paper.table2("mnist", -1) is None


def test_every_row_has_a_value_or_a_gap_for_every_task():
    for method in paper.methods(1):
        assert all(v is None or 0 < v <= 1 for v in (paper.table1(a, b, method) for a, b in paper.TASKS))
    assert all(paper.table1(a, b) is not None for a, b in paper.TASKS), "AMA has every cell"
    assert all(paper.ablation(v, a, b) is not None for v in paper.ABLATIONS for a, b in paper.TASKS)


@pytest.mark.parametrize("normal", paper.TABLE_2_SETS)
def test_the_mean_of_table_2_is_the_mean_of_its_cells(normal):
    assert np.mean([paper.table2(normal, label) for label in range(10)]) == pytest.approx(paper.table2_mean(normal), abs=6e-4)


def test_sets_are_those_of_the_catalog_or_have_a_stand_in():
    for name in {name for task in paper.TASKS for name in task}:
        assert paper.STAND_INS.get(name, name) in catalog()
    assert paper.paper_name("tinyimagenet") == "imagenet" and paper.paper_name("mnist") == "mnist"


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, paper.AMA),
        ({"reconstruction": "plain"}, paper.WITHOUT_MIRRORED),
        ({"lambda_inter": 0.0}, paper.WITHOUT_SIMPLEX),
        ({"atypical": "none"}, paper.WITHOUT_ATYPICAL),
        ({"lambda_neg": 0.0}, paper.WITHOUT_ATYPICAL),
        ({"reconstruction": "plain", "lambda_inter": 0.0}, None),
    ],
)
def test_the_row_of_a_configuration(changes, expected):
    assert paper.variant(Config(**changes)) == expected


def test_reductions_name_what_is_smaller_and_nothing_else():
    full = {"steps": 100 * 45_000 // 256, "n_train": 45_000}
    assert paper.reductions(Config(), full) == []
    assert paper.reductions(Config(nz=256), full) == [], "larger is not reduced"
    assert paper.reductions(Config(width_critic=64), full) == ["critic width 64 of 128"]
    assert paper.reductions(Config(), {"steps": 450, "n_train": 11_520}) == ["10 of 100 epochs"]
    assert paper.reductions(Config(), {}) == [], "unknown is not reduced"
    assert len(paper.reductions(preset("tiny"), full)) == 6


def test_what_is_published_of_a_model_on_a_set():
    plain = Config(reconstruction="plain")
    assert paper.published(Config(), "fashionmnist", None, "mnist") == {"A": 0.987, "R": 0.991}
    assert paper.published(plain, "fashionmnist", None, "mnist") == {"A": 0.653}
    assert paper.published(plain.replace(lambda_inter=0.0), "fashionmnist", None, "mnist") == {}
    assert paper.published(Config(), "mnist", 2, "rest") == {"A": 0.882}
    assert paper.published(Config(), "cifar10", None, "svhn") == {"A": 0.958, "R": 0.442}
    for normal, label, ood in (
        ("cifar10", None, "gtsrb"),
        ("cifar10", None, "tinyimagenet"),
        ("mnist", 2, "cifar10"),
        ("digits", None, "mnist"),
        ("mnist", None, "rest"),
        ("cifar10", 3, "svhn"),
    ):
        assert paper.published(Config(), normal, label, ood) == {}, "not a set of the paper's"
