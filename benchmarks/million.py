"""Scoring a great many images, killed on the way: `python benchmarks/million.py [--images 200000] [--model digits] [--json]`.

Generates images (seeded noise of many contrasts) as one .npz file, a .zip of PNG files, and a folder of PNG files, in the
proportion 80 : 10 : 10, and scores them all with `python -m ama_core score --out`. The process is killed with SIGKILL when
half are done, and resumed. Reported: images/s, resident memory after the first batch, at the kill, and at the end; whether
every image has exactly one row, in order; and whether the rows equal those of an undisturbed call on the last tenth.
"""

import argparse
import csv
import io
import json
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from tqdm import tqdm


def generate(place: Path, n: int) -> list[Path]:
    """n images, uint8 (32, 32), in an .npz file, a .zip file and a folder."""
    rng = np.random.default_rng(0)
    parts = (n - 2 * (n // 10), n // 10, n // 10)

    def image() -> np.ndarray:
        return (rng.random((32, 32)) * rng.integers(1, 256)).astype(np.uint8)

    with tqdm(total=n, unit="image", desc="generating", disable=None) as bar:
        archive = zipfile.ZipFile(place / "a.npz", "w")
        with archive, archive.open("images.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (parts[0], 32, 32)})
            for _ in range(parts[0]):
                member.write(image().tobytes())
                bar.update()
        folder = place / "c"
        with zipfile.ZipFile(place / "b.zip", "w") as archive:
            for i in range(parts[1] + parts[2]):
                png = io.BytesIO()
                Image.fromarray(image()).save(png, "PNG")
                if i < parts[1]:
                    archive.writestr(f"{i:07}.png", png.getvalue())
                else:
                    target = folder / f"{i // 1000:04}"
                    target.mkdir(parents=True, exist_ok=True)
                    (target / f"{i:07}.png").write_bytes(png.getvalue())
                bar.update()
    return [place / "a.npz", place / "b.zip", folder]


def call(model: str, sources: list[Path], out: Path, *more: str) -> subprocess.Popen:
    words = [sys.executable, "-m", "ama_core", "score", model, *map(str, sources), "--out", str(out), "--quiet", *more]
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True)


def watch(process: subprocess.Popen, beside: Path, since: int = 0, until: int | None = None) -> list[tuple[int, int]]:
    """(rows, resident bytes) while a process works, from the row `since`; it is killed when `until` rows are written."""
    seen = []
    inside = psutil.Process(process.pid)
    while process.poll() is None:
        time.sleep(0.2)
        try:
            rows, memory = json.loads(beside.read_text())["rows"], inside.memory_info().rss
        except (OSError, psutil.Error):
            continue
        if rows > since:
            seen.append((rows, memory))
        if until and rows >= until:
            process.send_signal(signal.SIGKILL)
            process.wait()
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--model", default="digits")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    n = arguments.images
    with tempfile.TemporaryDirectory() as place:
        sources = generate(Path(place), n)
        out = Path(place) / "out.csv"
        beside = out.with_name(f"{out.name}.meta.json")
        began = time.perf_counter()
        first = watch(call(arguments.model, sources, out), beside, until=n // 2)
        killed_at = json.loads(beside.read_text())["rows"]
        process = call(arguments.model, sources, out, "--resume")
        second = watch(process, beside, since=killed_at)
        seconds = time.perf_counter() - began
        if process.returncode:
            sys.exit(process.stderr.read())

        rows, names, in_order, last = 0, set(), True, []
        with open(out, newline="") as file:
            for row in csv.DictReader(file):
                names.add(hash((row["path"], row["index"])))
                in_order &= not row["error"] and (row["path"] != str(sources[0]) or int(row["index"]) == rows)
                if row["path"].startswith(str(sources[2])):
                    last.append(row)
                rows += 1
        again = Path(place) / "again.csv"
        call(arguments.model, sources[2:], again).wait()
        with open(again, newline="") as file:
            same = list(csv.DictReader(file)) == last
    found = {
        "images": n,
        "rows": rows,
        "distinct": len(names),
        "in_order": in_order,
        "equals_undisturbed": same,
        "killed_at": killed_at,
        "images_per_s": n / seconds,
        "memory_mb": {
            "first batch": first[0][1] >> 20,
            "at the kill": first[-1][1] >> 20,
            "resumed": second[0][1] >> 20,
            "end": second[-1][1] >> 20,
            "peak": max(memory for _, memory in first + second) >> 20,
        },
    }
    if arguments.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{name}: {value}" for name, value in found.items()))
    if not rows == len(names) == n or not in_order or not same:
        sys.exit("Images were lost, scored twice, or scored differently.")


if __name__ == "__main__":
    main()
