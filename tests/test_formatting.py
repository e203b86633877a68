"""Numbers and tables as text."""

import pytest

from ama_core.formatting import duration, markdown_table, significant


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


def test_a_table_in_markdown():
    assert markdown_table(["a", "b"], [["1", "2"], ["3", ""]]) == ["| a | b |", "| --- | --- |", "| 1 | 2 |", "| 3 |  |"]
