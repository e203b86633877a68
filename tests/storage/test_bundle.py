"""Bundles: what is saved is what is loaded, and nothing else is ever trusted."""

import errno
import io
import json
import os
import pickle
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ama_core import AMADetector
from ama_core.analysis.model_card import model_card, read_card
from ama_core.analysis.response import read_response
from ama_core.data import load
from ama_core.detectors.registry import detector_class, load_detector
from ama_core.errors import BundleError, ConfigError
from ama_core.runs.folder import Run
from ama_core.runs.spec import RunSpec, config_for
from ama_core.storage import files
from ama_core.storage.bundle import (
    FILES,
    FIRST_STORED,
    StoredScores,
    array_names,
    find_bundle,
    half_precision,
    list_bundles,
    n_parameters,
    read_bundle,
    read_info,
    read_results,
    read_scores,
    write_results,
    write_scores,
)
from tests.runs.reading import is_running, read_metrics, read_status


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    """A copy that may be damaged."""
    folder = tmp_path / "copy"
    shutil.copytree(tiny_bundle, folder)
    return folder


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def edit_header(bundle, **changes):
    file = bundle / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def edit_arrays(file, **changes):
    with np.load(file) as arrays:
        values = {**arrays, **changes}
    np.savez(file, **{name: value for name, value in values.items() if value is not None})


def assert_refused(bundle, *mentions):
    for call in (load_detector, AMADetector.load):
        with pytest.raises(BundleError) as caught:
            call(bundle)
        for text in mentions:
            assert text in str(caught.value)


# Round trip


def test_round_trip_is_exact(tiny_detector, digits, tmp_path):
    tiny_detector.save(tmp_path / "b")
    loaded = AMADetector.load(tmp_path / "b", device="cpu")
    assert loaded.config == tiny_detector.config
    assert loaded.info_ == json.loads(json.dumps(tiny_detector.info_))
    assert loaded.false_alarm_rate == tiny_detector.false_alarm_rate
    before, after = tiny_detector.scores(digits.images[:50]), loaded.scores(digits.images[:50])
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    for kept, read in zip(vars(tiny_detector.calibration_).values(), vars(loaded.calibration_).values()):
        if isinstance(kept, dict):
            assert all(np.array_equal(kept[k], read[k]) for k in kept)
        elif isinstance(kept, (float, np.ndarray)):
            np.testing.assert_array_equal(kept, read)
    np.testing.assert_array_equal(loaded.reconstruct(digits.images[:3]), tiny_detector.reconstruct(digits.images[:3]))


def test_saved_again_it_is_the_same(bundle, tmp_path):
    AMADetector.load(bundle).save(tmp_path / "again")
    first, second = (load_file(f / "model.safetensors") for f in (bundle, tmp_path / "again"))
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
    assert read_info(bundle) == read_info(tmp_path / "again")


def test_matrices_are_half_precision_and_vectors_are_not(tiny_bundle):
    for name, tensor in load_file(tiny_bundle / "model.safetensors").items():
        if tensor.is_floating_point():
            assert tensor.dtype == (torch.float16 if tensor.ndim >= 2 else torch.float32), name
    found = half_precision({"w": torch.ones(2, 2), "b": torch.ones(2), "n": torch.tensor(3)})
    assert [found[k].dtype for k in "wbn"] == [torch.float16, torch.float32, torch.int64]


def test_the_bundle_s_critic_is_bare(tiny_bundle):
    assert not any("parametrizations" in name for name in load_file(tiny_bundle / "model.safetensors"))


def test_its_files_and_its_card(tiny_bundle):
    names = {"model.safetensors", "config.json", "calibration.npz", "scores.npz", "results.json", "README.md"}
    assert names <= {file.name for file in tiny_bundle.iterdir()}
    card = (tiny_bundle / "README.md").read_text()
    assert "Handwritten digits" in card and "| Procedural textures |" in card and "Not measured" not in card
    assert "(anomalies: 20 % of the normals' number, drawn with seed 0)" in card
    normal = read_info(tiny_bundle)["normal"]
    assert normal["name"] == "digits" and normal["n"] == 1297 and len(normal["fingerprint"]) == 16


def test_a_card_says_that_all_anomalies_of_a_small_set_were_tested(bundle):
    results = read_results(bundle)
    results["results"][0]["n_ood"] = 12
    write_results(bundle, results)
    card = model_card(bundle, AMADetector.load(bundle, device="cpu"))
    assert "(anomalies: 20 % of the normals' number, or all where there are fewer, drawn with seed 0)" in card


@pytest.mark.parametrize("left_out", [("normal",), ("training",), ("normal", "training")])
def test_a_card_of_a_bundle_that_says_less(bundle, left_out):
    detector = AMADetector.load(bundle, device="cpu")
    detector.info_ = {name: value for name, value in detector.info_.items() if name not in left_out}
    card = model_card(bundle, detector)
    assert ("does not name" in card) == ("normal" in left_out) and ("Training: not recorded" in card) == (
        "training" in left_out
    )


def test_no_array_needs_pickle(tiny_bundle):
    for name in ("calibration.npz", "scores.npz"):
        with np.load(tiny_bundle / name, allow_pickle=False) as arrays:
            assert all(arrays[key].dtype != object for key in arrays)


def test_files_are_written_for_others_to_read(tiny_bundle):
    assert (tiny_bundle / "model.safetensors").stat().st_mode & 0o444 == 0o444
    assert not [file for file in tiny_bundle.iterdir() if file.name.endswith(".part")]


def test_what_is_written_has_the_permissions_of_the_process_or_of_the_file_before(tmp_path):
    before = os.umask(0o077)
    try:
        files.write_atomically(tmp_path / "new", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600
    (tmp_path / "new").chmod(0o640)
    files.write_atomically(tmp_path / "new", "y")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640


def test_saved_over_another_model_nothing_of_that_one_is_left(bundle, digits):
    before = {file.name for file in bundle.iterdir()}
    assert {"scores.npz", "results.json", "README.md"} <= before
    same = AMADetector.load(bundle, device="cpu")
    same.save(bundle)
    assert {file.name for file in bundle.iterdir()} == before, "the same model keeps what was measured of it"
    detector_class("nearest")(config_for("digits", "tiny", "nearest"), device="cpu").fit(digits.images[:300]).save(bundle)
    assert {file.name for file in bundle.iterdir()} & set(FILES) == {"config.json", "calibration.npz"}
    assert load_detector(bundle, device="cpu").name == "nearest"


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_model_survives_one_that_cannot_be_saved_over_it(bundle, digits, monkeypatch, at):
    before = contents(bundle)
    other = AMADetector.load(bundle, device="cpu").calibrate(digits.images[:50])
    done, sync = [], os.fsync

    def full(handle):  # as a disk is from the n-th file on
        done.append(handle)
        if len(done) >= at:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        other.save(bundle)
    assert contents(bundle) == before


def test_objects_are_not_stored(tmp_path):
    with np.load(io.BytesIO(files.npz_bytes({"x": np.arange(3)}))) as stored:
        assert stored.files == ["x"]
    with pytest.raises(ValueError, match="pickle"):
        files.npz_bytes({"x": np.array([{}])})


# Weights


def test_a_pickle_in_disguise_is_never_opened(bundle, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    trap = pickle.dumps(Trap())
    for file in ("model.safetensors", "calibration.npz", "scores.npz"):
        (bundle / file).write_bytes(trap)
    assert_refused(bundle, "model.safetensors")
    with pytest.raises(BundleError, match="scores.npz"):
        read_scores(bundle)
    assert not (tmp_path / "sprung").exists()


def test_a_pickled_array_is_never_opened(bundle, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    trap = np.empty(1, object)
    trap[0] = Trap()
    np.savez(bundle / "calibration.npz", mu=trap)
    np.savez(bundle / "scores.npz", index=trap)
    (tmp_path / "sprung").unlink(missing_ok=True)
    assert_refused(bundle, "calibration.npz")
    with pytest.raises(BundleError, match="scores.npz"):
        read_scores(bundle)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("keep", [0, 4, 100, -1, -1000])
def test_truncated_weights(bundle, keep):
    file = bundle / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert_refused(bundle, "model.safetensors")


def test_missing_weights(bundle):
    (bundle / "model.safetensors").unlink()
    assert_refused(bundle, "model.safetensors")


@pytest.mark.parametrize("kind", ["missing tensor", "extra tensor", "wrong shape", "nan", "inf", "empty"])
def test_wrong_weights(bundle, kind):
    weights = load_file(bundle / "model.safetensors")
    name = "E.to_code.weight"
    if kind == "missing tensor":
        del weights[name]
    elif kind == "extra tensor":
        weights["E.backdoor"] = torch.zeros(2)
    elif kind == "wrong shape":
        weights[name] = weights[name][:-1].contiguous()
    elif kind == "empty":
        weights = {}
    else:
        weights[name].view(-1)[3] = float(kind)
    save_file(weights, bundle / "model.safetensors")
    assert_refused(bundle, "model.safetensors", name if kind in ("missing tensor", "wrong shape", "nan", "inf") else "")


def test_weights_of_another_configuration(bundle):
    header = read_info(bundle)
    edit_header(bundle, config={**header["config"], "width_critic": 16})
    assert_refused(bundle, "model.safetensors")


# Header


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", '"ama-bundle"', '{"model_type": "bert"}', "\x00\xff", '{"format": "other"}']
)
def test_foreign_headers(bundle, text):
    (bundle / "config.json").write_text(text, encoding="latin-1")
    assert_refused(bundle, "config.json")


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "changes",
    [
        {"normal": None},
        {"normal": []},
        {"normal": {"name": 3}},
        {"normal": {"n": "<b>"}},
        {"training": "x"},
        {"training": {"seconds": None}},
        {"training": {"seconds": float("nan")}},
        {"training": {"command": ["rm"]}},
    ],
    ids=str,
)
def test_what_a_header_says_of_itself_is_of_its_kind(bundle, changes):
    edit_header(bundle, **changes)
    assert_refused(bundle, "config.json", next(iter(changes)))


def test_deep_nesting_is_refused(bundle):
    (bundle / "config.json").write_text(DEEP)
    assert_refused(bundle, "config.json", "nested too deeply")
    (bundle / "results.json").write_text('{"results": ' + "[" * 200 + "]" * 200 + "}")  # read, yet too deep to be written again
    with pytest.raises(BundleError, match="nested too deeply"):
        read_results(bundle)
    for file, read in (("status.json", read_status), ("run.json", RunSpec.read)):
        (bundle / file).write_text(DEEP)
        with pytest.raises(BundleError, match="nested too deeply"):
            read(bundle)
    (bundle / "metrics.jsonl").write_text(DEEP)
    assert read_metrics(bundle) == [] and not is_running(bundle)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "calibration.npz", "scores.npz", "results.json"])
def test_a_pipe_in_a_bundle_is_not_waited_for(bundle, file):
    (bundle / file).unlink()
    os.mkfifo(bundle / file)
    with pytest.raises(BundleError):
        read_info(bundle), read_bundle(bundle), read_scores(bundle), read_results(bundle)


@pytest.mark.parametrize(
    ("file", "read"), [("response.json", read_response), ("README.md", read_card), ("run.json", RunSpec.read)]
)
def test_a_pipe_beside_a_bundle_is_not_waited_for(tmp_path, file, read):
    os.mkfifo(tmp_path / file)
    with pytest.raises(BundleError, match="not a regular file"):
        read(tmp_path)


def test_saving_onto_a_file_is_refused_in_words(tiny_detector, tmp_path):
    (tmp_path / "f").write_text("mine")
    for path in (tmp_path / "f", tmp_path / "f" / "deeper"):
        with pytest.raises(BundleError, match="is a file: name a folder"):
            tiny_detector.save(path)
    assert (tmp_path / "f").read_text() == "mine"


def test_no_model_is_written_among_other_things(tiny_detector, tmp_path):
    (tmp_path / "photo.png").write_bytes(b"mine")
    with pytest.raises(BundleError, match="other things, such as photo.png"):
        tiny_detector.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["photo.png"]
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "README.md").write_text("what this model is for")
    tiny_detector.save(tmp_path / "new")
    tiny_detector.save(tmp_path / "new")


def test_what_is_no_model_yet_says_what_to_do(tmp_path, tiny_config):
    Run(tmp_path).write_spec(RunSpec("my images", tiny_config))
    with pytest.raises(BundleError, match=r"has not ended.*train 'my images' --out .* --resume"):
        find_bundle(tmp_path)
    (tmp_path / "model.zip").write_bytes(b"")
    with pytest.raises(BundleError, match="unpack it"):
        find_bundle(tmp_path / "model.zip")


def test_no_name_is_no_model(monkeypatch, tiny_bundle):
    monkeypatch.chdir(tiny_bundle)  # "" as a path would be this folder
    with pytest.raises(BundleError, match="no model"):
        find_bundle("")


@pytest.mark.parametrize("config", [None, [], 3, "x", {"nz": "many"}, {"colour": 1}, {"nz": -1}])
def test_impossible_hyper_parameters(bundle, config):
    edit_header(bundle, config=config)
    assert_refused(bundle, "config.json")


def test_a_newer_version(bundle):
    edit_header(bundle, version=3)
    assert_refused(bundle, "version 3", "update")


def test_not_a_bundle(tmp_path):
    with pytest.raises(BundleError, match="config.json"):
        read_info(tmp_path)
    with pytest.raises(BundleError, match="no model"):
        AMADetector.load(tmp_path / "nowhere")


# Calibration


def test_missing_calibration(bundle):
    (bundle / "calibration.npz").unlink()
    assert_refused(bundle, "calibration.npz")


@pytest.mark.parametrize("file", ["calibration.npz", "scores.npz"])
@pytest.mark.parametrize("keep", [0, 10, 1000, -1, -30])
def test_truncated_arrays(bundle, file, keep):
    path = bundle / file
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BundleError, match=file):
        read_bundle(bundle), read_scores(bundle)


@pytest.mark.parametrize("file", ["calibration.npz", "scores.npz"])
def test_flipped_bytes(bundle, file):
    """Anywhere in the file: an error that names it, or nothing noticed because nothing that counts was hit."""
    path = bundle / file
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(40):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 4):
            damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            read_bundle(bundle), read_scores(bundle)
        except BundleError as error:
            assert file in str(error)
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    "changes",
    [
        {"mu": None},
        {"gaussian_m.precision": np.eye(7)},
        {"gaussian_t.mean": np.zeros(5)},
        {"scores.T": None},
        {"scores.R": np.array([np.nan, 1.0])},
        {"scores.R": np.zeros((2, 2))},
        {"scores.R": np.zeros(0)},
        {"train_r": np.array([np.inf])},
        {"mu": np.float64("nan")},
        {"sigma": np.float64(0)},
        {"sigma": np.float64(-1)},
        {"gaussian_m.mean": np.full(8, np.nan)},
        {"gaussian_t.precision": np.full((6, 6), np.inf)},
        {"gaussian_t.scale": np.zeros(6)},
        {"scores.M": np.array(["a", "b"])},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_wrong_calibration(bundle, changes):
    edit_arrays(bundle / "calibration.npz", **changes)
    assert_refused(bundle, "calibration.npz")


def test_a_zip_of_something_else(bundle):
    with zipfile.ZipFile(bundle / "calibration.npz", "w") as archive:
        archive.writestr("holiday.txt", "sun")
    assert_refused(bundle, "calibration.npz")


# Stored scores and results


def stored(rng, name="textures", n=5) -> StoredScores:
    scores = {key: rng.normal(size=n) for key in FIRST_STORED}
    return StoredScores(name, "test", {**scores, "A": np.exp(scores["log_A"])}, seed=3, n_total=99)


def test_scores_round_trip(tmp_path, rng):
    kept = [stored(rng), stored(rng, "digits", 7)]
    write_scores(tmp_path, kept)
    found = read_scores(tmp_path)
    assert [(s.name, s.split, s.n, s.seed, s.n_total) for s in found] == [
        ("textures", "test", 5, 3, 99),
        ("digits", "test", 7, 3, 99),
    ]
    for before, after in zip(kept, found):
        assert before.scores.keys() == after.scores.keys()
        for key in before.scores:
            np.testing.assert_allclose(after.scores[key], before.scores[key], rtol=1e-5, err_msg=key)


def test_a_thinner_sample_keeps_the_scores_of_the_images_that_it_names(rng):
    scores = {"R": np.arange(10.0), "T": np.arange(10.0) ** 2}
    whole = StoredScores("textures", "test", scores, seed=3, n_total=99, index=np.arange(0, 40, 4), n_split=50)
    thin = whole.thinned(4)
    assert thin.n == 4 and (thin.name, thin.seed, thin.n_total, thin.n_split) == ("textures", 3, 99, 50)
    assert thin.index.tolist() == [4 * r for r in thin.scores["R"]] and len(set(thin.index)) == 4
    assert thin.scores["T"].tolist() == [r**2 for r in thin.scores["R"]]
    assert thin.scores["R"][0] < 2.5 and thin.scores["R"][-1] >= 7, "spread over the whole sample"
    assert whole.thinned(10) is whole and stored(rng).thinned(3).index is None


def test_scores_say_which_images_they_are_of_and_older_ones_do_not(tmp_path, rng):
    numbered = replace(stored(rng), index=np.array([0, 2, 3, 50, 119]), n_split=120)
    write_scores(tmp_path, [numbered, stored(rng, "digits")])
    first, second = read_scores(tmp_path)
    assert first.index.tolist() == [0, 2, 3, 50, 119] and first.n_split == 120
    assert second.index is None and second.n_split is None


@pytest.mark.parametrize("which", [[120, 0, 2, 3, 50], [119, 0, 2, 3, 50, 119], [120, 0, 2, 2, 50, 119], [120, -1, 2, 3, 5, 6]])
def test_images_that_cannot_be_those_of_one_split(tmp_path, rng, which):
    write_scores(tmp_path, [replace(stored(rng), index=np.arange(5), n_split=120)])
    edit_arrays(tmp_path / "scores.npz", **{"textures/test/which images": np.array(which)})
    with pytest.raises(BundleError, match="number"):
        read_scores(tmp_path)


def test_stored_scores_are_those_of_the_model(tiny_bundle):
    from ama_core.data import load

    detector = AMADetector.load(tiny_bundle, device="cpu")
    for s in read_scores(tiny_bundle):
        assert s.n <= 2000 and s.n_total == len(load(s.name, s.split))
    own = next(s for s in read_scores(tiny_bundle) if (s.name, s.split) == ("digits", "test"))
    found = detector.scores(load("digits", "test").images)
    for key in ("R", "log_A", "M", "T", "z_norm", "pixel_l1"):
        np.testing.assert_allclose(own.scores[key], found[key], rtol=1e-5)


def test_no_scores_yet(tmp_path):
    assert read_scores(tmp_path) == [] and read_results(tmp_path) is None


@pytest.mark.parametrize("index", ["{", "[1]", '[{"name": "x"}]', "3", '{"name": 1}'])
def test_damaged_index_of_scores(bundle, index):
    edit_arrays(bundle / "scores.npz", index=np.array(index))
    with pytest.raises(BundleError, match="scores.npz"):
        read_scores(bundle)


def test_results_round_trip_and_damage(tmp_path):
    write_results(tmp_path, {"model": "m", "results": []})
    assert read_results(tmp_path) == {"model": "m", "results": []}
    row = {"ood": "<b>", "n_normal": 5, "n_ood": 1, "scores": {s: {"auroc": 0.5, "auprc": 1, "fpr95": 0.0} for s in "RAMT"}}
    good = {"model": "m", "normal": "digits", "seed": 0, "results": [row]}
    write_results(tmp_path, good)
    assert read_results(tmp_path) == good
    for damaged in (
        {},
        [],
        {"results": 3},
        {"results": [{"ood": "<b>", "scores": 3}]},
        {"results": [row]},
        good | {"seed": "1"},
        good | {"results": [row | {"n_ood": None}]},
        good | {"results": [row | {"scores": row["scores"] | {"T": {}}}]},
        good | {"results": [row | {"scores": row["scores"] | {"R": {"auroc": 1e999, "auprc": 1, "fpr95": 0}}}]},
    ):
        write_results(tmp_path, damaged)
        with pytest.raises(BundleError, match="results.json"):
            read_results(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(BundleError, match="results.json"):
        read_results(tmp_path)


# Finding


def test_find_and_list(tiny_bundle, monkeypatch):
    assert find_bundle(tiny_bundle) == tiny_bundle
    assert find_bundle(str(tiny_bundle)) == tiny_bundle
    assert list_bundles(tiny_bundle.parent) == {tiny_bundle.name: tiny_bundle}
    monkeypatch.setattr("ama_core.storage.bundle.PRETRAINED", tiny_bundle.parent)
    assert find_bundle(tiny_bundle.name) == tiny_bundle
    with pytest.raises(BundleError, match=f"nothing.*{tiny_bundle.name}"):
        find_bundle("nothing")


def test_parameters_are_counted_from_the_header_alone(tmp_path):
    weights = {"a": torch.zeros(3, 4), "b": torch.zeros(5, dtype=torch.float16), "c": torch.tensor(1.0)}
    assert n_parameters(tmp_path) == 0
    save_file(weights, tmp_path / "model.safetensors")
    assert n_parameters(tmp_path) == 3 * 4 + 5 + 1
    for damaged in (b"", b"\xff" * 8, b"\x05" + bytes(7) + b"{nope", b"\x09" + bytes(7) + b'{"a": []}'):
        (tmp_path / "model.safetensors").write_bytes(damaged)
        with pytest.raises(BundleError, match="is damaged"):
            n_parameters(tmp_path)


def without_c(bundle):
    """As a bundle was written before there was C."""
    with np.load(bundle / "calibration.npz") as found:
        arrays = {name: array for name, array in found.items() if name not in ("scores.C", "median_t", "median_i")}
    np.savez(bundle / "calibration.npz", **{name: a for name, a in arrays.items() if not name.startswith("gaussian_i")})


def test_a_bundle_from_before_c_gives_the_other_scores_and_gains_it_when_calibrated_again(bundle, digits, tmp_path):
    now = AMADetector.load(bundle)
    without_c(bundle)
    earlier = AMADetector.load(bundle)
    assert earlier.score_names() == ("R", "A", "M", "T") == tuple(s.name for s in AMADetector.scores_in(array_names(bundle)))
    images = digits.images[:12]
    scores, all_scores = earlier.scores(images), now.scores(images)
    assert set(all_scores) - set(scores) == {"C", "p_C"}
    for name, values in scores.items():
        np.testing.assert_array_equal(values, all_scores[name])
    with pytest.raises(ConfigError, match="by a version without C.*--calibrate"):
        AMADetector.load(bundle, score="C")
    earlier.save(tmp_path / "as it was")
    assert AMADetector.load(tmp_path / "as it was").score_names() == earlier.score_names()

    again = earlier.calibrate(load("digits", "train").images)
    again.save(tmp_path / "again")
    for detector in (again, AMADetector.load(tmp_path / "again", score="C")):
        for name, values in detector.scores(images).items():
            np.testing.assert_allclose(values, all_scores[name], rtol=1e-6, err_msg=name)


def test_statistics_of_c_that_do_not_fit_are_refused(bundle):
    edit_arrays(bundle / "calibration.npz", **{"gaussian_i.mean": np.zeros(3)})
    assert_refused(bundle, "calibration.npz", "gaussian_i")
