"""Hostile input: whatever a file holds, its reader gives data or an AMAError, in bounded time and memory, and runs nothing.

Single tricks are in data/test_files.py and storage/test_bundle.py; `benchmarks/fuzz.py` tries ten thousand files.
"""

import io
import os
import resource
import shutil
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ama_core import AMADetector, AMAError
from ama_core.analysis.latent_map import read_latents
from ama_core.analysis.neighbours import read_neighbours
from ama_core.data import decode_image, iter_images
from ama_core.errors import BundleError
from ama_core.storage.bundle import read_bundle, read_scores
from tests.common import ROOT

NAME = "<img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def fuzz():
    from benchmarks import fuzz

    return fuzz


@pytest.mark.filterwarnings("ignore")
def test_changed_files_are_data_or_an_error_in_words(fuzz):
    found = fuzz.fuzz(1000, seed=11)  # the same files every time: benchmarks/fuzz.py looks for further ones
    assert found["read"] > 100 and found["refused in words"] > 300 and found["memory_grew_mb"] < 600


def test_every_kind_is_read_unchanged(fuzz, tmp_path):
    """Else the fuzzing would try nothing."""
    for data, load in fuzz.subjects(tmp_path).values():
        load(data)


HOSTILE_JSON = (
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"config": null, "normal": null}',
    b'{"results":[{"ood":"<b>","scores":3}]}',
    b"[]",
    b"null",
    b"\xff\xfe",
    b"1e999",
    b"",
)


@pytest.mark.parametrize("content", HOSTILE_JSON, ids=lambda content: repr(content[:20]))
def test_every_reader_of_json_refuses_in_words(fuzz, tmp_path, content):
    kinds = {kind: load for kind, (data, load) in fuzz.subjects(tmp_path).items() if data[:1] == b"{"}
    assert {"config", "results", "run", "status", "metrics", "timing", "record", "table's owner"} <= set(kinds)
    refused = set()
    for kind, load in kinds.items():
        try:
            load(content)
        except AMAError:
            refused.add(kind)
    assert refused >= set(kinds) - {"metrics", "timing"}  # of these two, what cannot be read is done without


@pytest.mark.parametrize("name", [b"\xff", b"=1+1", b"@SUM(A1)", b"<b>", b"\x1b[2J", b"a\nb", b"'", b"\xed\xa0\x80"], ids=repr)
def test_every_name_of_a_file_is_shown(fuzz, tmp_path, name):
    fuzz.subjects(tmp_path)["name"][1](name)


def test_a_foreign_table_is_not_continued(fuzz, tmp_path):
    table = fuzz.subjects(tmp_path)["table"][1]
    for content in (b"name,price\nhammer,3\n", b"", b"\0", b"\xff", b"path,index\n" + b"a,0\n" * 9):
        with pytest.raises(AMAError):
            table(content or b"path\n")


def bomb(kind: str, place: Path) -> Path:
    """A small file that says it is huge, or becomes so."""
    file = place / f"a.{kind.split()[0]}"
    if kind == "png":  # 20000² pixels of one colour

        def chunk(name: bytes, body: bytes) -> bytes:
            return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0))
        rows = zlib.compress(bytes(20_001) * 20_000, 9)
        file.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    elif kind == "zip":  # a member of 2 GB of zeros, called an image
        with (
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("a.png", "w", force_zip64=True) as member,
        ):
            for _ in range(2048):
                member.write(bytes(2**20))
    elif kind == "npz":  # 8 GB of images, which nobody may hold at once
        archive = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED)
        with archive, archive.open("images.npy", "w", force_zip64=True) as member:
            header = {"descr": "|u1", "fortran_order": False, "shape": (2**21, 64, 64)}
            np.lib.format.write_array_header_1_0(member, header)
            member.write(bytes(2**20))
    elif kind == "npz header":  # a header of 100 MB
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("images.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 100 * 2**20) + b" " * (100 * 2**20))
    return file


LIMITED = """
import resource, sys
from ama_core import AMADetector, AMAError
from ama_core.data import iter_images, load_any
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
unread = [item.error for item in iter_images([sys.argv[1]]) if item.error]
try:
    load_any(sys.argv[1], "train")
except AMAError as error:
    unread.append(str(error))
print(len(unread), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("kind", ["png", "zip", "npz", "npz header"])
def test_bombs_cost_little_memory_and_time(kind, tmp_path):
    file = bomb(kind, tmp_path)
    assert file.stat().st_size < 12 * 2**20
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(file)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (100, 100)),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr[-500:]
    refused, grown_mb = map(int, ended.stdout.split())
    assert refused == 2 and grown_mb < 700 and time.monotonic() - began < 60


@pytest.mark.parametrize("name", ["calibration.npz", "scores.npz", "latents.npz", "neighbours.npz"])
def test_arrays_of_a_model_that_unpack_to_far_more_are_not_unpacked(tiny_bundle, tmp_path, name):
    folder = shutil.copytree(tiny_bundle, tmp_path / "model")
    with np.load(folder / name) as stored:
        arrays = dict(stored)
    np.savez_compressed(folder / name, **arrays, more=np.zeros(2**28, np.uint8))
    readers = {
        "calibration.npz": read_bundle,
        "scores.npz": read_scores,
        "latents.npz": read_latents,
        "neighbours.npz": read_neighbours,
    }
    tracemalloc.start()
    with pytest.raises(BundleError, match=f"{name}.* unpack to"):
        readers[name](folder)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**26


def test_archives_name_nothing_outside_and_links_are_no_images(tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("L", (9, 9)).save(secret)
    archive = tmp_path / "in" / "a.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        file.writestr(link, str(secret))
        for name in ("../../up.png", "/abs.png", "C:\\x.png", "a\0b.png"):
            file.writestr(name, secret.read_bytes())
    found = {item.path.rsplit("/", 1)[-1]: item for item in iter_images([archive])}
    assert found["link.png"].image is None  # its content is a path, not that file
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "in", "secret.png"]


def test_a_file_of_two_kinds_is_what_it_is_decoded_as(tmp_path):
    """A picture with a script or an archive behind it is a picture; nothing looks at the rest."""
    picture, archive = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "PNG")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x.png", b"<script>alert(1)</script>")
    image, _ = decode_image(picture.getvalue() + archive.getvalue())
    assert image.shape == (8, 8, 3)
    (item,) = iter_images([("a.zip", picture.getvalue() + archive.getvalue())])
    assert item.error
    with pytest.raises(AMAError):
        decode_image(b"<svg onload=alert(1)>" + archive.getvalue())


def test_weights_with_a_lying_header(tmp_path):
    import shutil

    source = ROOT / "tests" / "samples" / "bundle-v1"
    data = (source / "model.safetensors").read_bytes()
    for length in (0, 1, 2**31, 2**63 - 1, 2**64 - 1):
        folder = tmp_path / str(length)
        shutil.copytree(source, folder)
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + data[8:])
        with pytest.raises(AMAError, match="model.safetensors"):
            AMADetector.load(folder)
