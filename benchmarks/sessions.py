"""Many people at once: `python benchmarks/sessions.py [--sessions 20] [--rounds 5] [--files 10] [--json]`.

One server on the bundled models, and as many browsers' sessions, each with cookies of its own, in one headless Chromium. In
every round each session opens Check images at its own false-alarm rate, uploads files that nobody else has, and must see its
own names, its own rate, and the R that the engine gives to its own image; then it opens another page. Reported: seconds from
upload to verdict and from address to heading under this load (p50, p95), errors, cross-talk, and the server's resident memory
after each round. Chromium runs on the same cores as the server.
"""

import argparse
import asyncio
import io
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from app_server import CHROMIUM, DRAWN, FLAGS, app_server
from PIL import Image
from playwright.async_api import Browser, async_playwright

from ama_core import AMADetector

TIMEOUT = 300_000  # ms: the last of many sessions waits for all the others
MODEL = "digits"
QUIET = 500  # ms without a script that runs, after which a page counts as drawn
OTHERS = ("densities", "about", "reconstructions", "benchmark", "simplex")
RATES = (0.02, 0.05, 0.1, 0.2)  # at 0.01 the calibration of MODEL decides nothing


def pictures(session: int, round_: int, n: int) -> list[tuple[str, np.ndarray]]:
    """Names and images, uint8 (32, 32), of one session in one round."""
    rng = np.random.default_rng([session, round_])
    contrast = rng.integers(30, 256, n)
    return [(f"s{session}-r{round_}-{i}.png", (rng.random((32, 32)) * contrast[i]).astype(np.uint8)) for i in range(n)]


async def take_part(browser: Browser, address: str, session: int, rounds: int, files: int, expected, found: dict) -> None:
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(TIMEOUT)
    page = await context.new_page()
    alpha = RATES[session % len(RATES)]
    for round_ in range(rounds):
        began = time.perf_counter()
        await page.goto(f"{address}/check?model={MODEL}&alpha={alpha}", timeout=TIMEOUT)
        await page.get_by_role("heading", name="Check images").wait_for()
        found["page_s"].append(time.perf_counter() - began)
        given = []
        for name, image in pictures(session, round_, files):
            file = io.BytesIO()
            Image.fromarray(image).save(file, "PNG")
            given.append({"name": name, "mimeType": "image/png", "buffer": file.getvalue()})
        began = time.perf_counter()
        await page.locator('input[type="file"]').first.set_input_files(given)
        summary = page.locator("p", has_text=f"of {files} images").first
        await summary.wait_for()
        heading = page.get_by_role("heading", name=f"s{session}-r{round_}-").first
        await heading.wait_for()
        found["upload_s"].append(time.perf_counter() - began)
        found["uploads"] += files
        await page.wait_for_function(DRAWN, arg=QUIET)  # the heading comes before the numbers under it
        said, name = await summary.inner_text(), (await heading.inner_text()).strip()
        shown = await page.get_by_test_id("stMetricValue").first.inner_text()
        r, flagged = expected(session, round_, alpha)
        if (
            float(shown) != float(f"{r[name]:.4g}")
            or f"{flagged} of {files}" not in said
            or f"α of {100 * alpha:.2g} %" not in said
        ):
            found["cross_talk"].append(f"session {session}: {name} R {shown}, not {r.get(name)}; {said}")
        began = time.perf_counter()
        await page.goto(f"{address}/{OTHERS[(session + round_) % len(OTHERS)]}", timeout=TIMEOUT)
        await page.get_by_role("heading").first.wait_for()
        found["page_s"].append(time.perf_counter() - began)
        if await page.get_by_test_id("stException").count():
            found["errors"].append(f"session {session}, round {round_}: {page.url}")
        found["rounds"][round_] += 1
    await context.close()


async def watch(server: psutil.Process, found: dict, sessions: int) -> None:
    """The server's memory whenever everybody has finished a round."""
    while True:
        done = sum(n == sessions for n in found["rounds"])
        while len(found["memory_mb"]) <= done:
            found["memory_mb"].append(server.memory_info().rss >> 20)
        await asyncio.sleep(0.5)


async def run(address: str, server: psutil.Process, sessions: int, rounds: int, files: int) -> dict:
    detector = AMADetector.load(MODEL, device="cpu")

    def expected(session: int, round_: int, alpha: float):
        names, images = zip(*pictures(session, round_, files))
        scores = detector.scores(np.stack(images)[..., None])
        return dict(zip(names, scores["R"])), int((scores["p_T"] <= alpha).sum())

    found = {
        "page_s": [],
        "upload_s": [],
        "uploads": 0,
        "errors": [],
        "cross_talk": [],
        "memory_mb": [],
        "rounds": [0] * rounds,
    }
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        watcher = asyncio.create_task(watch(server, found, sessions))
        parts = (take_part(browser, address, i, rounds, files, expected, found) for i in range(sessions))
        for ended in await asyncio.gather(*parts, return_exceptions=True):
            if isinstance(ended, BaseException):
                found["errors"].append(f"{type(ended).__name__}: {str(ended)[:200]}")
        await asyncio.sleep(1.0)
        watcher.cancel()
        await browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=10, help="uploaded at once")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "server.log"
        with app_server(log, AMA_RUNS_DIR=place) as (address, server):
            inside = psutil.Process(server.pid)
            began = time.perf_counter()
            found = asyncio.run(run(address, inside, arguments.sessions, arguments.rounds, arguments.files))
            seconds = time.perf_counter() - began
        said = log.read_text()
    if "Traceback" in said:
        found["errors"].append(said[-2000:])
    figures = {
        what: {"p50": statistics.median(found[what]), "p95": float(np.quantile(found[what], 0.95)), "n": len(found[what])}
        for what in ("upload_s", "page_s")
        if found[what]
    }
    rest = {name: found[name] for name in ("uploads", "errors", "cross_talk", "memory_mb")}
    result = {"sessions": arguments.sessions, "seconds": seconds, **figures, **rest}
    print(json.dumps(result) if arguments.json else "\n".join(f"{name}: {value}" for name, value in result.items()))
    if found["errors"] or found["cross_talk"]:
        sys.exit("There were errors or cross-talk.")


if __name__ == "__main__":
    main()
