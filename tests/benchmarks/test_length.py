"""The study of training lengths: its runs, and what it prints of those that are stored."""

import json
from dataclasses import asdict

from ama_core.paper.lengths import STORED
from benchmarks.length import OOD, Run, report, runs


def test_every_run_has_a_name_of_its_own():
    names = [run.name for run in runs()]
    assert len(set(names)) == len(names) and {"mirrored-500-s0", "cifar10-mirrored-500-s0"} <= set(names)
    assert Run("plain", 500, 0, lambda_drift=0.0).name == "plain-500-drift0-s0" not in names
    stored = [Run(**json.loads(file.read_text())["run"]).name for file in STORED.glob("*.json")]
    assert stored and sorted(stored) == sorted(file.stem for file in STORED.glob("*.json"))


def test_stored_runs_are_printed_by_set_and_length(tmp_path, capsys):
    for run, t in ((Run("plain", 1000, 0), 0.7), (Run("plain", 500, 0), 0.6), (Run("plain", 500, 0, normal="cifar10"), 0.2)):
        aurocs = {"last": {ood: {"A": 0.5, "T": t} for ood in OOD[run.normal]}}
        (tmp_path / f"{run.name}.json").write_text(json.dumps({"run": asdict(run), "auroc": aurocs}))
    report(tmp_path)
    starts = [line.split()[:4] for line in capsys.readouterr().out.splitlines()]
    assert [words[0] for words in starts] == [
        "fashionmnist",
        "plain-500-s0",
        "plain-1000-s0",
        "cifar10",
        "cifar10-plain-500-s0",
    ]
    assert starts[1][1:] == ["last", "0.500", "0.600"] and starts[4][1:] == ["last", "0.500", "0.200"]
