"""Models beside each other: the heat table and its ranks, the same images of two models, and where they disagree."""

import numpy as np
import pytest

from ama_core.data import draw
from ama_core.errors import DataError
from ama_core.evaluation import comparison
from ama_core.evaluation.metrics import auroc_interval
from ama_core.storage.bundle import StoredScores


def row(n_normal=500, n_ood=100, **auroc):
    return {"n_normal": n_normal, "n_ood": n_ood, "scores": {name: {"auroc": value} for name, value in auroc.items()}}


def test_heat_table_ranks_every_set_and_means_only_what_all_have():
    results = {
        "one": {"a": row(R=0.9, A=0.1), "b": row(R=0.5, A=0.1), "c": row(R=0.4, A=0.1)},
        "two": {"a": row(S=0.8), "b": row(S=0.5)},
        "three": {"a": row(S=0.95), "b": row(S=0.7), "c": row(n_ood=20, S=0.6)},
    }
    found = comparison.heat_table(results, {"one": "R", "two": "S", "three": "S"}, ["a", "b", "c"])
    assert np.array_equal(found.auroc, [[0.9, 0.5, 0.4], [0.8, 0.5, np.nan], [0.95, 0.7, 0.6]], equal_nan=True)
    assert np.array_equal(found.ranks, [[2, 2.5, 2], [3, 2.5, np.nan], [1, 1, 1]], equal_nan=True)
    assert found.shared == 2 and found.mean_rank == pytest.approx([2.25, 2.75, 1])
    assert found.mean_auroc == pytest.approx([0.7, 0.65, 0.825])
    assert [found.place(name) for name in results] == [2, 3, 1]
    assert (found.low[2, 2], found.high[2, 2]) == auroc_interval(0.6, 500, 20)


def test_no_set_that_all_have_gives_no_mean():
    found = comparison.heat_table({"one": {"a": row(S=0.9)}, "two": {"b": row(S=0.8)}}, {"one": "S", "two": "S"}, ["a", "b"])
    assert found.shared == 0 and np.isnan(found.mean_rank).all() and found.ranks[0, 0] == 1


@pytest.mark.parametrize(
    "names, decides, expected",
    [
        (("R", "A", "M", "T"), "T", ("T", "R", "A")),
        (("NLL", "A_NLL"), "NLL", ("NLL", "NLL", "A_NLL")),
        (("typicality",), "typicality", ("typicality", "typicality", None)),
    ],
)
def test_scores_of_a_kind(names, decides, expected):
    assert tuple(comparison.which_score(names, decides, kind) for kind in comparison.KINDS) == expected


def test_models_shown_real_anomalies_are_compared_with_none():
    normal = {"name": "mnist", "source": "mnist", "label": 3, "n": 9}
    assert comparison.normal_key({"normal": normal}) == ("mnist", 3)
    assert comparison.normal_key({"normal": normal | {"anomalies": "flat"}}) is None
    assert comparison.normal_key({}) is None


def stored(n_total, seed=0, name="mnist"):
    index = draw(n_total, 2000, seed)
    return StoredScores(name, "test", {"S": index.astype(np.float32)}, seed, n_total)


def test_rows_of_two_samples_are_of_the_same_images():
    first, second = stored(5000, 0), stored(5000, 1)
    a, b, index = comparison.same_images(first, second)
    assert 500 < len(index) < 1200, "two draws of 2,000 of 5,000 share about 800"
    assert np.array_equal(first.scores["S"][a], index) and np.array_equal(second.scores["S"][b], index)
    a, b, index = comparison.same_images(stored(300), stored(300, 7))
    assert np.array_equal(a, b) and np.array_equal(index, np.arange(300))


def test_other_splits_are_not_the_same_images():
    for other in (stored(301), stored(300, name="omniglot")):
        with pytest.raises(DataError, match="not the same images"):
            comparison.same_images(stored(300), other)


def test_agreement_counts_who_flags_what(rng):
    p, q = rng.uniform(size=400), rng.uniform(size=400)
    found = comparison.agreement(p, q, 0.3)
    counts = [
        sum(bool(a <= 0.3) == x and bool(b <= 0.3) == y for a, b in zip(p, q)) for x, y in ((1, 1), (1, 0), (0, 1), (0, 0))
    ]
    assert [found.both, found.first_only, found.second_only, found.neither] == counts and found.n == 400
    ranks = [np.argsort(np.argsort(v)) for v in (p, q)]
    assert found.correlation == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert np.isnan(comparison.agreement(np.full(4, 0.5), q[:4], 0.3).correlation)


def test_the_largest_disagreement_comes_first():
    p = np.array([0.01, 0.01, 0.9, 0.04, 0.5])
    q = np.array([0.30, 0.80, 0.02, 0.01, 0.6])
    first, second = comparison.disagreements(p, q, 0.05, 5)
    assert list(first) == [1, 0] and list(second) == [2]
    assert [len(rows) for rows in comparison.disagreements(p, q, 0.05, 1)] == [1, 1]


def rows(**aurocs):
    return {ood: {"scores": {name: {"auroc": value} for name, value in scores.items()}} for ood, scores in aurocs.items()}


def test_the_most_fooling_set_has_the_most_raw_scores_below_chance():
    results = {
        "a": rows(x={"s": 0.4, "A_s": 0.9}, y={"s": 0.45, "A_s": 0.5}, z={"s": 0.01, "A_s": 0.9}),
        "b": rows(x={"r": 0.6, "A_r": 0.7}, y={"r": 0.3, "A_r": 0.8}),
    }
    scores = {"a": ("s", "A_s"), "b": ("r", "A_r")}
    assert comparison.most_fooling(results, scores) == "y"  # z was not measured for b, x fools one alone
    found = comparison.twins_on(results, scores, "y")
    assert list(found) == ["b", "a"] and found["b"] == comparison.Twins("r", "A_r", 0.3, 0.8) and found["a"].fooled
    assert list(comparison.twins_on(results, scores, "z")) == ["a"]
    assert comparison.most_fooling({"a": {}}, {"a": ("s", "A_s")}) is None
