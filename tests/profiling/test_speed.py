"""The benchmark measures what it says; how fast this machine is, no test asks."""

import json

import numpy as np
import pytest
import torch

from ama_core.cli import main as cli
from ama_core.detectors.ama.networks import Networks
from ama_core.profiling import speed

CPU = torch.device("cpu")


@pytest.fixture
def quick(monkeypatch, tiny_config):
    """`tiny` is a very small model, and the peaks are those of small products."""
    monkeypatch.setattr(speed, "timed_config", lambda size, device: tiny_config.replace(max_steps=0, warmup=0.0))
    monkeypatch.setattr(speed, "measure_peaks", lambda device: speed.Peaks(1e10, 2e10, 1e9))
    monkeypatch.setattr(speed, "_steps", lambda config, device: 2)


def test_figures_fit_together(quick, capsys):
    assert cli.main(["bench", "--sizes", "tiny", "--rounds", "2", "--concurrent", "0", "--json", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    row = found["sizes"]["tiny"]
    ladder = row["ladder"]
    assert ladder["reference"]["speedup_vs_reference"] == 1
    assert row["speedup_vs_reference"] == pytest.approx(row["images_per_s"] / ladder["reference"]["images_per_s"])
    assert row["share_of_peak"] == pytest.approx(row["gflop_per_image"] * 1e9 * row["images_per_s"] / 1e10)
    low, high = row["images_per_s_range"]
    assert 0 < low <= row["images_per_s"] * 1.0001 and row["images_per_s"] <= high * 1.0001
    assert row["peak_memory_mb"] > 10 and 0 < row["scoring"]["share_in_networks"] <= 1
    assert "bf16" not in ladder  # the model asks for fp32
    text = speed.table(found)
    assert "tiny: batch 16" in text and "+ joined critic calls" in text and "scoring" in text


def test_flops_are_counted_through_both_gradients(tiny_config):
    config = tiny_config.replace(max_steps=0, warmup=0.0, atypical="none", lambda_inter=0.0, lambda_gp=0.0)
    images = np.zeros((64, 32, 32, 1), np.uint8)
    plain = speed._Product(config, CPU, images, 1).flops()
    n, networks = config.batch_size, Networks(config)

    def forward(call) -> float:
        with speed._FlopCounter() as counter, torch.no_grad():
            call()
        return counter.flops

    x = torch.zeros(n, 1, 32, 32)
    e_g = forward(lambda: networks.reconstruct(x))
    d = forward(lambda: networks.D(networks.pair(x, x)))
    # Backward costs about twice a forward: E and G once; the critic on two kinds of pairs, and once more half for E and G.
    assert 0.8 < plain / (3 * e_g + 6 * d + 2 * d) < 1.05
    with_penalty = speed._Product(config.replace(lambda_gp=10.0), CPU, images, 1).flops()
    assert with_penalty > plain + 3 * d


def test_a_window_has_the_steps_that_its_time_is_divided_by(tiny_config, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 1), np.uint8)
    product = speed._Product(tiny_config.replace(max_steps=0, warmup=0.0), CPU, images, 4)
    steps = []
    for _ in range(4):  # the first of them among the many events of a training's beginning
        before = product.trainer.step
        with monkeypatch.context() as patch:
            patch.setattr(speed.time, "perf_counter", iter((0.0, *[12.0] * 1000)).__next__)
            seconds = product.run()
        steps.append(product.trainer.step - before)
        assert seconds * steps[-1] == pytest.approx(12.0) and steps[-1] >= 4
    assert product.trainer.step == sum(steps)


def test_one_convolution_by_hand():
    layer = torch.nn.Conv2d(3, 8, 3, padding=1)
    with speed._FlopCounter() as counter, torch.no_grad():
        layer(torch.zeros(2, 3, 16, 16))
    assert counter.flops == 2 * 2 * 8 * 16 * 16 * 3 * 9


def test_timed_configs():
    paper = speed.timed_config("paper", CPU)
    assert (paper.width_critic, paper.n_critic, paper.batch_size) == (128, 5, speed.CPU_BATCH) and paper.warmup == 0
    assert speed.timed_config("paper", torch.device("cuda")).batch_size == 256


def test_trainings_at_once(monkeypatch):
    ran = []
    monkeypatch.setattr(speed, "_train_in_processes", lambda n, threads, device: ran.append((n, threads)) or 100.0 * n)
    found = speed.bench_concurrent(2, CPU)
    assert found["speedup"] == 2 and ran[0][0] == 1 and ran[1][0] == 2 and ran[1][1] == max(1, ran[0][1] // 2)


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--concurrent", "-1"], ["--device", "tpu"]])
def test_bad_words(words, capsys):
    assert cli.main(["bench", "--sizes", "tiny", *words]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
