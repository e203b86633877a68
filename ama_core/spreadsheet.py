"""Words in tables that a spreadsheet may open: none may run as a formula, whatever files and models are called."""

from typing import Any

FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # what a formula can begin with, in the wide forms of East Asian input as well


def safe_cell(value: Any) -> Any:
    """Words that a spreadsheet would take for a formula, with an apostrophe before them; any other value as it is."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
