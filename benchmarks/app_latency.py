"""How fast the app answers, in a real browser: `python benchmarks/app_latency.py [--rounds 20] [--json]`.

One fresh server on the bundled models. For each page: the time from asking for its address to its first chart (or, on a page
without one, image or table), on the first visit, when the server has computed nothing yet, and on a second in a new tab;
then one control that the page is about, used by keyboard again and again, from the last key press until the page has been drawn
anew and a frame painted. Needs Chromium and the packages of requirements-dev.txt. The very first page also pays for the
imports of a fresh server; a visit to /about before the table is taken keeps that out of it.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from app_server import CHROMIUM, DRAWN, FLAGS, app_server
from playwright.sync_api import Page, sync_playwright

TIMEOUT = 60_000  # ms
CHART = '[data-testid="stPlotlyChart"] .main-svg, [data-testid="stVegaLiteChart"] canvas'
IMAGE = '[data-testid="stMain"] img'
TABLE = '[data-testid="stDataFrame"], [data-testid="stTable"]'

# Page and view -> what is waited for, the control as (role, name), and the keys that use it, one use after the other.
PAGES = {
    "lesson?step=Cause": (CHART, ("slider", "Contrast"), ("ArrowLeft", "ArrowRight")),
    "lesson?step=Threshold": (CHART, ("slider", "Threshold on R"), ("ArrowRight", "ArrowLeft")),
    "densities": (CHART, ("switch", "Histogram"), ("Space",)),
    "reconstructions": (IMAGE, ("spinbutton", "Page ("), ("ArrowUp Enter", "ArrowDown Enter")),
    "shell": (CHART, ("slider", "δ"), ("ArrowRight", "ArrowLeft")),
    "simplex": (CHART, ("slider", "Weight of A"), ("ArrowRight", "ArrowLeft")),
    "train": ('[data-testid="stSelectbox"]', ("combobox", "Size"), ("ArrowDown ArrowDown Enter", "ArrowDown ArrowUp Enter")),
    "check?sample_set=photos": (TABLE, ("spinbutton", "From number"), ("ArrowUp Enter", "ArrowDown Enter")),
    "benchmark": (TABLE, ("switch", "Also sets"), ("Space",)),
    "about?part=Settings": (TABLE, ("switch", "Only what differs"), ("Space",)),
}

# From a key press to the first frame after the script has run: two painted frames with the app at rest, once it has begun.
ANSWER = """() => new Promise(done => {
    const app = document.querySelector('[data-testid="stApp"]');
    const began = performance.now();
    let ran = false, rest = 0;
    const look = () => {
        const running = app.dataset.testScriptState === "running";
        ran ||= running;
        rest = ran && !running && !document.querySelector('[data-testid="stSkeleton"]') ? rest + 1 : 0;
        if (rest == 2) done(performance.now() - began);
        else if (performance.now() - began > 20000) done(NaN);
        else requestAnimationFrame(look);
    };
    look();
})"""


def settle(page: Page) -> None:
    """Wait until no script has run for a second."""
    page.wait_for_function(DRAWN, arg=1000, polling=50, timeout=TIMEOUT)


def first_chart(page: Page, address: str, wanted: str) -> float:
    """Seconds until what the page shows first is there."""
    begun = time.perf_counter()
    page.goto(address)
    page.locator(wanted).first.wait_for(timeout=TIMEOUT)
    return time.perf_counter() - begun


def answers(page: Page, control: tuple[str, str], keys: tuple[str, ...], rounds: int) -> list[float]:
    """Seconds that each use of a control takes."""
    role, name = control
    found = page.get_by_role(role, name=name).first
    found.scroll_into_view_if_needed()
    taken = []
    for i in range(rounds + 2):
        found.focus()
        *before, last = keys[i % len(keys)].split()
        for key in before:
            page.keyboard.press(key)
        watched = page.evaluate_handle(f"() => ({{ seconds: ({ANSWER})() }})")
        page.keyboard.press(last)
        taken.append(page.evaluate("watched => watched.seconds", watched) / 1000)
        settle(page)
    return taken[2:]  # the first two fill caches that any reader fills at once


def measure(address: str, rounds: int) -> dict[str, dict[str, float]]:
    """The figures of every page."""
    found = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page()
        first_chart(tab, f"{address}/about", "h1")
        settle(tab)
        tab.close()
        for path, (wanted, control, keys) in PAGES.items():
            figures = {}
            for visit in ("first visit", "next visit"):
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                figures[visit] = first_chart(page, f"{address}/{path}", wanted)
                settle(page)
                if visit == "next visit":
                    taken = answers(page, control, keys, rounds)
                    figures["p50"] = statistics.median(taken)
                    figures["p95"] = statistics.quantiles(taken, n=20)[-1]
                page.close()
            found[path] = figures | {"control": control[1]}
            print(path, figures, file=sys.stderr, flush=True)
        browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="uses of each control (default 20)")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as runs, app_server(Path(runs) / "server.log", AMA_RUNS_DIR=runs) as (address, _):
        found = measure(address, asked.rounds)
    if asked.json:
        print(json.dumps(found))
        return
    print("| page | first chart, first visit | next visit | control | p50 | p95 |\n|---|---|---|---|---|---|")
    for path, row in found.items():
        print(
            f"| `/{path}` | {row['first visit']:.2f} s | {row['next visit']:.2f} s | {row['control']} "
            f"| {row['p50']:.2f} s | {row['p95']:.2f} s |"
        )


if __name__ == "__main__":
    main()
