"""The stored latent map: what is kept, how it is read back, and the maps."""

import math
import sys

import numpy as np
import pytest

from ama_core.analysis import latent_map
from ama_core.analysis.latent_map import CODES, FILE, LatentMap, MapEntry, Pca
from ama_core.analysis.shell import DIRECTIONS
from ama_core.errors import BundleError, DataError


@pytest.fixture(scope="module")
def stored(tiny_bundle) -> LatentMap:
    found = latent_map.read_latents(tiny_bundle)
    assert found is not None
    return found


def test_measuring_a_run_stores_codes_of_every_available_set(stored, tiny_detector):
    kinds = [(entry.name, entry.split) for entry in stored.entries]
    assert kinds == [
        ("digits", "train"),
        ("digits", "test"),
        ("gradients", "test"),
        ("textures", "test"),
        *((d, CODES) for d in DIRECTIONS),
    ]
    sizes = [entry.stop - entry.start for entry in stored.entries]
    assert sizes == [500, 500, 200, 200, 100, 100, 100] and sum(sizes) == len(stored.codes)
    assert stored.codes.shape[1] == tiny_detector.config.nz
    for entry in stored.entries:
        index = stored.index[entry.rows]
        assert len(set(index)) == len(index) and index.min() >= 0 and index.max() < entry.n_total


def test_codes_are_those_of_the_images_that_are_named(stored, tiny_bundle):
    from ama_core import AMADetector

    detector = AMADetector.load(tiny_bundle, device="cpu")
    for entry in stored.entries[1:3]:
        images = latent_map.entry_images(detector, stored, entry)
        assert np.allclose(detector.encode(images), stored.codes[entry.rows], rtol=2e-3, atol=2e-3)
    codes = stored.entries[-1]
    assert np.array_equal(latent_map.entry_images(detector, stored, codes), detector.decode(stored.codes[codes.rows]))


def test_images_of_another_version_of_a_set_are_refused(stored, tiny_bundle):
    from ama_core import AMADetector

    other = MapEntry("gradients", "test", 1000, 1200, 77)
    with pytest.raises(DataError, match="2,000 images here, but 77"):
        latent_map.entry_images(AMADetector.load(tiny_bundle, device="cpu"), stored, other)


def test_written_and_read_back(stored, tmp_path):
    umap = np.random.default_rng(0).normal(size=(len(stored.codes), 2)).astype(np.float32)
    latent_map.write_latents(tmp_path, LatentMap(stored.codes, stored.index, stored.entries, stored.pca, umap, {"seed": 3}))
    back = latent_map.read_latents(tmp_path)
    assert np.array_equal(back.codes, stored.codes) and np.array_equal(back.umap, umap) and back.info == {"seed": 3}
    assert back.entries == stored.entries and np.array_equal(back.pca.components, stored.pca.components)
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


def test_no_map_is_none(tmp_path):
    assert latent_map.read_latents(tmp_path) is None


def damaged(stored: LatentMap, **changes) -> LatentMap:
    return LatentMap(**{**vars(stored), **changes})


@pytest.mark.parametrize(
    "harm",
    [
        lambda s: damaged(s, index=s.index[:-1]),
        lambda s: damaged(s, index=s.index - 10**6),
        lambda s: damaged(s, entries=s.entries[:-1]),
        lambda s: damaged(s, entries=s.entries[1:]),
        lambda s: damaged(s, codes=s.codes * np.nan),
        lambda s: damaged(s, umap=np.zeros((3, 2))),
        lambda s: damaged(s, pca=Pca(s.pca.mean[1:], s.pca.components, s.pca.explained)),
    ],
    ids=["short index", "negative index", "uncovered", "gap", "nan", "short umap", "wrong pca"],
)
def test_parts_that_do_not_fit_are_a_damaged_file(stored, tmp_path, harm):
    latent_map.write_latents(tmp_path, harm(stored))
    with pytest.raises(BundleError, match="is damaged.*ama_core measure"):
        latent_map.read_latents(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut short"])
def test_bytes_that_are_no_archive_are_a_damaged_file(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(BundleError, match="is damaged"):
        latent_map.read_latents(tmp_path)


def test_half_a_file_and_a_pickle_are_refused(stored, tmp_path):
    latent_map.write_latents(tmp_path, stored)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BundleError):
        latent_map.read_latents(tmp_path)
    with open(tmp_path / FILE, "wb") as file:
        np.savez(file, header=np.array([{"version": 1}], dtype=object))
    with pytest.raises(BundleError):
        latent_map.read_latents(tmp_path)


def test_without_umap_learn_the_map_is_pca_alone_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    placed, note = latent_map._umap(np.zeros((100, 4), np.float32), 0)
    assert placed is None and "not installed" in note["umap"]


def test_umap_is_seeded_and_recorded(monkeypatch):
    """A stand-in for umap-learn, whose compilation takes half a minute: what it is asked is what is recorded."""
    asked = {}

    class Umap:
        def __init__(self, **options):
            asked.update(options)

        def fit_transform(self, codes):
            return codes[:, :2]

    monkeypatch.setitem(sys.modules, "umap", type(sys)("umap"))
    monkeypatch.setattr(sys.modules["umap"], "UMAP", Umap, raising=False)
    monkeypatch.setattr(latent_map, "version", lambda name: "9.9")
    placed, note = latent_map._umap(np.ones((100, 4)), 7)
    assert placed.shape == (100, 2) and asked["random_state"] == note["umap"]["random_state"] == 7
    assert note["umap"]["n_neighbors"] == 15 and note["umap"]["versions"]["umap-learn"] == "9.9"


def test_pca_finds_the_plane_and_places_new_codes_on_it(rng):
    plane = np.linalg.qr(rng.normal(size=(6, 2)))[0].T
    codes = rng.normal(size=(200, 2)) * [5, 2] @ plane + 3
    pca = Pca.fit(codes)
    assert pca.explained.sum() == pytest.approx(1, abs=1e-5) and pca.explained[0] > pca.explained[1]
    assert np.allclose(pca.components @ pca.components.T, np.eye(2), atol=1e-5)
    new = codes[:5] + 0.5
    on_plane = new - pca.mean
    assert np.allclose(np.linalg.norm(pca.project(codes), axis=1), np.linalg.norm(codes - pca.mean, axis=1), atol=1e-4)
    assert np.allclose(pca.project(new), on_plane @ pca.components.T, atol=1e-5)
    assert np.array_equal(Pca.fit(codes).components, pca.components)
    with pytest.raises(DataError):
        Pca.fit(codes[:2])


def test_polar_keeps_the_radius_and_the_angle_of_the_map(stored):
    codes = stored.codes[:50]
    radius, angle = latent_map.polar(codes, stored.pca)
    assert np.allclose(radius * math.sqrt(codes.shape[1]), np.linalg.norm(codes, axis=1))
    x, y = stored.pca.project(codes).T
    assert np.allclose(np.cos(np.radians(angle)), x / np.hypot(x, y), atol=1e-5) and angle.min() >= 0 and angle.max() < 360
