"""Which OOD set shows a point: the rules, on made-up figures."""

import pytest

from ama_core.evaluation import cases
from ama_core.evaluation.cases import shows_both, telling_set


def sets(**values: tuple[float, float, float, float]) -> dict[str, dict[str, float]]:
    return {name: dict(zip("RAMT", row)) for name, row in values.items()}


MADE_UP = sets(
    works=(0.97, 0.96, 0.97, 0.98),
    best=(0.99, 0.9, 0.97, 0.98),
    fails=(0.2, 0.7, 0.8, 0.75),
    worst=(0.1, 0.3, 0.4, 0.6),
    on_top=(0.52, 0.5, 0.95, 0.9),
    nothing=(0.5, 0.45, 0.48, 0.47),
)


def test_every_point_has_its_set():
    assert cases.hope_set(MADE_UP) == "best" and cases.hope_set(MADE_UP, ("fails", "works")) == "works"
    assert cases.failure_set(MADE_UP) == "worst" and cases.failure_set(MADE_UP, ("works", "fails")) == "fails"
    assert cases.failure_set(MADE_UP, ("nothing",)) == "worst", "chance is no failure"
    assert cases.band_set(MADE_UP) == "fails" and cases.overlap_set(MADE_UP) == "on_top"
    assert cases.limit_set(MADE_UP) == "nothing" and cases.best_of(MADE_UP["nothing"]) == "R"
    assert cases.telling_sets(MADE_UP, ("fails",), ("works",)) == ["fails", "on_top", "works"]


def test_one_set_serves_for_all_and_stands_once():
    assert cases.telling_sets(sets(only=(0.9, 0.9, 0.9, 0.9))) == ["only"]


@pytest.mark.parametrize("r, chosen", [(0.46, "svhn"), (0.48, "other"), (0.9, "other")])
def test_the_papers_set_goes_first_only_where_r_fails_on_it(r, chosen):
    assert cases.failure_set(sets(svhn=(r, 0.9, 0.9, 0.9), other=(0.3, 0.9, 0.9, 0.9)), ("svhn",)) == chosen


@pytest.mark.parametrize(
    "aurocs, first, chosen",
    [
        ({"a": (0.3, 0.4, 0.9, 0.9), "b": (0.2, 0.9, 0.9, 0.9), "c": (0.1, 0.4, 0.6, 0.5)}, (), "c"),
        ({"a": (0.3, 0.4, 0.9, 0.9), "b": (0.2, 0.9, 0.9, 0.9), "c": (0.1, 0.4, 0.6, 0.5)}, ("z", "b", "a"), "a"),
        ({"a": (0.8, 0.4, 0.9, 0.9), "b": (0.6, 0.9, 0.9, 0.9)}, ("a",), "b"),
    ],
)
def test_the_telling_set(aurocs, first, chosen):
    aurocs = sets(**aurocs)
    assert telling_set(aurocs, first) == chosen
    assert shows_both(aurocs[chosen]) == (chosen != "b")
