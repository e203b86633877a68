"""Scoring on Ray: the table of one call byte for byte, also where a worker is killed."""

import os
import signal
import threading
import time
from contextlib import nullcontext, suppress

import numpy as np
import psutil
import pytest

from ama_core import load_detector
from ama_core.errors import ConfigError, DataError
from ama_core.scoring import on_cluster, table
from ama_core.scoring.on_cluster import score_on_cluster
from ama_core.shards import Shard
from tests.common import CPU, REPEATED_IN_CI, ROOT

pytestmark = REPEATED_IN_CI


def with_ray():
    return pytest.importorskip("ray", reason='needs Ray: pip install ".[scale]"')


@pytest.fixture
def images(tmp_path, digits):
    np.savez(tmp_path / "many.npz", images=np.concatenate([digits.images] * 2))
    return tmp_path / "many.npz"


def test_the_table_is_that_of_one_call_though_a_worker_is_killed(tmp_path, tiny_bundle, images, monkeypatch):
    with_ray()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(on_cluster, "slots", lambda ray: 1)  # four shards
    whole, out = tmp_path / "whole.csv", tmp_path / "scores.csv"
    expected = table.score_to_file(load_detector(tiny_bundle, device=CPU), tiny_bundle, [images], whole, 0.05)
    killed = []

    def kill() -> None:  # a worker, once one has begun a shard
        while not list(tmp_path.glob("scores.*-of-4.csv")):
            time.sleep(0.05)
        while not killed and not out.exists():
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error, ProcessLookupError):  # it has just ended
                    if "_score" in " ".join(child.cmdline()):
                        os.kill(child.pid, signal.SIGKILL)
                        killed.append(child.pid)
                        return
            time.sleep(0.05)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    found = score_on_cluster(str(tiny_bundle), [str(images)], out, 0.05)
    assert killed, "no worker was met"
    assert out.read_bytes() == whole.read_bytes()
    assert (found.rows, found.flagged, found.unreadable) == (expected.rows, expected.flagged, expected.unreadable)
    assert not list(tmp_path.glob("scores.*-of-*")), "shards are gone once they are merged"
    with pytest.raises(ConfigError, match="--force"):
        score_on_cluster(str(tiny_bundle), [str(images)], out, 0.05)


def test_without_ray_it_says_what_to_install(tmp_path, tiny_bundle, images, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ConfigError, match="scale"):
        score_on_cluster(str(tiny_bundle), [str(images)], tmp_path / "scores.csv", 0.05)


def test_summaries_of_shards_are_added():
    parts = [table.Summary(3, 1, 1, [("a", "b")], table.Sample(("R",), 2, [(1.0,), (2.0,)])), table.Summary(4, 2)]
    whole = on_cluster._together(parts)
    assert (whole.rows, whole.flagged, whole.unreadable, whole.errors) == (7, 3, 1, [("a", "b")])
    np.testing.assert_array_equal(whole.sample.scores()["R"], [1, 2])


def test_the_error_of_the_shard_that_fails_last_is_said(tiny_bundle, images, tmp_path, monkeypatch):
    class Failing:
        returncode, error = None, DataError("the disk is gone")

        def __init__(self, *_):
            pass

        def poll(self):
            self.returncode = 1
            return 1

        def terminate(self):
            pass

    monkeypatch.setattr(on_cluster, "cluster", lambda: nullcontext())
    monkeypatch.setattr(on_cluster, "slots", lambda _: 1)
    monkeypatch.setattr(on_cluster, "Task", Failing)
    with pytest.raises(DataError, match="the disk is gone"):
        score_on_cluster(str(tiny_bundle), [str(images)], tmp_path / "out.csv", 0.05)


class Here:
    """A task that is done at once, in this process."""

    returncode, error = 0, None

    def __init__(self, _, call, *arguments):
        self.result = call(*arguments)

    def poll(self):
        return 0


def test_shards_of_another_division_are_forgotten_or_refused_before_anything_is_scored(
    tiny_bundle, images, tmp_path, monkeypatch
):
    monkeypatch.setattr(on_cluster, "cluster", lambda: nullcontext())
    monkeypatch.setattr(on_cluster, "slots", lambda _: 1)
    monkeypatch.setattr(on_cluster, "Task", Here)
    out, detector = tmp_path / "out.csv", load_detector(tiny_bundle, device=CPU)
    for shard in (Shard(1, 2), Shard(2, 3)):
        table.score_to_file(detector, str(tiny_bundle), [str(images)], out, 0.05, shard=shard)
    with pytest.raises(ConfigError, match="shards of 2 and of 3"):
        score_on_cluster(str(tiny_bundle), [str(images)], out, 0.05, resume=True)
    found = score_on_cluster(str(tiny_bundle), [str(images)], out, 0.05)
    assert out.exists() and found.rows > 0 and not list(tmp_path.glob("out.*-of-*"))


def test_options_that_contradict_each_other(call, tiny_bundle, images):
    assert "leave --shard" in call("score", tiny_bundle, images, "--engine", "ray")[2]
    assert "leave --devices" in call("benchmark", "table2", "--engine", "ray", "--jobs", "2", "--list")[2]
