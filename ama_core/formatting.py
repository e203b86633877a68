"""Numbers and tables as text: durations in words, tables in Markdown."""

from collections.abc import Sequence


def duration(seconds: float) -> str:
    """Seconds in words, with the precision that a waiting person needs: "40 s", "3 min", "2 h 10 min", "13 days"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min" if minutes < 10 * 60 else f"{round(minutes / 60)} h"
    return f"{round(minutes / 1440)} days"


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, and all its digits before the point: "0.0123", "1,130"."""
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def of_100(fraction: float) -> str:
    """A fraction in [0, 1] as a number of 100; neither all nor none of what is less or more: "more than 99"."""
    if 0 < fraction < 0.005:
        return "fewer than 1"
    return "more than 99" if 0.995 <= fraction < 1 else f"{100 * fraction:.0f}"


def share(p: float) -> str:
    """A p-value as a number of images: "3 in 100", "4 in 10,000"."""
    if p >= 0.995:
        return "nearly all"
    of = 100
    while of * p < 1 - 1e-9:  # p is above 0
        of *= 10
    return f"{of * p:.0f} in {of:,}"


def markdown_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown: its headings, the rule below them, and a line for each row."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body)]
