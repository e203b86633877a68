"""Sweeps divided among calls and devices: each job once, whoever asks."""

import subprocess

import pytest

from ama_core.errors import ConfigError
from ama_core.paper import training
from ama_core.paper.jobs import plan
from ama_core.shards import Shard
from tests.paper.test_jobs import job


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Jobs as they are started, with their device; each is stored by a process that does nothing else."""
    seen = []

    def start(one, out, results, device, threads):
        seen.append((one.name, device))
        results.mkdir(exist_ok=True)
        (results / f"{one.name}.json").write_text("{}")
        return subprocess.Popen(["true"])

    monkeypatch.setattr(training, "_start", start)
    monkeypatch.setattr(training, "is_stored", lambda one, results: (results / f"{one.name}.json").exists())
    monkeypatch.setattr(training, "read_record", lambda file: None)
    monkeypatch.setattr(training, "figures", lambda record: "")
    return seen


def jobs(n: int) -> list:
    return [job(label=label) for label in range(n)]


def test_shards_of_a_plan_are_all_of_it_once():
    whole = plan(["table2"], seeds=2)
    shares = [shard.of_items(whole) for shard in Shard(1, 7).all()]
    assert sorted(one.name for share in shares for one in share) == sorted(one.name for one in whole)


def test_a_job_that_another_call_holds_is_left_to_it(tmp_path, started):
    out, results = tmp_path / "out", tmp_path / "results"
    three, told = jobs(3), []
    claim = training._claim(three[1], out)
    assert claim and training._claim(three[1], out) is None
    assert training.train_all(three, out, results, parallel=1, on_progress=told.append) == []
    assert [name for name, _ in started] == [three[0].name, three[2].name]
    assert [p.job.name for p in told if p.what == "another"] == [three[1].name]
    claim.close()
    assert training.train_all(three, out, results, parallel=1) == []
    assert [name for name, _ in started[2:]] == [three[1].name], "once the other call has gone, and the stored ones not again"


def test_every_device_has_one_job_at_a_time(tmp_path, started):
    training.train_all(jobs(4), tmp_path / "out", tmp_path / "results", devices=["cuda:0", "cuda:1"])
    assert {device for _, device in started[:2]} == {"cuda:0", "cuda:1"} and len(started) == 4
    assert {device for _, device in started[2:]} <= {"cuda:0", "cuda:1"}


def test_devices_are_checked_and_exclude_jobs(call):
    assert "There is no device 'nowhere'" in call("benchmark", "table2", "--devices", "cpu,nowhere", "--list")[2]
    assert "leave --jobs" in call("benchmark", "table2", "--devices", "cpu,cpu", "--jobs", "2", "--list")[2]
    lists = [call("benchmark", "table2", "--shard", f"{i}/3", "--list")[1].splitlines() for i in (1, 2, 3)]
    assert sorted(sum(lists, [])) == sorted(call("benchmark", "table2", "--list")[1].splitlines())
    with pytest.raises(ConfigError):
        Shard.parse("4/3")


def test_jobs_of_another_call_say_nothing_of_the_time_left(tmp_path, started):
    out, told, two = tmp_path / "out", [], jobs(2)
    claim = training._claim(two[0], out)
    training.train_all(two, out, tmp_path / "results", parallel=1, on_progress=told.append)
    claim.close()
    (passed_over,) = (p for p in told if p.what == "another")
    assert passed_over.done == 1 and passed_over.seconds_left is None, "it took no time here"
    assert told[-1].done == 2 and told[-1].seconds_left == 0
