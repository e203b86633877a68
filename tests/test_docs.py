"""The documentation: its links lead somewhere, and its commands are ones that the parser takes."""

import re
import shlex
from pathlib import Path

import pytest

from ama_core.cli.main import parser

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"^(?:[A-Z_]+=\S+ )*python -m ama_core (.+)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def commands(page: Path) -> list[str]:
    """The commands in the code blocks of a page, without what the shell does with their output."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = COMMAND.findall("\n".join(block.replace("\\\n", " ") for block in blocks))
    return [re.split(r"\s#|\s>|\s&|\s\|", line)[0] for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        if "://" in link:
            continue
        file = page.parent / target if target else page
        assert file.exists(), f"{link} of {page.name}"
        assert not anchor or anchor in anchors(file), f"{link} of {page.name}"


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_commands_are_taken_by_the_parser(page):
    for command in commands(page):
        try:
            parser().parse_args(shlex.split(command))
        except SystemExit:
            pytest.fail(f"{page.name}: {command}")


def test_commands_are_found():
    assert {len(commands(page)) > 3 for page in PAGES if page.name in ("README.md", "cli.md", "own-images.md")} == {True}
