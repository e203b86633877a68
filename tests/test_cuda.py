"""On a GPU everything computes what it does on the CPU, and what one writes the other reads. Skipped where there is no GPU."""

import numpy as np
import pytest
import torch

from ama_core import AMADetector
from ama_core.detectors.ama.trainer import AMATrainer
from ama_core.detectors.registry import detector_class, load_detector
from ama_core.profiling import speed
from ama_core.tensors import find_device, scale
from ama_core.training.graphs import WARM_UP
from ama_core.training.loop import Validation, train
from tests.common import CPU
from tests.detectors.test_contract import SMALL

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use through CUDA")


def assert_same_scores(found, expected, rtol):
    """p-values may differ by one rank: an image that is among the held-out ones ties with itself, up to rounding."""
    for name, values in expected.items():
        atol = 0.016 if name.startswith("p_") else 1e-3
        np.testing.assert_allclose(found[name], values, rtol=rtol, atol=atol, err_msg=name)


@pytest.fixture(scope="module")
def cuda() -> torch.device:
    return find_device("cuda")


def test_scores_are_those_of_the_cpu(tiny_bundle, digits, cuda):
    images = digits.images[:300]
    on_cpu, on_gpu = (load_detector(tiny_bundle, device=device).scores(images) for device in (CPU, cuda))
    assert_same_scores(on_gpu, on_cpu, rtol=2e-3)


@pytest.mark.parametrize("changes", [{}, {"mode": "released"}, {"average": 0.5}], ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stopped_training_goes_on_from_its_checkpoint(precision, changes, tiny_config, digits, cuda, tmp_path):
    config = tiny_config.replace(precision=precision, max_steps=24, n_critic=2, **changes)
    whole, stopped = AMATrainer(config, cuda), AMATrainer(config, cuda)
    for _ in train(whole, digits.images):
        pass
    for event in train(stopped, digits.images, log_every=1):
        if event.step == 12 and event.kind == "progress":
            break
    stopped.save(tmp_path / "checkpoint")
    resumed = AMATrainer.load(tmp_path / "checkpoint", cuda)
    assert resumed.step == 12
    for _ in train(resumed, digits.images):
        pass
    for name, tensor in whole.weights().items():
        torch.testing.assert_close(resumed.weights()[name], tensor, rtol=2e-2, atol=2e-2, msg=name)
    on_cpu = AMATrainer.load(tmp_path / "checkpoint", CPU)
    assert [event.step for event in train(on_cpu, digits.images, log_every=1) if event.kind == "progress"][-1] == 24


def test_the_first_critic_loss_is_the_cpus(tiny_config, digits, cuda):
    """Of a step without random draws: what is computed before anything moves does not depend on the device."""
    config = tiny_config.replace(atypical="none", lambda_inter=0.0, lambda_gp=0.0)
    x = torch.from_numpy(digits.images[: config.batch_size]).permute(0, 3, 1, 2)
    found = []
    for device in (CPU, cuda):
        trainer = AMATrainer(config, device)
        trainer.total = 10
        trainer.networks.train()
        found.append({name: float(value.detach()) for name, value in trainer.update(scale(x.to(device))).items()})
    on_cpu, on_gpu = found
    assert on_gpu == pytest.approx(on_cpu, rel=2e-3, abs=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_every_detector_is_fitted_on_a_gpu_and_its_bundle_scores_on_the_cpu(name, digits, cuda, tmp_path):
    kind = detector_class(name)
    settings = kind.Settings.from_dict({"channels": 1, "fit": "pad", **SMALL[name]})
    detector = kind(settings, device=cuda, verbose=False).fit(digits.images)
    detector.save(tmp_path / "bundle")
    images = digits.images[:40]
    here, there = (load_detector(tmp_path / "bundle", device=device).scores(images) for device in (cuda, CPU))
    assert_same_scores(here, there, rtol=2e-2)


VARIANTS = [
    {},
    {"mode": "released", "n_critic": 2},
    {"reconstruction": "plain"},
    {"lambda_inter": 0.0},
    {"average": 0.9},
    {"image_size": 64, "fold": 2},
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("real", [False, True], ids=["synthetic", "real"])
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_captured_steps_are_those_without_graphs(precision, real, changes, tiny_config, digits, cuda, monkeypatch):
    """Before and after negatives begin to take part, while the learning rate falls, and with looks at other images between."""
    config = tiny_config.replace(precision=precision, max_steps=30, warmup=0.4, lr_schedule="linear", **changes)
    images = digits.images if config.image_size == 32 else digits.images.repeat(2, axis=1).repeat(2, axis=2)
    others = 255 - images[:40]
    found, replays = {}, []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: (replays.append(graph), replay(graph)))
    for graphs in ("0", "1"):
        monkeypatch.setenv("AMA_CUDA_GRAPHS", graphs)
        trainer = AMATrainer(config, cuda)
        watch = Validation(images[:40], others)
        events = train(trainer, images, anomalies=others if real else None, watch=watch, log_every=1)
        found[graphs] = [event.values["wasserstein"] for event in events if event.kind == "progress"]
        phases = 1 if real and config.mode == "released" else 2
        assert len(replays) == (0 if graphs == "0" else 30 - phases * WARM_UP)
    assert found["1"][:10] == pytest.approx(found["0"][:10], rel=1e-3, abs=1e-3)
    assert found["1"] == pytest.approx(found["0"], rel=2e-2, abs=1e-2)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_second_gpu_captures_its_own_steps(tiny_config, digits):
    trainer = AMATrainer(tiny_config.replace(max_steps=10), find_device("cuda:1"))
    events = [event for event in train(trainer, digits.images, log_every=1) if event.kind == "progress"]
    assert len(events) == 10 and np.isfinite([event.values["loss_critic"] for event in events]).all()


def test_fitting_takes_the_gpu_by_itself(tiny_config, digits):
    assert AMADetector(tiny_config).torch_device.type == "cuda"


def test_speed_counts_the_operations_of_captured_steps_too(tiny_config, cuda, monkeypatch):
    monkeypatch.setattr(speed, "timed_config", lambda size, device: tiny_config.replace(max_steps=0, warmup=0.0))
    monkeypatch.setattr(speed, "_steps", lambda config, device: 6)
    on_cpu, on_gpu = (speed.bench_size("tiny", device, speed.Peaks(1e13, 1e14, 1e12), 1) for device in (CPU, cuda))
    assert on_gpu["gflop_per_image"] == pytest.approx(on_cpu["gflop_per_image"], rel=0.05)
    assert on_gpu["peak_memory_mb"] > 1
