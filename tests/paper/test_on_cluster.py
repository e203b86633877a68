"""A sweep on Ray: jobs are its tasks, trained and stored as without it; a killed worker's job goes on."""

import os
import signal
import threading
import time
from contextlib import suppress

import psutil
import pytest

from ama_core.cluster import SETTINGS, cluster
from ama_core.errors import BundleError
from ama_core.paper import training
from ama_core.paper.records import read_results
from ama_core.runs.folder import Run
from tests.common import REPEATED_IN_CI, ROOT
from tests.paper.test_jobs import job

pytestmark = REPEATED_IN_CI


def test_a_killed_worker_s_job_runs_again_and_resumes(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason='needs Ray: pip install ".[scale]"')
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    out, results, one = tmp_path / "out", tmp_path / "results", job(steps=400)
    run, killed = Run(out / one.name), []

    def kill() -> None:
        while not killed:
            time.sleep(0.05)
            with suppress(BundleError):  # its folder has no status yet
                status = run.status()
                if (status.step or 0) >= 25:
                    killed.append(status.pid)
        os.kill(killed[0], signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    with cluster() as ray:
        assert training.train_all([one], out, results, ray=ray) == []
        assert killed and not psutil.pid_exists(killed[0])
        assert all(os.environ[name] == "0" for name in ("RAY_USAGE_STATS_ENABLED", *SETTINGS))
    (stored,) = read_results(results)
    assert stored.steps == 400 and run.status().state == "finished"
    assert run.read_log(99).count("on CPU") == 2, "it was begun twice"
