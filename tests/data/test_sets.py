"""The catalog: built-in and procedural sets, prepared files, torchvision's formats, and one's own folders."""

import hashlib
import pickle
import zipfile

import numpy as np
import pytest
import scipy.io
from PIL import Image
from sklearn.datasets import load_sample_images

from ama_core.data import ImageSet, available, builtin, catalog, class_of, label_of, load, load_any, procedural, sets
from ama_core.errors import DataError
from tests.common import REAL_DATA

OFFLINE = [name for name, info in catalog().items() if info.kind != "download"]
DOWNLOADS = [name for name, info in catalog().items() if info.kind == "download"]


def images_of(n=10, size=32, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, channels), dtype=np.uint8)


def write_npz(folder, stem, n=10, **shape):
    images = images_of(n, **shape)
    np.savez(folder / f"{stem}.npz", images=images, labels=np.arange(n))
    return images


def save_images(folder, n, mode="RGB", size=(40, 30)):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.effect_noise(size, 40 + i).convert(mode).save(folder / f"{i:03}.png")


@pytest.mark.parametrize("name", OFFLINE)
@pytest.mark.parametrize("split", ["train", "test"])
def test_offline_sets_are_as_the_catalog_says(name, split):
    info, loaded = catalog()[name], load(name, split)
    assert available(name) == ("train", "test")
    assert loaded.images.shape[1:] == (info.size, info.size, info.channels)
    assert (loaded.name, loaded.split) == (name, split)
    if info.classes:
        assert set(loaded.labels) == set(range(len(info.classes)))


@pytest.mark.parametrize("name", OFFLINE)
def test_offline_sets_are_deterministic_and_their_splits_share_no_image(name):
    train, test = load(name, "train"), load(name, "test")
    module = builtin if catalog()[name].kind == "built-in" else procedural
    assert ImageSet(name, "test", *getattr(module, name)("test")).fingerprint == test.fingerprint
    if name not in ("digits", "flat"):  # two of 1,797 digits may agree by nature, and so may two colours
        assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in test.images}


def test_offline_sets_have_the_promised_sizes():
    assert (len(load("digits", "train")), len(load("digits", "test"))) == (1297, 500)
    assert (len(load("photos", "train")), len(load("photos", "test"))) == (8000, 2000)
    assert all(len(load(name, "test")) == 2000 for name in OFFLINE if catalog()[name].kind == "procedural")


def test_digits_are_stratified():
    share = np.bincount(load("digits", "test").labels) / np.bincount(load("digits", "train").labels)
    np.testing.assert_allclose(share, 500 / 1297, atol=0.03)


def test_no_pixel_of_the_photographs_serves_both_splits():
    used = {split: np.zeros(builtin.PHOTO_SHAPE, bool) for split in ("train", "test")}
    for photograph in load_sample_images().images:
        assert photograph.shape[:2] == builtin.PHOTO_SHAPE
        for split, mask in used.items():
            boxes = builtin.photo_boxes(photograph, split, np.random.default_rng(5))
            for top, left, bottom, right in boxes:
                assert bottom - top == right - left >= 32
                mask[top:bottom, left:right] = True
    assert not (used["train"] & used["test"]).any()
    assert used["train"].mean() > 0.6 and used["test"].mean() > 0.2


def test_photo_blocks_cover_the_photograph_once():
    count = np.zeros(builtin.PHOTO_SHAPE, int)
    for top, left, bottom, right in builtin.photo_blocks("train") + builtin.photo_blocks("test"):
        count[top:bottom, left:right] += 1
    assert (count == 1).all()


def test_house_numbers_can_be_told_apart_and_never_pass_for_svhn():
    assert "synthetic" in catalog()["house_numbers"].title.lower()
    # A nearest-centroid rule on the middle columns beats chance by far, so labels and pictures belong together.
    grey = {
        s: np.abs(load("house_numbers", s).images.mean(3) - load("house_numbers", s).images.mean((1, 2, 3))[:, None, None])
        for s in ("train", "test")
    }
    train, test = (grey[s][:, :, 8:24].reshape(2000, -1) for s in ("train", "test"))
    train, test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, test))
    nearest = (test @ train.T).argmax(1)
    accuracy = (load("house_numbers", "train").labels[nearest] == load("house_numbers", "test").labels).mean()
    assert accuracy > 0.3


def test_simple_sets_are_simple_and_noise_is_noise():
    assert (load("flat", "test").images.std(axis=(1, 2)) == 0).all()
    smooth = np.abs(np.diff(load("gradients", "test").images.astype(int), axis=1)).max()
    assert smooth < 60
    assert abs(load("noise", "test").images.mean() - 127.5) < 1


def test_unknown_names_and_splits_are_refused():
    with pytest.raises(DataError, match="no data set 'imagenet'.*cifar10"):
        load("imagenet", "test")
    with pytest.raises(DataError, match="no split 'validation'"):
        load("digits", "validation")
    with pytest.raises(DataError, match="no data set"):
        available("imagenet")


@pytest.mark.parametrize("name", DOWNLOADS)
def test_a_missing_set_says_how_to_get_it(name, tmp_path):
    assert available(name, tmp_path) == ()
    with pytest.raises(DataError, match=f"datasets --download {name}"):
        load(name, "test", data_dir=tmp_path)


def test_prepared_files_are_used_first(tmp_path, monkeypatch):
    images = write_npz(tmp_path, "cifar10-test")
    assert available("cifar10", tmp_path) == ("test",)
    assert (load("cifar10", "test", data_dir=tmp_path, download=True).images == images).all()
    monkeypatch.setenv("AMA_DATA_DIR", str(tmp_path))
    assert (load("cifar10", "test").images == images).all()
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError):  # the argument outranks the environment
        load("cifar10", "test", data_dir=tmp_path / "other")


@pytest.mark.parametrize(
    ("stem", "name", "split"),
    [
        ("omniglot-background", "omniglot", "train"),
        ("omniglot-evaluation", "omniglot", "test"),
        ("tinyimagenet-val", "tinyimagenet", "test"),
    ],
)
def test_prepared_files_under_their_other_names(stem, name, split, tmp_path):
    images = write_npz(tmp_path, stem)
    assert available(name, tmp_path) == (split,)
    assert (load(name, split, data_dir=tmp_path).images == images).all()


def test_svhn_from_its_mat_file(tmp_path, monkeypatch):
    from torchvision.datasets import SVHN

    images = images_of(12)
    raw = tmp_path / "torchvision"
    raw.mkdir()
    mat = raw / "test_32x32.mat"
    labels = np.array([10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1], np.uint8)[:, None]  # SVHN writes 10 for the digit 0
    scipy.io.savemat(mat, {"X": images.transpose(1, 2, 3, 0), "y": labels})
    # Only the checksum differs from the real file's: with the right one torchvision downloads nothing.
    digest = hashlib.md5(mat.read_bytes()).hexdigest()
    monkeypatch.setattr(SVHN, "split_list", {"test": ["http://invalid.invalid/", mat.name, digest]})
    steps = []
    loaded = load("svhn", "test", data_dir=tmp_path, download=True, progress=lambda *step: steps.append(step))
    assert (loaded.images == images).all()
    assert loaded.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert [done for done, _, _ in steps] == [0, 1, 2] and "SVHN" in steps[0][2]
    assert available("svhn", tmp_path) == ("test",)
    mat.unlink()
    assert load("svhn", "test", data_dir=tmp_path).fingerprint == loaded.fingerprint  # from the prepared file


def test_tinyimagenet_from_its_archive(tmp_path, monkeypatch):
    from ama_core.data import downloads

    raw = tmp_path / "torchvision"
    raw.mkdir()
    archive = raw / "tiny.zip"
    picture = tmp_path / "a.jpg"
    Image.new("L", (64, 64), 200).save(picture)  # some of them are grey
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("tiny-imagenet-200/wnids.txt", "n02\nn01\n")
        file.writestr("tiny-imagenet-200/val/val_annotations.txt", "v0.JPEG\tn02\t0\t0\t9\t9\nv1.JPEG\tn01\t0\t0\t9\t9\n")
        for inner in ("val/images/v0.JPEG", "val/images/v1.JPEG", "train/n02/images/t0.JPEG"):
            file.write(picture, f"tiny-imagenet-200/{inner}")
    digest = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(downloads, "TINY_IMAGENET", ("http://invalid.invalid/tiny.zip", digest))
    test = load("tinyimagenet", "test", data_dir=tmp_path, download=True)
    train = load("tinyimagenet", "train", data_dir=tmp_path, download=True)
    assert test.images.shape == (2, 32, 32, 3) and test.labels.tolist() == [1, 0] and train.labels.tolist() == [1]
    assert abs(int(test.images.mean()) - 200) <= 1


def test_omniglot_and_gtsrb_become_32_pixels(tmp_path, monkeypatch):
    from torchvision import datasets

    character = Image.new("1", (105, 105), 1)
    character.paste(0, (40, 40, 60, 60))
    signs = [(Image.new("RGB", (25 + i, 30), (i, 100, 200)), i) for i in range(3)]
    monkeypatch.setattr(datasets, "Omniglot", lambda *_, **__: [(character, 7)])
    monkeypatch.setattr(datasets, "GTSRB", lambda *_, **__: signs)
    omniglot = load("omniglot", "test", data_dir=tmp_path, download=True)
    assert omniglot.images.shape == (1, 32, 32, 1) and omniglot.labels.tolist() == [7]
    assert omniglot.images[0, 0, 0, 0] == 0 and omniglot.images[0, 15, 15, 0] == 255  # white on black
    gtsrb = load("gtsrb", "test", data_dir=tmp_path, download=True)
    assert gtsrb.images.shape == (3, 32, 32, 3) and gtsrb.images[2, 0, 0].tolist() == [2, 100, 200]


def test_a_failed_download_is_told_in_plain_words_and_leaves_nothing(tmp_path, monkeypatch):
    from ama_core.data import downloads

    def offline(root, split):
        raise OSError("Name or service not known")

    monkeypatch.setitem(downloads.FETCHERS, "mnist", offline)
    with pytest.raises(DataError, match="MNIST could not be downloaded.*Check the network"):
        load("mnist", "train", data_dir=tmp_path, download=True)
    assert not list(tmp_path.glob("*.npz"))


def test_every_download_has_a_fetcher():
    from ama_core.data.downloads import FETCHERS

    assert set(FETCHERS) == set(DOWNLOADS)


REAL_MEANS = {("fashionmnist", "train"): 0.2860, ("mnist", "train"): 0.1307, ("cifar10", "train"): 0.4734}
REAL_SPLITS = [(name, split) for name in DOWNLOADS for split in available(name, REAL_DATA)]


@pytest.mark.skipif(not REAL_SPLITS, reason=f"no real sets under {REAL_DATA}: set AMA_DATA_DIR")
@pytest.mark.parametrize(("name", "split"), REAL_SPLITS)
def test_real_sets(name, split):
    info, loaded = catalog()[name], load(name, split, data_dir=REAL_DATA)
    assert loaded.images.shape[1:] == (info.size, info.size, info.channels)
    assert not info.classes or set(loaded.labels) == set(range(len(info.classes)))
    if (name, split) in REAL_MEANS:
        assert loaded.images.mean() / 255 == pytest.approx(REAL_MEANS[name, split], abs=5e-4)
    if name == "cifar100" and loaded.fingerprint == sets._UNOFFICIAL[name, split][0]:
        assert "not the official" in loaded.notes[0]


def test_image_sets_validate_themselves():
    images, labels = images_of(), np.zeros(10, np.int64)
    for bad in (images.astype(float), images[0], images[..., :2], images[:0]):
        with pytest.raises(DataError, match="images must"):
            ImageSet("x", "test", bad, labels)
    for bad in (labels[:3], labels.astype(np.int32), labels.tolist()):
        with pytest.raises(DataError, match="labels must"):
            ImageSet("x", "test", images, bad)
    with pytest.raises(DataError, match="split"):
        ImageSet("x", "validation", images, labels)
    with pytest.raises(DataError, match="paths"):
        ImageSet("x", "test", images, labels, ("a",))


def test_fingerprints_follow_the_content():
    images, labels = images_of(), np.arange(10)
    first = ImageSet("x", "test", images, labels)
    assert first.fingerprint == ImageSet("y", "train", images.copy(), labels.copy()).fingerprint
    assert first.fingerprint != ImageSet("x", "test", images, labels[::-1].copy()).fingerprint
    assert first.fingerprint != ImageSet("x", "test", images.reshape(10, 16, 64, 3), labels).fingerprint
    assert first.take([3, 1]).labels.tolist() == [3, 1] and len(first.take(labels < 4)) == 4


def test_a_folder_is_divided_once_and_wholly_used_as_ood(tmp_path):
    save_images(tmp_path / "mine", 10)
    parts = {split: load_any(tmp_path / "mine", split) for split in ("train", "test", "ood")}
    assert [len(part) for part in parts.values()] == [8, 2, 10]
    assert not set(parts["train"].paths) & set(parts["test"].paths)
    assert set(parts["train"].paths) | set(parts["test"].paths) == set(parts["ood"].paths)
    assert parts["ood"].images.shape == (10, 32, 32, 3) and parts["ood"].split == "test"
    assert any("cropped to the central 30×30" in note for note in parts["ood"].notes)
    assert load_any(tmp_path / "mine", "train").fingerprint == parts["train"].fingerprint


def test_a_folder_with_train_and_test_keeps_its_own_division(tmp_path):
    save_images(tmp_path / "train" / "good", 3, "L")
    save_images(tmp_path / "test", 2, "L")
    train, test, ood = (load_any(tmp_path, split, size=16, fit="stretch") for split in ("train", "test", "ood"))
    assert (len(train), len(test), len(ood)) == (3, 2, 2)
    assert train.images.shape == (3, 16, 16, 1) and train.split == "train" and train.name == tmp_path.name
    for file in (tmp_path / "test").iterdir():
        file.unlink()
    (tmp_path / "test").rmdir()
    with pytest.raises(DataError, match="none named 'test'"):
        load_any(tmp_path, "test")


def test_a_mixed_folder_becomes_colour_and_names_what_it_left_out(tmp_path):
    save_images(tmp_path, 2, "L")
    save_images(tmp_path / "sub", 2, "RGB")
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    with pytest.warns(UserWarning, match="2 files left out"):
        loaded = load_any(tmp_path, "ood")
    assert loaded.images.shape == (4, 32, 32, 3) and len(loaded.paths) == 4, "which images these are"
    assert "2 of 4 images: grey repeated to 3 channels" in loaded.notes
    assert any("2 files left out" in note and "broken.png" in note for note in loaded.notes)
    with pytest.warns(UserWarning, match="broken.png"):
        assert load_any(tmp_path, "ood", channels=1).channels == 1


def test_load_any_takes_names_and_npz_files(tmp_path):
    assert load_any("digits", "ood").split == "test"
    images = write_npz(tmp_path, "mine", n=10)
    assert (load_any(tmp_path / "mine.npz", "ood").images == images).all()
    assert len(load_any(tmp_path / "mine.npz", "train")) == 8
    with pytest.raises(DataError, match="neither a known data set"):
        load_any("nowhere")
    with pytest.raises(DataError, match="split must be"):
        load_any("digits", "all")


def test_sources_without_images_are_refused(tmp_path):
    with pytest.raises(DataError, match="empty"):
        load_any(tmp_path, "ood")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match="no readable image"):
        load_any(tmp_path, "ood")
    save_images(tmp_path / "two", 2)
    with pytest.raises(DataError, match="too few"):
        load_any(tmp_path / "two", "train")


def test_image_sets_survive_pickling():
    assert pickle.loads(pickle.dumps(load("digits", "test"))).fingerprint == load("digits", "test").fingerprint


def test_every_set_has_one_label_of_its_own_and_unknown_names_stay():
    titles = [info.title for info in catalog().values()]
    assert len(set(titles)) == len(titles) and not set(titles) & set(catalog()) and max(map(len, titles)) <= 28
    assert label_of("gtsrb") == "Traffic signs (GTSRB)" and label_of("cifar10", 3) == "CIFAR-10: cat"
    assert label_of("my screws") == "my screws" and label_of("my screws", 2) == "my screws: 2"
    assert class_of("gtsrb", 14) == "stop" and len(set(catalog()["gtsrb"].classes)) == 43
    assert class_of("mnist", 10) == "10" and class_of("gtsrb", -1) == "-1" and class_of("omniglot", 5) == "5"
