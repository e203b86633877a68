"""Damaged and hostile files by the thousand: `python benchmarks/fuzz.py [--cases 10000] [--seed 0] [--kinds png zip …]`.

Valid images, archives, bundles, run folders, tables and names of files are changed at random: bytes flipped, cut, doubled,
inserted, overwritten with extreme numbers, joined with files of other kinds; values of JSON files replaced by impossible ones,
or by others nested very deeply; sizes in array headers by negative and huge ones. Whatever comes of it must be data, or an
AMAError (for the app: a sentence) within SECONDS; anything else is a defect and is kept in --keep. Reports cases, outcomes, the
slowest case, and how much the resident memory grew.
"""

import argparse
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image
from tqdm import tqdm

from ama_core import AMADetector, AMAError
from ama_core.cli import main as cli
from ama_core.data import decode_image, iter_images, read_npz
from ama_core.detectors.ama.trainer import AMATrainer
from ama_core.paper.records import read_record
from ama_core.runs import timing
from ama_core.runs.folder import Run
from ama_core.runs.spec import RunSpec
from ama_core.scoring import table as streaming
from ama_core.scoring.check import check_files
from ama_core.scoring.report import html_report
from ama_core.storage.bundle import read_results, read_scores

SAMPLES = Path(__file__).resolve().parent.parent / "tests" / "samples"
SECONDS = 5.0  # for one file, on a machine that does other things too
EXTREME = (b"\x00" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x80", b"\x01\x00\x00\x00")
WORDS = (
    None,
    True,
    -1,
    1e308,
    float("nan"),
    10**30,
    "",
    "../../x",
    "<img src=x onerror=alert(1)>",
    [],
    {},
    [[1]],
    "1" * 999,
    "\udcff",
    3.0,
)
SHAPES = (
    b"(-1, 8, 8,3)",
    b"(3, -8,-8,3)",
    b"(0, 8, 8, 3)",
    b"(3, 8, 8, 2)",
    b"(3, 8, 8)   ",
    b"()          ",
    b"(99999999,3)",
)
DEEP = "[" * 100_000

Loader = Callable[[bytes], object]


class Slow(Exception):
    """A file took longer than SECONDS."""


def image_file(kind: str, **options) -> bytes:
    array = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def zip_file() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a.png", "b/c.png", "../d.png"):
            archive.writestr(name, image_file("PNG"))
        archive.writestr("notes.txt", "no image")
    return buffer.getvalue()


def npz_file() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=np.arange(7 * 32 * 32 * 3, dtype=np.uint8).reshape(7, 32, 32, 3), labels=np.arange(7))
    return buffer.getvalue()


def tiff_file() -> bytes:
    """A grey one with 16 bits, of which 12 are used, and tags that say so."""
    values = np.random.default_rng(0).integers(0, 4096, (40, 30), dtype=np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "TIFF", tiffinfo={281: 4095}, exif={0x0112: 6})
    return buffer.getvalue()


def npz_member() -> bytes:
    """What `images.npy` holds: changed inside a sound archive, it meets no checksum."""
    buffer = io.BytesIO()
    np.save(buffer, np.arange(3 * 8 * 8 * 3, dtype=np.uint8).reshape(3, 8, 8, 3))
    return buffer.getvalue()


def in_archive(data: bytes) -> None:
    """A member under test in an archive that is otherwise sound, row by row and whole."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("images.npy", data)
    walk("a.npz")(buffer.getvalue())
    read_npz(buffer, "a.npz")


def command(*words: str | Path) -> None:
    """A command, which prints; raises AMAError where it refuses in words."""
    said = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(said):
        if cli.main([str(word) for word in words]):
            raise AMAError(said.getvalue())


def about(folder: Path) -> None:
    """What `info` prints of a bundle."""
    command("info", folder)
    command("info", folder, "--json")


def tables(place: Path) -> dict[str, tuple[bytes, Loader]]:
    """A table half written, and what it belongs to, each of which is changed before the table is continued."""
    detector = AMADetector.load(SAMPLES / "bundle-v1", device="cpu")
    (place / "images").mkdir()
    for i in range(3):
        (place / "images" / f"=1+{i}.png").write_bytes(image_file("PNG"))
    out = place / "t.csv"
    beside = out.with_name("t.csv.meta.json")

    def score() -> None:
        streaming.score_to_file(detector, SAMPLES / "bundle-v1", [place / "images"], out, 0.05, resume=True)

    score()
    whole = out.read_bytes()
    cut = whole.index(b"\n", whole.index(b"1+1")) + 1
    meta = json.dumps(json.loads(beside.read_text()) | {"rows": 2, "bytes": cut, "complete": False}).encode()

    def table(data: bytes) -> None:
        out.write_bytes(data)
        beside.write_bytes(json.dumps(json.loads(meta) | {"bytes": len(data)}).encode())
        score()

    def belongs(data: bytes) -> None:
        out.write_bytes(whole[:cut])
        beside.write_bytes(data)
        score()

    def named(data: bytes) -> None:
        """A name of an image, in a report and in a table."""
        name = data.replace(b"/", b"").replace(b"\0", b"").strip(b".")[:100] or b"x"
        folder = place / "named"
        folder.mkdir()
        try:
            (folder / os.fsdecode(name + b".png")).write_bytes(image_file("PNG"))
            html_report(detector, "m", check_files(detector, [folder], 5), 0.05).encode(errors="backslashreplace")
            for row in streaming.score_rows(detector, [folder], 0.05):
                streaming.csv_line(row.values()).encode()
        finally:
            shutil.rmtree(folder)

    return {"table": (whole[:cut], table), "table's owner": (meta, belongs), "name": ("=bild-ä.png".encode(), named)}


def walk(name: str) -> Loader:
    def load(data: bytes) -> None:
        for _ in iter_images([(name, data)]):
            pass

    return load


def in_folder(sample: str, file: str, place: Path, load: Callable[[Path], object]) -> tuple[bytes, Loader]:
    """A sample folder of which one file is replaced by the bytes under test."""
    folder = place / f"{sample}-{file}"
    shutil.copytree(SAMPLES / sample, folder)

    def replaced(data: bytes) -> None:
        (folder / file).write_bytes(data)
        load(folder)

    return (SAMPLES / sample / file).read_bytes(), replaced


def look(folder: Path) -> None:
    """What the app reads of a run."""
    run = Run(folder)
    run.status()
    RunSpec.read(folder)
    run.curves()
    run.samples()
    run.read_log()


def subjects(place: Path) -> dict[str, tuple[bytes, Loader]]:
    """Kind -> a valid file, and what reads it."""
    scores = (Path(__file__).resolve().parent.parent / "pretrained" / "digits" / "scores.npz").read_bytes()
    (place / "scores").mkdir()

    def stored(data: bytes) -> None:
        (place / "scores" / "scores.npz").write_bytes(data)
        read_scores(place / "scores")

    def results(data: bytes) -> None:
        (place / "scores" / "results.json").write_bytes(data)
        read_results(place / "scores")
        (place / "info" / "results.json").write_bytes(data)
        about(place / "info")

    def remembered(data: bytes) -> None:
        (place / "scores" / timing.FILE).write_bytes(data)
        timing.known(AMADetector.load(SAMPLES / "bundle-v1").settings, place / "scores")

    def record(data: bytes) -> None:
        (place / "record.json").write_bytes(data)
        read_record(place / "record.json")

    shutil.copytree(SAMPLES / "bundle-v1", place / "info")
    measured = SAMPLES.parent.parent / "pretrained" / "digits" / "results.json"
    a_record = next((SAMPLES.parent.parent / "results").glob("*.json"))

    return {
        "png": (image_file("PNG"), decode_image),
        "jpeg": (image_file("JPEG"), decode_image),
        "tiff": (image_file("TIFF", compression="tiff_lzw"), decode_image),
        "tiff, 16 bits": (tiff_file(), decode_image),
        "gif": (image_file("GIF"), decode_image),
        "webp": (image_file("WEBP"), decode_image),
        "zip": (zip_file(), walk("a.zip")),
        "npz": (npz_file(), walk("a.npz")),
        "npz-whole": (npz_file(), lambda data: read_npz(io.BytesIO(data), "a.npz")),
        "npz header": (npz_member(), in_archive),
        "weights": in_folder("bundle-v1", "model.safetensors", place, AMADetector.load),
        "calibration": in_folder("bundle-v1", "calibration.npz", place, AMADetector.load),
        "config": in_folder("bundle-v1", "config.json", place, lambda folder: (about(folder), AMADetector.load(folder))),
        "scores": (scores, stored),
        "results": (measured.read_bytes(), results),
        "timing": (b'{"a": {}}', remembered),
        "record": (a_record.read_bytes(), record),
        **tables(place),
        "run": in_folder("run-v1", "run.json", place, look),
        "status": in_folder("run-v1", "status.json", place, look),
        "metrics": in_folder("run-v1", "metrics.jsonl", place, look),
        "checkpoint": in_folder(
            "run-v1",
            "checkpoint.safetensors",
            place,
            lambda folder: AMATrainer.load(folder / "checkpoint.safetensors", torch.device("cpu")),
        ),
    }


def mutate(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """One to four random changes."""
    if data[:1] == b"{" and chance.random() < 0.5:
        try:
            return _mutate_json(data, chance)
        except ValueError:  # several documents, a line each
            pass
    changed = bytearray(data)
    if data[:6] == b"\x93NUMPY" and chance.random() < 0.5:
        return data.replace(b"(3, 8, 8, 3)", chance.choice(SHAPES)).replace(b"False", chance.choice((b"False", b"True ")), 1)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed)) if changed else 0
        if chance.random() < 0.4:
            at = min(at, chance.randrange(200))  # headers decide most
        length = chance.choice((1, 4, 16, 256))
        match chance.randrange(7):
            case 0 if changed:
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                del changed[at:]
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = changed[at : at + length] * chance.randint(1, 50)
            case 4:
                changed[at:at] = chance.randbytes(length)
            case 5:
                changed[at : at + 4] = chance.choice(EXTREME)
            case 6:
                other = chance.choice(others)
                changed = bytearray(chance.choice((other + changed, changed + other)))
    return bytes(changed)


def _mutate_json(data: bytes, chance: random.Random) -> bytes:
    value = json.loads(data)
    place = value
    while True:
        key = chance.choice(list(place))
        if not isinstance(place[key], dict) or not place[key] or chance.random() < 0.2:
            break
        place = place[key]
    if chance.random() < 0.2:
        del place[key]
    elif chance.random() < 0.2:
        place[key] = "deep"
        return json.dumps(value).replace('"deep"', DEEP).encode()
    else:
        place[key] = chance.choice(WORDS)
    return json.dumps(value).encode()


def fuzz(cases: int, seed: int, kinds: list[str] | None = None, keep: Path | None = None) -> dict:
    """Try `cases` changed files, the kinds in turn; raises the first defect where `keep` is None, else stores each there."""
    chance = random.Random(seed)
    warnings.simplefilter("ignore")
    process = psutil.Process()
    outcomes, slowest, defects = Counter(), (0.0, ""), 0
    with tempfile.TemporaryDirectory() as place:
        found = subjects(Path(place))
        names = kinds or list(found)
        others = [data for data, _ in found.values()]
        before = process.memory_info().rss
        for i in tqdm(range(cases), unit="file", disable=None):
            kind = names[i % len(names)]
            data, load = found[kind]
            changed = mutate(data, chance, others)
            began = time.perf_counter()
            try:
                try:
                    load(changed)
                    outcomes["read"] += 1
                except AMAError:
                    outcomes["refused in words"] += 1
                if (seconds := time.perf_counter() - began) > SECONDS:
                    raise Slow(f"{seconds:.1f} s")
                slowest = max(slowest, (seconds, kind))
            except Exception as error:
                if keep is None:
                    raise AssertionError(f"{kind}: {type(error).__name__}: {error}") from error
                defects += 1
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{kind}-{i}").write_bytes(changed)
                where = traceback.extract_tb(error.__traceback__)[-1]
                print(f"{kind} {i}: {type(error).__name__}: {error} in {where.name}, line {where.lineno} of {where.filename}")
        grown = process.memory_info().rss - before
    return {
        "cases": cases,
        **outcomes,
        "defects": defects,
        "slowest_s": round(slowest[0], 2),
        "slowest": slowest[1],
        "memory_grew_mb": grown >> 20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", metavar="KIND")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "fuzz-defects", metavar="DIR")
    arguments = parser.parse_args()
    found = fuzz(arguments.cases, arguments.seed, arguments.kinds, arguments.keep)
    print("\n".join(f"{name}: {value}" for name, value in found.items()))
    if found["defects"]:
        sys.exit(f"The files are in {arguments.keep}.")


if __name__ == "__main__":
    main()
