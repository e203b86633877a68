"""The pictures of the documentation, of the pages as they are: `python -m benchmarks.docs_pictures [NAME ...]` writes them.

Needs Chromium, the packages of requirements-dev.txt, and for `densities` and `shell` the sets that they show (AMA_DATA_DIR).
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import sync_playwright

from benchmarks.app_server import CHROMIUM, DRAWN, FLAGS, ROOT, app_server

WIDTH = 1280  # pixels
TIMEOUT = 180_000  # ms


@dataclass(frozen=True)
class Picture:
    """One view of a page.

    Attributes:
        page: its name, with `address`, what the address bar holds. height: of the picture, in pixels.
        press: the name of a button that is pressed first. part: a CSS selector of what is shown instead of the whole window.
    """

    page: str
    address: tuple[tuple[str, str], ...] = ()
    height: int = 1200
    press: str = ""
    part: str = ""


PICTURES = {
    "densities": Picture(
        "densities",
        (
            ("model", "cifar10"),
            ("ood", "photos"),
            ("ood", "house_numbers"),
            ("ood", "mnist"),
            ("axis", "R and A (Fig. 4)"),
        ),
    ),
    "lesson": Picture("lesson", (("model", "photos"), ("step", "Cause")), 1150, "Lowest R"),
    "check": Picture("check", (("model", "photos"), ("sample_set", "house_numbers")), 1250),
    "shell": Picture("shell", (("model", "cifar10"),), 1250),
    "length": Picture("benchmark", height=3000, part='[data-testid="stPlotlyChart"] >> nth=-1'),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PICTURES)}; default: all")
    names = parser.parse_args().names or list(PICTURES)
    if unknown := [name for name in names if name not in PICTURES]:
        parser.error(f"no picture is called {unknown[0]}")
    with (
        tempfile.TemporaryDirectory() as folder,
        app_server(Path(folder) / "server.log", AMA_RUNS_DIR=folder) as (address, _),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for name in names:
            picture = PICTURES[name]
            page = browser.new_page(viewport={"width": WIDTH, "height": picture.height}, color_scheme="light")
            page.goto(f"{address}/{picture.page}?{urlencode(picture.address)}", timeout=TIMEOUT)
            page.wait_for_selector("h1", timeout=TIMEOUT)
            page.wait_for_function(DRAWN, arg=3000, timeout=TIMEOUT)
            if picture.press:
                page.get_by_role("button", name=picture.press).click()
                page.mouse.move(0, 0)  # away from the button, whose help would stay
                page.evaluate("window.quietSince = null")
                page.wait_for_function(DRAWN, arg=3000, timeout=TIMEOUT)
            file = ROOT / "docs" / f"{name}.png"
            (page.locator(picture.part) if picture.part else page).screenshot(path=file)
            page.close()
            print(file)
        browser.close()


if __name__ == "__main__":
    main()
