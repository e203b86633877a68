"""Several processes train as one does on the whole batch; a run folder does not tell how many there were."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from ama_core import load_detector
from ama_core.errors import ConfigError
from ama_core.runs.execute import RunSpec, execute
from ama_core.runs.folder import Run
from ama_core.runs.status import State
from ama_core.training import distributed
from tests.common import CPU, REPEATED_IN_CI, ROOT
from tests.training.several import CASES, REFUSED

pytestmark = REPEATED_IN_CI
LIMIT = 1e-10  # of weights; curves, sums over many pixels and differences of these, have a hundred times as much
DIGITS = ("train", "digits", "--device", "cpu", "--quiet", "--no-measure")
SMALL = ("nz=8", "width_encoder=4", "width_generator=4", "width_critic=4", "batch_size=16", "n_critic=1", "precision=fp32")


def torchrun(n: int, *words) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}", *map(str, words)]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def train_words(folder, steps: int, *more) -> list:
    settings = [word for setting in (*SMALL, f"max_steps={steps}") for word in ("--set", setting)]
    return ["-m", "ama_core", *DIGITS, "--out", folder, *settings, *more]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[int, list[dict[str, np.ndarray]]]:
    """Number of processes -> what each of them holds after three steps of every case."""
    folder = tmp_path_factory.mktemp("several")
    found = {}
    for n in (1, 2, 3):
        process = torchrun(n, ROOT / "tests" / "training" / "several.py", folder)
        out, _ = process.communicate(timeout=400)
        assert process.returncode == 0, out
        found[n] = [dict(np.load(folder / f"{n}-{rank}.npz")) for rank in range(n)]
    return found


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n", [2, 3])
def test_several_processes_compute_what_one_computes_on_the_whole_batch(trained, n, case):
    one, several = trained[1][0], trained[n]
    names = [name for name in one if name.startswith(f"{case}/")]
    assert any("/networks/" in name for name in names) and any("/step 3/" in name for name in names)
    for name in names:
        for other in several:
            np.testing.assert_array_equal(several[0][name], other[name], err_msg=name)  # bit for bit
        if one[name].dtype == np.float64:
            limit = LIMIT if "/step " not in name else 100 * LIMIT
            np.testing.assert_allclose(several[0][name], one[name], rtol=limit, atol=limit, err_msg=name)
        else:  # counters and the random state
            np.testing.assert_array_equal(several[0][name], one[name], err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_weights_move_far_beyond_the_tolerance(trained, case):
    """Else the comparison would pass whatever a step does. Adam moves a weight by about its rate, 3e-5, a step."""
    one, start = trained[1][0], f"{case}/first/"
    first = {name: values for name, values in one.items() if name.startswith(start)}
    moved = [np.abs(one[name.replace("/first/", "/networks/")] - values).max() for name, values in first.items()]
    assert max(moved) > 1e4 * LIMIT


def test_what_cannot_be_divided_refuses_in_words(trained):
    for process in trained[2]:
        refusals = [str(words) for words in process["refusals"]]
        assert len(refusals) == len(REFUSED) and all("Start it without torchrun" in words for words in refusals)


def test_one_process_is_left_as_it_is():
    assert (distributed.size(), distributed.rank(), distributed.is_first()) == (1, 0, True)
    with distributed.processes("cpu") as device:
        assert device == "cpu" and distributed.size() == 1
    distributed.check(False, "", 1)


def test_a_run_of_two_is_stopped_resumed_by_one_and_is_then_a_model(tmp_path, digits):
    folder = tmp_path / "run"
    process = torchrun(2, *train_words(folder, 4000))
    run = Run(folder)
    wait_until(lambda: run.exists() and (run.status().step or 0) > 25, process)
    assert "2 processes" in run.status().device
    run.request_stop(pause=True)
    out, _ = process.communicate(timeout=60)
    assert run.status().state is State.PAUSED and out.count("Stopped at step") == 1, out
    step = run.status().step
    with pytest.raises(ConfigError, match="not empty"):
        execute(folder, run.spec(), device=CPU)
    shortened(run, step + 5)
    execute(folder, RunSpec("digits", run.spec().config), resume=True, device=CPU)
    assert run.status().state is State.FINISHED and run.status().step == step + 5
    steps = [event["step"] for event in run.metrics() if event["kind"] == "progress"]
    assert steps == sorted(set(steps))
    assert np.isfinite(load_detector(folder).anomaly_score(digits.images[:5])).all()


def test_a_killed_process_ends_the_other_in_words_and_the_run_resumes(tmp_path):
    folder = tmp_path / "run"
    process = torchrun(2, *train_words(folder, 4000))
    run = Run(folder)
    wait_until(lambda: run.exists() and (run.status().step or 0) > 25, process)
    first = run.written_status().pid
    other = next(child.pid for child in psutil.Process(process.pid).children() if child.pid != first)
    os.kill(other, signal.SIGKILL)
    began = time.monotonic()
    out, _ = process.communicate(timeout=60)
    assert time.monotonic() - began < 60 and process.returncode != 0
    assert "Another process of this training ended" in out and "--resume" in out
    assert run.status().state is State.FAILED and "Another process" in run.status().error
    shortened(run, 30)
    process = torchrun(3, *train_words(folder, 30, "--resume"))
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and run.status().state is State.FINISHED, out


def test_a_folder_in_use_ends_all_of_them(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    process = torchrun(2, *train_words(tmp_path, 30))
    out, _ = process.communicate(timeout=120)
    assert process.returncode != 0 and "is not empty: choose another --out" in out


def wait_until(reached, process, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "the training does not begin"
        time.sleep(0.2)


def shortened(run: Run, steps: int) -> None:
    """Let a run, and its checkpoint if it has one, end at `steps`: nobody wants to wait for the 4,000 that it was asked for."""
    spec = run.spec()
    config = spec.config.replace(max_steps=steps)
    if run.checkpoint.exists():
        from ama_core.detectors.ama.trainer import AMATrainer

        trainer = AMATrainer.load(run.checkpoint, CPU)
        trainer.config = config
        trainer.save(run.checkpoint)
    run.write_spec(RunSpec(spec.dataset, config, measure=False))
