"""Shards of a table: together they are the table of one call, byte for byte, however they were interrupted."""

import json

import numpy as np
import pytest

from ama_core import load_detector
from ama_core.errors import ConfigError, DataError
from ama_core.scoring import table
from ama_core.scoring.merge import merge
from ama_core.shards import Shard
from tests.common import CPU, png


@pytest.fixture(scope="module")
def sources(tmp_path_factory, digits) -> list:
    """700 images: two whole batches and a rest; one is unreadable, and one has a name of two lines."""
    folder = tmp_path_factory.mktemp("images")
    np.savez(folder / "many.npz", images=digits.images[:690])
    few = folder / "few"
    few.mkdir()
    for i in range(8):
        (few / f"{i}.png").write_bytes(png(digits.images[i]))
    (few / "broken.png").write_bytes(b"no image")
    (few / 'two\nlines "quoted".png').write_bytes(png(digits.images[9]))
    return [folder / "many.npz", few]


@pytest.fixture(scope="module")
def model(tiny_bundle):
    return load_detector(tiny_bundle, device=CPU)


def score(model, tiny_bundle, sources, out, shard=None, **options):
    return table.score_to_file(model, tiny_bundle, sources, out, 0.05, shard=shard, **options)


@pytest.mark.parametrize("kind", table.KINDS)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_shards_merge_to_the_table_of_one_call(tmp_path, model, tiny_bundle, sources, kind, n):
    whole, out = tmp_path / f"whole{kind}", tmp_path / f"scores{kind}"
    score(model, tiny_bundle, sources, whole)
    rows = [score(model, tiny_bundle, sources, out, Shard(i, n)).rows for i in range(n, 0, -1)]
    assert sum(rows) == 700 and (n < 2 or max(rows) < 700)
    assert merge(out) == 700
    assert out.read_bytes() == whole.read_bytes()
    meta, expected = (json.loads(table.meta_of(file).read_text()) for file in (out, whole))
    assert meta == expected  # so it can be resumed, and is ours to replace
    with pytest.raises(ConfigError, match="--force"):
        merge(out)
    assert merge(out, force=True) == 700


def test_an_interrupted_shard_goes_on_and_is_not_merged_before(tmp_path, model, tiny_bundle, sources):
    out = tmp_path / "scores.csv"
    score(model, tiny_bundle, sources, out, Shard(2, 2))
    with pytest.raises(DataError, match="missing: 1/2"):
        merge(out)

    def stop(summary):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(model, tiny_bundle, sources, out, Shard(1, 2), progress=stop)
    with pytest.raises(DataError, match="not complete"):
        merge(out)
    score(model, tiny_bundle, sources, out, Shard(1, 2), resume=True)
    assert merge(out) == 700


def test_shards_may_lie_among_the_images(tmp_path, model, tiny_bundle, digits):
    for i in range(300):
        (tmp_path / f"{i:03}.png").write_bytes(png(digits.images[i]))
    out = tmp_path / "scores.csv"
    for shard in Shard(1, 3).all():
        score(model, tiny_bundle, [tmp_path], out, shard)
    assert merge(out) == 300


def test_shards_of_another_rate_or_division_are_refused(tmp_path, model, tiny_bundle, sources):
    out = tmp_path / "scores.csv"
    with pytest.raises(ConfigError, match="no shards"):
        merge(out)
    score(model, tiny_bundle, sources, out, Shard(1, 2))
    table.score_to_file(model, tiny_bundle, sources, out, 0.2, shard=Shard(2, 2))
    with pytest.raises(DataError, match="another alpha"):
        merge(out)
    score(model, tiny_bundle, sources, out, Shard(1, 3))
    with pytest.raises(ConfigError, match="of 2 and of 3"):
        merge(out)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "-1/2", "1/0", "1/2/3"])
def test_what_is_no_shard_is_refused_in_words(text):
    with pytest.raises(ConfigError, match="1/n to n/n"):
        Shard.parse(text)


def test_every_item_is_in_exactly_one_shard():
    items = list(range(23))
    shares = [shard.of_items(items) for shard in Shard(1, 4).all()]
    assert sorted(sum(shares, [])) == items and max(map(len, shares)) - min(map(len, shares)) == 1


def test_the_commands(tmp_path, call, tiny_bundle, sources):
    out = tmp_path / "scores.csv"
    for i in (1, 2):
        code, _, err = call("score", tiny_bundle, *sources, "--out", out, "--shard", f"{i}/2", "--device", "cpu")
        assert code == 0 and f"{i}-of-2" in err, err
    assert call("merge", out)[0] == 0 and len(out.read_text().splitlines()) == 702  # a header, and a name of two lines
    assert call("score", tiny_bundle, *sources, "--shard", "1/2")[::2] == (
        2,
        "ama_core: --shard writes one part of a table: name the table with --out FILE.\n",
    )
