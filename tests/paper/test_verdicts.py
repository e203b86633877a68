"""Sentences about the tables rest on comparisons of the first measured line of every cell, never the best."""

import dataclasses

import numpy as np
import pytest

from ama_core.evaluation.metrics import auroc_interval
from ama_core.paper import published as paper
from ama_core.paper.rows import SIMPLE_ROW
from ama_core.paper.tables import lines, model_members
from ama_core.paper.verdicts import (
    CANNOT_TELL,
    CONFIRMS,
    CONTRADICTS,
    a_against_r,
    ablation,
    ablations,
    ours_against_paper,
    reaches_paper,
    t_against_simple,
    with_most_seeds,
)
from ama_core.runs.spec import config_for
from ama_core.storage.files import csv_cell
from tests.paper.records import record


def ama_lines(*records):
    return [line for line in lines("table1", list(records)) if line.row == paper.AMA]


def test_the_first_line_of_a_cell_counts_not_the_best():
    long = record(normal="cifar10", ood="cifar100", a=0.4, steps=2000, condition="def", settings={"nz": "64"})
    short = record(normal="cifar10", ood="cifar100", a=0.9)
    (line,) = with_most_seeds(ama_lines(short, long))
    assert line.auroc("A")[0] == 0.4, "the longest training stands first"
    (pair,) = ours_against_paper(ama_lines(short, long)).pairs
    assert (pair.first, pair.second, pair.ahead) == (0.4, 0.551, -1)


def test_the_line_with_the_most_seeds_counts_wherever_it_stands():
    long = record(normal="cifar10", ood="cifar100", a=0.9, steps=2000, condition="def")
    seeds = [record(normal="cifar10", ood="cifar100", a=0.3 + 0.1 * seed, seed=seed) for seed in range(3)]
    (line,) = with_most_seeds(ama_lines(long, *seeds))
    assert line.auroc("A")[0] == pytest.approx(0.4) and len(line.members) == 3


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


def test_t_is_set_against_each_simple_score_by_the_line_that_counts():
    own = record(normal="fashionmnist", ood="mnist", a=0.95, t=0.8)
    simple = record(SIMPLE_ROW, normal="fashionmnist", ood="mnist", a=0.9)
    found = t_against_simple(ama_lines(own, simple))
    assert list(found) == ["pixel mean", "lossless length", "L2 autoencoder"]
    for comparison in found.values():
        (pair,) = comparison.pairs
        assert pair.first == 0.8, "never the better of A and T"
    assert not any(comparison.pairs for comparison in t_against_simple(ama_lines(own)).values())
    seeds = [record(normal="fashionmnist", ood="mnist", a=0.5, t=0.6, seed=s, condition="def") for s in range(2)]
    longer = [dataclasses.replace(one, config={**one.config, "max_steps": 6_000}, steps=6_000) for one in seeds]
    assert not any(comparison.pairs for comparison in t_against_simple(ama_lines(own, simple, *longer)).values())


def test_simple_scores_stand_beside_every_training_with_the_settings_they_share():
    simple = record(SIMPLE_ROW, normal="fashionmnist", ood="mnist", a=0.9)
    other = record(normal="fashionmnist", ood="mnist", condition="def", settings={"lambda_drift": "0"})

    def beside(**settings):
        """Pixel means beside an AMA training with other settings."""
        own = dataclasses.replace(other, config={**other.config, **settings})
        (line,) = [n for n in ama_lines(simple, own) if n.records]
        return line.simple and line.simple["pixel mean"]

    assert beside(lambda_drift=0.0) == beside(seed=3) == (0.9, None), "no simple method has a critic"
    for taken in ({"calibration_fraction": 0.2}, {"lr": 0.001}, {"width_generator": 48}, {"image_size": 64}):
        assert beside(**taken) is None, taken
    own = dataclasses.replace(
        simple, condition="def", results=record(SIMPLE_ROW, normal="fashionmnist", ood="mnist", a=0.7).results
    )
    (line,) = [n for n in ama_lines(simple, other, own) if n.records]
    assert line.simple["pixel mean"] == (0.7, None), "a seed counts once: that of the same condition"


def test_the_paper_is_reached_by_the_figure_as_it_is_printed():
    printed = paper.table1("fashionmnist", "mnist")
    for by_t, reached in ((printed - 0.0004, True), (printed - 0.0006, False)):
        (line,) = [n for n in ama_lines(record(normal="fashionmnist", ood="mnist", t=by_t)) if n.ours]
        assert reaches_paper(line, "T") is reached


def ablated(row, whole, without, *, normal="fashionmnist", ood="mnist", condition="abc", **other):
    """The ablation of AMA's A-AUROCs `whole` and of those `without` the part, a seed each."""
    records = [record(normal=normal, ood=ood, a=a, seed=seed, condition=condition) for seed, a in enumerate(whole)]
    name = dict(normal=normal, ood=ood, table="ablations", **other)
    records += [record(row, a=a, seed=seed, **name) for seed, a in enumerate(without)]
    found = lines("ablations", records)
    (line,) = [line for line in found if line.row == row and line.ours]
    return ablation(line, [line for line in found if line.row == paper.AMA])


def test_an_ablation_pairs_its_seeds_and_has_students_interval():
    found = ablated(paper.WITHOUT_MIRRORED, [0.9, 0.95, 0.91, 0.5], [0.8, 0.88, 0.80])
    added = np.array([0.1, 0.07, 0.11])
    assert found.added == pytest.approx(added), "the seed that was not trained without the part counts nowhere"
    half = 4.302652729911275 * added.std(ddof=1) / np.sqrt(3)  # t with 2 degrees of freedom at 97.5 %
    assert found.interval == pytest.approx((added.mean() - half, added.mean() + half))
    assert found.paper == pytest.approx(0.987 - 0.653)


@pytest.mark.parametrize(
    "row, ood, whole, without, verdict",
    [
        (paper.WITHOUT_MIRRORED, "mnist", [0.90, 0.91, 0.92], [0.80, 0.81, 0.82], CONFIRMS),
        (paper.WITHOUT_MIRRORED, "mnist", [0.80, 0.81, 0.82], [0.90, 0.91, 0.92], CONTRADICTS),
        (paper.WITHOUT_MIRRORED, "mnist", [0.80, 0.95, 0.82], [0.79, 0.80, 0.90], CANNOT_TELL),
        (paper.WITHOUT_MIRRORED, "mnist", [0.992, 0.992, 0.993], [0.990, 0.990, 0.991], CONTRADICTS),  # alike, not a gain
        (paper.WITHOUT_MIRRORED, "mnist", [0.90, 0.90], [0.80, 0.80], CANNOT_TELL),
        (paper.WITHOUT_MIRRORED, "mnist", [0.99], [0.10], CANNOT_TELL),
        (paper.WITHOUT_SIMPLEX, "omniglot", [0.990, 0.991, 0.992], [0.988, 0.990, 0.991], CONFIRMS),
        (paper.WITHOUT_SIMPLEX, "omniglot", [0.90, 0.91, 0.92], [0.80, 0.81, 0.82], CONTRADICTS),
        (paper.WITHOUT_SIMPLEX, "omniglot", [0.90, 0.91, 0.95], [0.90, 0.91, 0.92], CANNOT_TELL),
    ],
)
def test_the_verdict_asks_whether_the_interval_lies_within_what_the_paper_has(row, ood, whole, without, verdict):
    assert ablated(row, whole, without, ood=ood).verdict == verdict


def test_what_a_part_adds_to_t_is_beside_the_paper():
    records = [record(normal="fashionmnist", ood="mnist", t=0.9, seed=seed) for seed in range(3)]
    records += [record(paper.WITHOUT_MIRRORED, normal="fashionmnist", ood="mnist", t=0.6, seed=seed) for seed in range(3)]
    found = lines("ablations", records)
    without = {line.row: line for line in found if line.ours}
    told = ablation(without[paper.WITHOUT_MIRRORED], found, "T")
    assert told.added == pytest.approx((0.3, 0.3, 0.3)) and (told.paper, told.verdict) == (None, "")
    assert ablation(without[paper.WITHOUT_A], found, "T") is None


def test_what_the_paper_has_no_figures_of_gets_no_verdict():
    found = ablated(paper.WITHOUT_ATYPICAL, [0.9, 0.91, 0.92], [0.8, 0.81, 0.82], normal="cifar10", ood="gtsrb")
    assert (found.paper, found.verdict) == (None, "")
    assert str(found) == "0.100 (0.100 to 0.100)"


def test_a_difference_is_text_that_no_spreadsheet_takes_for_a_formula():
    found = ablated(paper.WITHOUT_ATYPICAL, [0.8, 0.9, 0.85], [0.9, 0.9, 0.9])
    assert str(found) == "−0.050 (−0.174 to 0.074)"  # 4.303 * 0.05 / sqrt(3)
    assert csv_cell(str(found)) == str(found)
    assert str(ablated(paper.WITHOUT_ATYPICAL, [0.8], [0.8001])) == "0.000 (1 seed)", "no minus before a nought"
    assert str(ablated(paper.WITHOUT_ATYPICAL, [0.8, 0.9], [0.7, 0.6])) == "0.200 (2 seeds)"


def test_an_ablation_needs_trainings_that_are_alike():
    assert ablated(paper.WITHOUT_MIRRORED, [0.9], [0.8], condition="def") is None
    line = next(line for line in lines("ablations", [record(normal="fashionmnist", ood="mnist")]) if line.row == paper.AMA)
    with pytest.raises(ValueError, match="no ablation"):
        ablation(line, [line])


def model(name, a, r=0.1, steps=700, select="last", source="fashionmnist", **changes):
    """The members of a model on this computer with a chosen A-AUROC against MNIST."""
    info = {
        "detector": "ama",
        "config": config_for("fashionmnist", "tiny", **changes).to_dict(),
        "normal": {"name": "fashionmnist", "source": source, "label": None},
        "training": {"steps": steps, "n_train": 54_000, "select": select},
    }
    scores = {by: {"auroc": value, "auprc": 0.3, "fpr95": 0.9} for by, value in {"R": r, "A": a, "M": 0.2, "T": 0.3}.items()}
    return model_members(name, info, [{"ood": "mnist", "n_normal": 100, "n_ood": 20, "scores": scores}])


def of_models(row, *models):
    """The lines of a row that were measured, and all lines."""
    found = lines("ablations", [], [member for members in models for member in members])
    return [line for line in found if line.row == row and line.ours], found


def test_a_folder_called_like_a_set_is_another_set():
    assert of_models(paper.AMA, model("theirs", 0.9))[0]
    assert not of_models(paper.AMA, model("mine", 0.9, source="/my/fashionmnist"))[0]


def test_models_are_trained_alike_where_they_differ_in_the_part_alone():
    without = model("without", 0.7, lambda_inter=0.0)
    others = model("wider", 0.99, nz=16), model("shorter", 0.98, steps=100), model("chosen", 0.97, select="validated")
    (line,), found = of_models(paper.WITHOUT_SIMPLEX, without, *others)
    assert ablation(line, found) is None
    (line,), found = of_models(paper.WITHOUT_SIMPLEX, without, *others, model("whole", 0.9))
    assert ablation(line, found).added == pytest.approx((0.2,))


def test_a_seed_whose_training_was_cut_short_is_not_paired():
    pairs = [(model(f"with-{s}", 0.9, seed=s), model(f"without-{s}", 0.7, seed=s, lambda_inter=0.0)) for s in range(2)]
    cut = model("with-2", 0.5, seed=2, steps=100), model("without-2", 0.7, seed=2, lambda_inter=0.0)
    (line,), found = of_models(paper.WITHOUT_SIMPLEX, *(members for pair in [*pairs, cut] for members in pair))
    assert ablation(line, found).added == pytest.approx((0.2, 0.2))


def test_without_the_a_score_every_model_is_its_own_twin():
    (first, second), found = of_models(paper.WITHOUT_A, model("one", 0.9, r=0.5), model("two", 0.2, r=0.5))
    assert ablation(first, found).added == pytest.approx((0.4,))
    assert ablation(second, found).added == pytest.approx((-0.3,))


def test_a_cell_is_judged_by_the_line_with_the_most_seeds():
    one = [record(normal="fashionmnist", ood="mnist", a=0.4, condition="aaa", steps=2000)]
    one.append(record(paper.WITHOUT_MIRRORED, normal="fashionmnist", ood="mnist", a=0.8, condition="aaa", steps=2000))
    three = [record(normal="fashionmnist", ood="mnist", a=0.9, seed=seed) for seed in range(3)]
    three += [record(paper.WITHOUT_MIRRORED, normal="fashionmnist", ood="mnist", a=0.7, seed=seed) for seed in range(3)]
    found = lines("ablations", [*one, *three])
    shown = [line for line in found if line.row == paper.WITHOUT_MIRRORED]
    assert shown[0].condition == "aaa", "the longest stands first"
    (told,) = ablations(shown, found)
    assert told.added == pytest.approx((0.2, 0.2, 0.2))


def test_intervals_are_of_the_images_or_of_the_seeds():
    one = with_most_seeds(ama_lines(record(normal="fashionmnist", ood="mnist", a=0.9)))[0]
    assert one.interval("A") == auroc_interval(0.9, 100, 20)
    seeds = [record(normal="fashionmnist", ood="mnist", a=a, seed=seed) for seed, a in enumerate((0.8, 0.9))]
    (two,) = with_most_seeds(ama_lines(*seeds))
    assert two.interval("A") == pytest.approx((0.85 - 0.0707, 0.85 + 0.0707), abs=1e-3)
