"""Sentences about the tables rest on comparisons of the first measured line of every cell, never the best."""

import pytest

from ama_core.evaluation.metrics import auroc_interval
from ama_core.paper import published as paper
from ama_core.paper.rows import SANITY
from ama_core.paper.tables import lines
from ama_core.paper.verdicts import (
    a_against_r,
    first_of_each,
    interval,
    ours_against_paper,
    plain_against_mirrored,
    simple_against_ama,
)
from tests.paper.records import record


def ama_lines(*records):
    return [line for line in lines("table1", list(records)) if line.row == paper.AMA]


def test_the_first_line_of_a_cell_counts_not_the_best():
    long = record(normal="cifar10", ood="cifar100", a=0.4, steps=2000, condition="def", settings={"nz": "64"})
    short = record(normal="cifar10", ood="cifar100", a=0.9)
    (line,) = first_of_each(ama_lines(short, long))
    assert line.auroc("A")[0] == 0.4, "the longest training stands first"
    (pair,) = ours_against_paper(ama_lines(short, long)).pairs
    assert (pair.first, pair.second, pair.ahead) == (0.4, 0.551, -1)


def test_figures_within_a_hundredth_are_alike():
    found = a_against_r(
        ama_lines(
            record(normal="fashionmnist", ood="mnist", a=0.115),
            record(normal="fashionmnist", ood="omniglot", a=0.5),
            record(normal="cifar10", ood="cifar100", a=0.05),
        )
    )
    assert {pair.line.ood: pair.ahead for pair in found.pairs} == {"mnist": 0, "omniglot": 1, "cifar100": -1}  # R is 0.11
    assert [len(found.where(k)) for k in (1, 0, -1)] == [1, 1, 1]


def test_the_best_simple_score_is_named_and_set_against_the_better_of_a_and_t():
    own = record(normal="fashionmnist", ood="mnist", a=0.5, t=0.8)
    simple = record(SANITY, normal="fashionmnist", ood="mnist", a=0.9)
    (pair,) = simple_against_ama(ama_lines(own, simple)).pairs
    assert (pair.first, pair.second, pair.ahead) == (0.9, 0.8, 1)
    assert pair.of in ("pixel mean", "lossless length", "L2 autoencoder")
    assert not simple_against_ama(ama_lines(own)).pairs


def test_plain_is_set_against_mirrored_only_where_they_were_trained_alike():
    plain = record(paper.WITHOUT_MIRRORED, normal="fashionmnist", ood="mnist", a=0.7, table="ablations")
    mirrored = record(normal="fashionmnist", ood="mnist", a=0.6)
    unlike = record(normal="fashionmnist", ood="mnist", a=0.99, condition="def")
    without = [line for line in lines("ablations", [plain, mirrored, unlike]) if line.row == paper.WITHOUT_MIRRORED]
    (pair,) = plain_against_mirrored(without, ama_lines(plain, mirrored, unlike)).pairs
    assert (pair.first, pair.second) == (0.7, 0.6)
    assert not plain_against_mirrored(without, ama_lines(unlike)).pairs


def test_intervals_are_of_the_images_or_of_the_seeds():
    one = first_of_each(ama_lines(record(normal="fashionmnist", ood="mnist", a=0.9)))[0]
    assert interval(one, "A") == auroc_interval(0.9, 100, 20)
    seeds = [record(normal="fashionmnist", ood="mnist", a=a, seed=seed) for seed, a in enumerate((0.8, 0.9))]
    (two,) = first_of_each(ama_lines(*seeds))
    assert interval(two, "A") == pytest.approx((0.85 - 0.0707, 0.85 + 0.0707), abs=1e-3)
