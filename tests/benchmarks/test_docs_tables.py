"""The tables of docs/results.md are those of the stored figures; what stands around them is left alone."""

import pytest

from benchmarks import docs_tables


def test_the_tables_are_those_of_the_stored_figures():
    """If this fails, `python -m benchmarks.docs_tables` mends it: look at the sentences around the tables as well."""
    text = docs_tables.PAGE.read_text(encoding="utf-8")
    assert docs_tables.with_tables(text) == text


def test_only_tables_are_written_again(monkeypatch):
    monkeypatch.setattr(docs_tables, "TABLES", {"one": lambda: ["| new |"], "two": lambda: ["| other |"]})
    text = "a\n\n<!-- table: two -->\nold<!-- end of table -->\n\nb\n\n<!-- table: one -->\n<!-- end of table -->\nc\n"
    once = docs_tables.with_tables(text)
    expected = ["a", "", "<!-- table: two -->", "", "| other |", "", "<!-- end of table -->", "", "b", ""]
    assert once.splitlines() == [*expected, "<!-- table: one -->", "", "| new |", "", "<!-- end of table -->", "c"]
    assert docs_tables.with_tables(once) == once


@pytest.mark.parametrize("mark", ["<!-- table: one -->", "<!-- end of table -->"])
def test_a_missing_mark_is_named(mark, monkeypatch):
    monkeypatch.setattr(docs_tables, "TABLES", {"one": lambda: ["| new |"]})
    with pytest.raises(ValueError, match="no place for the table 'one'"):
        docs_tables.with_tables("<!-- table: one -->\n<!-- end of table -->\n".replace(mark, ""))
