"""Models beside each other: the heat table and its ranks, the same images of two models, and where they disagree."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from ama_core.data import draw, load, load_any
from ama_core.errors import DataError
from ama_core.evaluation import comparison
from ama_core.evaluation.metrics import auroc_interval
from ama_core.evaluation.protocol import evaluate, stored_images
from ama_core.storage.bundle import StoredScores, read_scores, write_scores


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
    assert comparison.normal_key({"normal": normal}) == ("mnist", 3, "")
    assert comparison.normal_key({"normal": normal | {"anomalies": "flat"}}) is None
    assert comparison.normal_key({}) is None


def test_own_images_are_known_by_their_path():
    one, other = ({"normal": {"name": "mnist", "source": path}} for path in ("/home/me/mnist", "/home/you/mnist"))
    assert comparison.normal_key(one) == ("mnist", None, "/home/me/mnist") != comparison.normal_key(other)
    assert comparison.normal_key({"normal": {"name": "mnist", "source": "mine/mnist"}}) == ("mnist", None, "")


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
    one, other = (replace(stored(300), scores={"S": np.zeros(2)}, index=np.array(at), n_split=300) for at in ([0, 1], [2, 3]))
    with pytest.raises(DataError, match="no image in common"):
        comparison.same_images(one, other)


def said_to_be(detector, seed=0, **normal):
    """The same weights under another seed and other words on what they were trained with."""
    other = copy.copy(detector)
    other.config = detector.config.replace(seed=seed)
    other.info_ = {"config": other.config.to_dict(), "normal": {**detector.info_["normal"], **normal}}
    return other


def kept(detector, name, folder, **options):
    """The stored scores of a set, by the file they are stored in."""
    found = []
    evaluate(detector, [name], keep=found.append, **options)
    write_scores(folder, found)
    return read_scores(folder)[-1]


@pytest.fixture()
def faults(tmp_path, rng):
    np.savez(tmp_path / "faults.npz", images=rng.integers(0, 256, (150, 32, 32, 1), dtype=np.uint8))
    return str(tmp_path / "faults.npz")


def test_models_validated_on_other_images_of_a_set_are_paired_on_those_that_both_left(tiny_detector, faults, tmp_path):
    models = [said_to_be(tiny_detector, seed, validation_ood=faults) for seed in (0, 1)]
    first, second = (kept(model, faults, tmp_path, full=True) for model in models)
    assert first.n_total == second.n_total == 100
    a, b, index = comparison.same_images(first, second)
    assert 50 <= len(index) < 100
    shown = [stored_images(model, s).images[rows] for model, s, rows in zip(models, (first, second), (a, b))]
    np.testing.assert_array_equal(shown[0], shown[1])
    np.testing.assert_array_equal(shown[0], load_any(faults, "ood").images[index])
    np.testing.assert_array_equal(first.scores["R"][a], second.scores["R"][b])
    # One that left nothing out has all of them.
    everything = kept(tiny_detector, faults, tmp_path, full=True)
    np.testing.assert_array_equal(comparison.same_images(first, everything)[1], first.index)


def test_a_drawn_part_of_a_set_and_the_other_classes_are_known_by_image(tiny_detector, tmp_path):
    parts = [kept(tiny_detector, "textures", tmp_path, seed=seed) for seed in (0, 1)]
    assert parts[0].n_total == parts[1].n_total == 100
    a, b, index = comparison.same_images(*parts)
    assert len(index) < 100 and np.array_equal(parts[0].scores["R"][a], parts[1].scores["R"][b])
    rest = [kept(said_to_be(tiny_detector, label=label), "rest", tmp_path, full=True) for label in (3, 4)]
    a, b, index = comparison.same_images(*rest)
    np.testing.assert_array_equal(rest[0].scores["R"][a], rest[1].scores["R"][b])
    assert not np.isin(load("digits", "test").labels[index], (3, 4)).any()


def test_older_scores_are_paired_where_nothing_or_the_same_was_left_out(tiny_detector, faults, tmp_path):
    infos = [said_to_be(tiny_detector, seed, validation_ood=ood).info_ for seed, ood in ((0, faults), (1, faults), (0, "flat"))]
    new = kept(said_to_be(tiny_detector, validation_ood=faults), faults, tmp_path, full=True)
    old = replace(new, index=None, n_split=None)
    for pair in ((old, old), (old, new), (new, old)):
        assert len(comparison.same_images(*pair, (infos[0], infos[0]))[2]) == 100
        for others in ((infos[0], infos[1]), (infos[1], infos[0])):
            with pytest.raises(DataError, match="measure both again"):
                comparison.same_images(*pair, others)
    with pytest.raises(DataError, match="measure both again"):
        comparison.same_images(old, old, (infos[0], infos[2]))
    whole = kept(tiny_detector, faults, tmp_path, full=True)
    assert len(comparison.same_images(replace(whole, index=None, n_split=None), whole, (infos[2], infos[0]))[2]) == 150


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
    found = comparison.two_sided_gains(results, scores, "y")
    assert list(found) == ["b", "a"] and found["b"] == comparison.TwoSidedGain("r", "A_r", 0.3, 0.8) and found["a"].fooled
    assert list(comparison.two_sided_gains(results, scores, "z")) == ["a"]
    assert comparison.most_fooling({"a": {}}, {"a": ("s", "A_s")}) is None
