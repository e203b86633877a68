"""Lines of a training in a log: how far it is, how fast, how long still, and what its scores are worth so far."""

import sys
from dataclasses import replace

from ama_core.cli import progress
from ama_core.cli.main import main
from ama_core.cli.progress import TrainingBar, TrainingLog
from ama_core.training.loop import Event


def step(number, total=2000, rate=120.0, left=300.0):
    return Event("progress", number, total, {"loss": 1.0, "images_per_s": rate, "eta_s": left, "seconds": 1.0})


def test_a_line_says_step_total_rate_time_left_and_every_latest_auroc(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    log = TrainingLog()
    log.update(step(1))
    log.update(Event("watch", 2, 2000, {"watched_A": 0.4, "watched_M": 0.5}))
    log.update(Event("watch", 30, 2000, {"watched_A": 0.61, "watched_M": 0.7, "watched_T": 0.75}))
    log.update(Event("validation", 40, 2000, {"auroc_A": 0.9, "auroc_T": 0.95}))
    log.update(step(50))  # too soon after the first line
    now[0] = progress.LOG_SECONDS + 1
    log.update(step(500, left=7500))
    log.update(step(2000, left=0))  # the last step is always told
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "step 1 of 2,000 (0%); 120 images/s; 5 min left"
    assert lines[1] == (
        "step 500 of 2,000 (25%); 120 images/s; 2 h 5 min left; watched AUROC A 0.610, M 0.700, T 0.750; "
        "validation AUROC A 0.900, T 0.950"
    )
    assert lines[2].startswith("step 2,000 of 2,000 (100%); 120 images/s; done;") and len(lines) == 3


def test_no_line_where_a_bar_is_shown_or_silence_was_asked_for(monkeypatch):
    assert TrainingBar(quiet=True).log is None and TrainingBar(quiet=False).log is not None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert TrainingBar(quiet=False).log is None


def test_a_warning_is_written_once_and_not_where_silence_was_asked_for(capsys):
    for quiet, times in ((False, 1), (True, 0)):
        with TrainingBar(quiet) as bar:
            for number in (1, 2, 3):
                bar.update(replace(step(number), warning="Values drift." if number > 1 else ""))
        assert capsys.readouterr().err.count("step 2: Values drift.") == times


def test_train_into_a_log_tells_all_four_scores(tmp_path, capsys):
    settings = ("max_steps=12", "batch_size=16", "width_critic=8", "width_encoder=8", "width_generator=8", "nz=8")
    changes = [word for setting in settings for word in ("--set", setting)]
    command = ["train", "digits", "--out", str(tmp_path / "run"), "--watch", "noise", "--no-measure", "--device", "cpu"]
    assert main([*command, *changes]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert lines[0].startswith("step 1 of 12 (8%); ") and lines[-1].startswith("step 12 of 12 (100%); ")
    assert all(f"{name} 0." in lines[-1] or f"{name} 1." in lines[-1] for name in "RAMT") and "images/s; done" in lines[-1]
