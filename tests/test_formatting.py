"""Numbers and tables as text."""

import pytest

from ama_core.formatting import duration, markdown_table, of_100, share, significant


@pytest.mark.parametrize(
    "seconds, words",
    [
        (0.2, "1 s"),
        (40, "40 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (5400, "90 min"),
        (7800, "2 h 10 min"),
        (11 * 3600 + 5, "11 h"),
        (1e6, "12 days"),
    ],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize("value, words", [(100, "100"), (1000.4, "1,000"), (12.6, "13"), (2.04, "2"), (0.0123, "0.012")])
def test_numbers_have_all_their_digits_before_the_point(value, words):
    assert significant(value, 2) == words


@pytest.mark.parametrize(
    "fraction, words",
    [(0, "0"), (0.004, "fewer than 1"), (0.006, "1"), (0.5, "50"), (0.994, "99"), (0.996, "more than 99"), (1, "100")],
)
def test_a_number_of_100_is_neither_all_nor_none_of_what_is_less_or_more(fraction, words):
    assert of_100(fraction) == words


@pytest.mark.parametrize(
    "p, words", [(1, "nearly all"), (0.03, "3 in 100"), (0.01, "1 in 100"), (0.004, "4 in 1,000"), (2 / 5001, "4 in 10,000")]
)
def test_a_p_value_is_never_none_of_many(p, words):
    assert share(p) == words


def test_a_table_in_markdown():
    assert markdown_table(["a", "b"], [["1", "2"], ["3", ""]]) == ["| a | b |", "| --- | --- |", "| 1 | 2 |", "| 3 |  |"]
