"""The loop: what moves when, what it says, that it resumes exactly, fails loudly, and learns."""

import copy
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ama_core import AMADetector, Config
from ama_core.data import load, prepare
from ama_core.detectors.ama import inference, latent, losses
from ama_core.detectors.ama.networks import build_networks
from ama_core.detectors.ama.scores import Calibration, anomaly_scores
from ama_core.detectors.ama.trainer import AMATrainer
from ama_core.errors import BundleError, ConfigError, DataError, TrainingDiverged
from ama_core.evaluation.metrics import detection_metrics
from ama_core.tensors import scale, to_tensor
from ama_core.training import loop as training
from ama_core.training.loop import Validation, train
from ama_core.training.schedule import learning_rate

CPU = torch.device("cpu")


@pytest.fixture
def few(digits):
    """70 images: four batches of 16 and a remainder, so that epochs are short."""
    return digits.images[:70]


@pytest.fixture
def config(tiny_config) -> Config:
    return tiny_config.replace(max_steps=10)


def run(state: AMATrainer, images, **options) -> list:
    return list(train(state, images, **options))


def weights(state: AMATrainer) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in state.networks.state_dict().items()}


def everything(state: AMATrainer) -> dict[str, torch.Tensor]:
    """Weights, spectral vectors, batch-norm statistics, Adam's moments and steps, random state, best weights."""
    found = {f"networks.{name}": t for name, t in state.networks.state_dict().items()}
    for key, optimiser in state.optimisers.items():
        for index, slots in optimiser.state_dict()["state"].items():
            found |= {f"{key}.{index}.{slot}": t for slot, t in slots.items()}
    found |= {f"best.{name}": t for name, t in state.best.items()}
    return found | {"rng": state.rng.get_state()}


def assert_identical(a: AMATrainer, b: AMATrainer) -> None:
    first, second = everything(a), everything(b)
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different
    assert (a.step, a.best_auroc) == (b.step, b.best_auroc)


def test_every_network_moves(config, few):
    state = AMATrainer(config, CPU)
    before = weights(state)
    run(state, few)
    assert state.step == 10
    for name, tensor in state.networks.named_parameters():
        if tensor.requires_grad or name[0] in "EG":
            assert not torch.equal(before[name], tensor), f"{name} did not move"


def test_events(config, few):
    state = AMATrainer(config, CPU)
    validation = Validation(few[:20], few[20:40])
    events = run(state, few, log_every=4, sample_every=5, validation=validation, validate_every=6)
    steps = {kind: [e.step for e in events if e.kind == kind] for kind in ("progress", "samples", "validation", "done")}
    assert steps == {"progress": [1, 2, 4, 5, 8, 10], "samples": [5, 10], "validation": [6, 10], "done": [10]}
    assert all(e.total_steps == 10 for e in events) and events[-1].kind == "done"
    for event in events:
        if event.kind == "progress":
            assert set(event.values) == {
                "loss_critic",
                "loss_autoencoder",
                "wasserstein",
                "regulariser",
                "penalty",
                "z_ratio",
                "epoch",
                "lr",
                "images_per_s",
                "seconds",
                "eta_s",
            }
            assert all(math.isfinite(v) for v in event.values.values())
            assert event.values["images_per_s"] > 0 and event.values["z_ratio"] > 0
        if event.kind == "samples":
            assert event.images.shape == (2, 8, 32, 32, 1) and event.images.dtype == np.uint8
            np.testing.assert_array_equal(event.images[0], few[:8])
        if event.kind == "validation":
            assert set(event.values) == {"auroc_R", "auroc_A", "auroc_M", "auroc_T", "auroc_C"}
            assert all(0 <= value <= 1 for value in event.values.values())
    epochs = [e.values["epoch"] for e in events if e.kind == "progress"]
    assert epochs == [1, 1, 1, 2, 2, 3]  # four batches an epoch
    last = [e for e in events if e.kind == "progress"][-1]
    assert last.values["eta_s"] == 0 and last.values["seconds"] == state.seconds


def test_watching_changes_nothing(config, few):
    quiet, watched = AMATrainer(config, CPU), AMATrainer(config, CPU)
    run(quiet, few, log_every=1000, sample_every=1000)
    run(watched, few, log_every=1, sample_every=1)
    assert_identical(quiet, watched)


def test_looking_at_other_images_changes_nothing_and_begins_with_the_first_step(config, few, digits, tmp_path):
    others = np.full((12, 32, 32, 1), 200, np.uint8)
    options = dict(watch=Validation(digits.images[100:130], others), log_every=1000)
    quiet, watched = AMATrainer(config, CPU), AMATrainer(config, CPU)
    run(quiet, few, log_every=1000)
    looks = [event for event in run(watched, few, **options) if event.kind == "watch"]
    assert_identical(quiet, watched)
    assert not watched.best, "nothing is chosen by them"
    assert [event.step for event in looks] == [1, 2, 5, 10]
    for event in looks:
        assert event.images.shape == (2, 8, 32, 32, 1) and np.array_equal(event.images[0, 4:], others[:4])
        for name, (normal, other) in event.scores.items():
            assert (normal.shape, other.shape) == ((30,), (12,))
            assert event.values[f"watched_{name}"] == pytest.approx(detection_metrics(normal, other)["auroc"])
    resumed = stop_at(AMATrainer(config, CPU), few, 5, tmp_path / "c", **options)
    run(resumed, few, **options)
    assert_identical(quiet, resumed)


def test_nan_of_the_very_last_update_is_seen(config, few, tmp_path, monkeypatch):
    state, update = AMATrainer(config, CPU), AMATrainer.update

    def spoiling(self, x):
        found = update(self, x)
        if self.step == config.max_steps - 1:
            with torch.no_grad():
                next(self.networks.E.parameters()).fill_(math.nan)
        return found

    monkeypatch.setattr(AMATrainer, "update", spoiling)
    with pytest.raises(TrainingDiverged, match="step 10: weights are not finite"):
        run(state, few, checkpoint=tmp_path / "c.safetensors")
    assert not (tmp_path / "c.safetensors").exists()


def test_a_new_training_leaves_all_random_states_alone(config, monkeypatch):
    before, first, seeded = torch.get_rng_state(), AMATrainer(config, CPU), []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    second = AMATrainer(config, CPU)
    assert torch.equal(torch.get_rng_state(), before) and not seeded
    assert_identical(first, second)
    torch.manual_seed(0)
    assert seeded == [0], "which is how PyTorch seeds all devices"
    torch.set_rng_state(before)


def test_an_average_that_is_the_best_is_stored(config, few, tmp_path):
    state = AMATrainer(config.replace(average=0.9), CPU)
    run(state, few, validation=Validation(few[:20], few[20:40]), validate_every=10, checkpoint=tmp_path / "c.safetensors")
    stored = AMATrainer.load(tmp_path / "c.safetensors", CPU)
    assert stored.best and all(torch.equal(stored.best[name], t) for name, t in stored.average.items())


def test_nan_is_seen_before_it_is_looked_at(config, few):
    state = AMATrainer(config, CPU)
    with torch.no_grad():
        next(state.networks.E.parameters()).fill_(math.nan)
    with pytest.raises(TrainingDiverged):
        run(state, few, watch=Validation(few[:5], few[5:10]))


def test_the_seed_decides_everything(config, few):
    torch.manual_seed(1)
    first = AMATrainer(config, CPU)
    run(first, few)
    torch.manual_seed(2)
    np.random.seed(2)
    before = torch.get_rng_state()
    second = AMATrainer(config, CPU)
    run(second, few)
    assert_identical(first, second)
    assert torch.equal(torch.get_rng_state(), before)  # and the caller's randomness is left alone
    other = AMATrainer(config.replace(seed=1), CPU)
    assert not torch.equal(weights(AMATrainer(config, CPU))["E.to_code.weight"], weights(other)["E.to_code.weight"])


def test_who_moves_when(config, few):
    """Five critic steps on one batch, then one of the autoencoder; each leaves the other's weights and statistics alone."""
    state = AMATrainer(config.replace(n_critic=5, max_steps=2), CPU)
    order, before = [], {}

    def keep(optimiser, args, kwargs):
        before.clear()
        before.update({name: p.detach().clone() for name, p in state.networks.named_parameters()})

    def compare(key):
        def hook(optimiser, args, kwargs):
            moved = {n[0] for n, p in state.networks.named_parameters() if not torch.equal(before[n], p)}
            assert moved == {key}
            order.append(key)

        return hook

    statistics = []
    for key, optimiser in state.optimisers.items():
        optimiser.register_step_pre_hook(keep)
        optimiser.register_step_post_hook(compare(key))
    state.optimisers["D"].register_step_post_hook(
        lambda *_: statistics.append(state.networks.E.features[1].running_mean.clone())
    )
    run(state, few, sample_every=1000)
    assert "".join(order).replace("GE", "EG") == "DDDDDEG" * 2
    assert all(torch.equal(s, statistics[0]) for s in statistics[:5])


def test_reconstructions_are_computed_once_a_step(config, few):
    """E sees each batch once and G twice (reconstruction, simplex decode), however many critic steps there are."""
    calls = {"E": 0, "G": 0}
    state = AMATrainer(config.replace(n_critic=4, max_steps=4, atypical="none"), CPU)

    def count(key):
        def hook(*_):
            calls[key] += 1

        return hook

    for key in calls:
        getattr(state.networks, key).register_forward_hook(count(key))
    for event in train(state, few, log_every=3, sample_every=1000):
        if event.step == 3:
            break
    assert calls == {"E": 3, "G": 6}


def test_the_critic_learns_to_tell_and_the_autoencoder_to_hide(config, few):
    """Against a frozen opponent each side's own loss falls."""
    for frozen, mine, loss in (("EG", "D", "loss_critic"), ("D", "EG", "loss_autoencoder")):
        changes = dict(max_steps=20, atypical="none", lambda_gp=0.0, lr_schedule="constant", lr=3e-3)
        state = AMATrainer(config.replace(**changes), CPU)
        for key in frozen:
            state.optimisers[key].register_step_pre_hook(lambda optimiser, *_: optimiser.zero_grad())
        events = run(state, few, log_every=5, sample_every=1000)
        losses = [e.values[loss] for e in events if e.kind == "progress"]
        assert losses[-1] < losses[0], (mine, losses)


def test_negatives_start_after_the_warmup_and_fill_their_part(config, few, monkeypatch):
    seen = []
    original = losses.signs

    def spy(n_normal, n_negative, lambda_neg, device):
        seen.append((n_normal, n_negative, lambda_neg))
        return original(n_normal, n_negative, lambda_neg, device)

    monkeypatch.setattr(losses, "signs", spy)
    run(AMATrainer(config.replace(warmup=0.3, negative_fraction=0.25), CPU), few)
    assert seen == [(16, 0, 5.0)] * 3 + [(12, 4, 5.0)] * 7


def test_synthetic_negatives_are_decodes_of_atypical_codes(config, few, monkeypatch):
    state = AMATrainer(config, CPU)
    z_neg = torch.full((2, 8), 0.7)
    monkeypatch.setattr(latent, "atypical_codes", lambda *_: z_neg)
    buffers = {name: b.clone() for name, b in state.networks.named_buffers() if name[0] in "EG"}
    x = to_tensor(few[:16], CPU)
    x_neg = state._synthetic_negatives(x, 2)
    assert not x_neg.requires_grad and state.networks.E.training and state.networks.G.training
    assert all(torch.equal(buffers[n], b) for n, b in state.networks.named_buffers() if n in buffers)  # eval mode
    with torch.no_grad():
        torch.testing.assert_close(x_neg, state.networks.eval().G(z_neg))


def test_real_anomalies_take_the_place_of_synthetic_ones(config, few, monkeypatch):
    def never(*_):
        raise AssertionError("synthetic negatives in the semi-supervised case")

    monkeypatch.setattr(AMATrainer, "_synthetic_negatives", never)
    flat = np.full((5, 32, 32, 1), 200, np.uint8)
    with_anomalies, without = (AMATrainer(config.replace(atypical=a), CPU) for a in ("inward", "none"))
    run(with_anomalies, few, anomalies=flat)
    run(without, few)
    assert not torch.equal(
        weights(with_anomalies)["D.to_value.parametrizations.weight.original"],
        weights(without)["D.to_value.parametrizations.weight.original"],
    )


VARIANTS = {
    "released": dict(mode="released"),
    "released outward": dict(mode="released", atypical="outward"),
    "released sipple": dict(mode="released", atypical="sipple"),
    "plain": dict(reconstruction="plain"),
    "plain released": dict(reconstruction="plain", mode="released"),
    "outward": dict(atypical="outward"),
    "sipple": dict(atypical="sipple"),
    "no negatives": dict(atypical="none"),
    "norm": dict(reg="norm"),
    "only Wasserstein": dict(lambda_gp=0.0, lambda_inter=0.0, lambda_reg=0.0, atypical="none"),
    "parts": dict(gp_fraction=0.25, inter_fraction=0.25),
    "drift": dict(lambda_drift=0.001),
    "k 2": dict(k=2),
    "k 5": dict(k=5),
    "bf16": dict(precision="bf16"),
    "whole batch": dict(batch_size=70),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_trains(config, few, name):
    state = AMATrainer(config.replace(max_steps=3, warmup=0.3, **VARIANTS[name]), CPU)
    before = weights(state)
    events = run(state, few, log_every=1, sample_every=1000)
    after = weights(state)
    assert all(torch.isfinite(t).all() for t in after.values())
    for part in ("E.to_code.weight", "G.from_code.weight", "D.to_value.parametrizations.weight.original"):
        assert not torch.equal(before[part], after[part])
    found = [e.values for e in events if e.kind == "progress"]
    assert len(found) == 3 and all(("penalty" in v) == (state.config.lambda_gp > 0) for v in found)


@pytest.mark.parametrize("channels, image_size", [(3, 32), (1, 64)])
def test_colour_and_larger_images_train(config, channels, image_size, rng):
    images = rng.integers(0, 256, (20, image_size, image_size, channels), dtype=np.uint8)
    state = AMATrainer(config.replace(channels=channels, image_size=image_size, max_steps=2, batch_size=8), CPU)
    assert run(state, images)[-1].kind == "done"


def test_simplex_gradient_reaches_the_autoencoder_in_the_paper_s_mode_alone(config, few, monkeypatch):
    """The released code detaches the decode."""
    for mode, expected in (("paper", True), ("released", False)):
        called = []
        original = losses.autoencoder_simplex
        monkeypatch.setattr(
            losses,
            "autoencoder_simplex",
            lambda d, *rest: (called.append(d.requires_grad), original(d, *rest))[1],  # noqa: B023
        )
        run(AMATrainer(config.replace(mode=mode, max_steps=1), CPU), few)
        assert any(called) == expected
        monkeypatch.setattr(losses, "autoencoder_simplex", original)


# Resuming


def stop_at(state: AMATrainer, images, step: int, path, **options) -> AMATrainer:
    """Train until the checkpoint of `step`, forget the process, and read the state back."""
    for event in train(state, images, checkpoint=path, checkpoint_seconds=0, **options):
        if event.kind == "checkpoint" and event.step == step:
            break
    return AMATrainer.load(path, CPU)


RESUMES = {
    "paper": ({}, 6),
    "paper, before the warm-up": (dict(warmup=0.7), 5),
    "at the end of an epoch": ({}, 4),
    "released": (dict(mode="released"), 6),
    "plain": (dict(reconstruction="plain"), 6),
    "bf16": (dict(precision="bf16"), 6),
    "parts and critic steps": (dict(gp_fraction=0.5, inter_fraction=0.5, n_critic=2), 7),
    "linear": (dict(lr_schedule="linear", atypical="sipple"), 7),
}


@pytest.mark.parametrize("name", RESUMES)
def test_resume_equals_no_interruption(config, few, tmp_path, name):
    changes, step = RESUMES[name]
    c = config.replace(**{"warmup": 0.2, **changes})
    uninterrupted = AMATrainer(c, CPU)
    run(uninterrupted, few, log_every=3)
    resumed = stop_at(AMATrainer(c, CPU), few, step, tmp_path / "c")
    assert resumed.step == step
    run(resumed, few)
    assert_identical(uninterrupted, resumed)


def test_resume_with_anomalies_and_validation(config, few, digits, tmp_path):
    options = dict(
        anomalies=np.full((5, 32, 32, 1), 200, np.uint8),
        validation=Validation(digits.images[100:130], np.full((10, 32, 32, 1), 99, np.uint8)),
        validate_every=2,
    )
    uninterrupted = AMATrainer(config, CPU)
    run(uninterrupted, few, **options)
    resumed = stop_at(AMATrainer(config, CPU), few, 5, tmp_path / "c", **options)
    assert resumed.best and math.isfinite(resumed.best_auroc)
    run(resumed, few, **options)
    assert_identical(uninterrupted, resumed)


def test_stopping_at_any_event_and_saving_loses_nothing(config, few, digits, tmp_path):
    """As `runs` does when asked to stop: save at whatever event comes; the validation of that step is not forgotten."""
    options = dict(
        validation=Validation(digits.images[100:130], np.full((10, 32, 32, 1), 99, np.uint8)),
        log_every=2,
        sample_every=2,
        validate_every=2,
    )
    uninterrupted = AMATrainer(config, CPU)
    run(uninterrupted, few, **options)
    for kind, steps in {"progress": (2, 10), "samples": (4,), "validation": (2,)}.items():
        for step in steps:
            state = AMATrainer(config, CPU)
            for event in train(state, few, **options):
                if (event.kind, event.step) == (kind, step):
                    state.save(tmp_path / "c")
                    break
            resumed = AMATrainer.load(tmp_path / "c", CPU)
            run(resumed, few, **options)
            assert_identical(uninterrupted, resumed)


def test_a_finished_state_has_nothing_left_to_do(config, few, tmp_path):
    state = AMATrainer(config, CPU)
    run(state, few, checkpoint=tmp_path / "c")
    resumed = AMATrainer.load(tmp_path / "c", CPU)
    assert [e.kind for e in train(resumed, few)] == ["done"]
    assert_identical(state, resumed)


def test_checkpoint_is_safetensors_and_carries_its_configuration(config, few, tmp_path):
    state = AMATrainer(config, CPU)
    run(state, few, checkpoint=tmp_path / "c")
    with safe_open(tmp_path / "c", "pt") as file:
        header = json.loads(file.metadata()["ama_checkpoint"])
    assert header["config"] == config.to_dict() and header["step"] == 10
    assert not list(tmp_path.glob(".*"))  # nothing half written is left


def damage_checkpoint(kind: str, path) -> None:
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == "foreign":
        save_file({"x": torch.zeros(3)}, path)
    else:
        with safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["ama_checkpoint"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if kind == "lacks a tensor":
            del tensors["networks.E.to_code.weight"]
        elif kind == "other shape":
            tensors["networks.E.to_code.weight"] = torch.zeros(2, 2)
        elif kind == "bad config":
            header["config"]["nz"] = "many"
        elif kind == "lacks its step":
            del header["step"]
        save_file(tensors, path, {"ama_checkpoint": json.dumps(header)})


@pytest.mark.parametrize(
    "kind",
    ["missing", "empty", "truncated", "foreign", "lacks a tensor", "other shape", "bad config", "lacks its step"],
)
def test_damaged_checkpoints(config, tmp_path, kind):
    path = tmp_path / "checkpoint"
    AMATrainer(config, CPU).save(path)
    damage_checkpoint(kind, path)
    with pytest.raises(BundleError, match="checkpoint"):
        AMATrainer.load(path, CPU)


# Failing


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(config, few, tmp_path):
    path, state = tmp_path / "c", AMATrainer(config, CPU)
    good = None
    with pytest.raises(TrainingDiverged, match="diverged at step 5.*checkpoint is kept"):
        for event in train(state, few, checkpoint=path, checkpoint_seconds=0, log_every=1000, sample_every=1000):
            if event.kind == "checkpoint" and event.step == 4:
                good = copy.deepcopy(everything(state))
                with torch.no_grad():
                    state.networks.E.to_code.weight.fill_(float("nan"))
    kept = AMATrainer.load(path, CPU)
    assert kept.step == 4
    assert all(torch.equal(good[name], t) for name, t in everything(kept).items())
    assert run(kept, few)[-1].kind == "done"


def test_nan_is_seen_without_a_checkpoint(config, few):
    state = AMATrainer(config, CPU)
    with torch.no_grad():
        state.networks.G.from_code.bias.fill_(float("inf"))
    with pytest.raises(TrainingDiverged, match="lr"):
        run(state, few, log_every=3)


def test_nan_is_seen_before_it_is_validated(config, few):
    state = AMATrainer(config, CPU)
    with torch.no_grad():
        state.networks.G.from_code.bias.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match="step 1"):
        run(state, few, log_every=1000, validation=Validation(few[:9], few[9:19]), validate_every=1)


def test_an_exploding_critic_stops_the_run(config, few, monkeypatch):
    monkeypatch.setattr(training, "LOSS_LIMIT", 1e-6)
    with pytest.raises(TrainingDiverged, match="step 1: loss_critic"):
        run(AMATrainer(config, CPU), few, log_every=2)


def test_the_drift_term_pulls_the_offset_of_the_critic_to_zero(config, few):
    """Without it, no term of the objective depends on that offset."""
    levels = {}
    for weight in (0.0, 10.0):
        state = AMATrainer(config.replace(lambda_drift=weight, max_steps=40), CPU)
        with torch.no_grad():
            for block in state.networks.D.blocks[:-1]:
                block.residual[-1].bias.fill_(1.0)
        pairs = state.networks.pair(*[to_tensor(few, CPU)] * 2)
        before = abs(state.networks.D(pairs).mean().item())
        run(state, few)
        levels[weight] = abs(state.networks.D(pairs).mean().item()) / before
    assert levels[10.0] < 0.5 * levels[0.0], levels


@torch.no_grad()
def drown(state: AMATrainer, size: float) -> None:
    """Raise two features of the critic by `size` or more for every image, so that their parts of its values cancel."""
    weight = state.networks.D.eval().to_value.weight.flatten()
    bias = state.networks.D.blocks[-2].residual[-1].bias
    for i in (weight.argmax(), weight.argmin()):
        bias[i] += size / weight[i].abs() * weight.abs().max()


def test_a_critic_whose_differences_drown_in_rounding_is_warned_of(config, few):
    """By what rounding does to them, for the level of the values may hide it: large features cancel each other."""
    for precision, size, warns in [("bf16", 0.0, False), ("bf16", 1e4, True), ("fp32", 1e4, False)]:
        state = AMATrainer(config.replace(precision=precision, max_steps=1), CPU)
        drown(state, size)
        assert np.abs(inference.critic_values(state.networks, few, few)).max() < 100
        warning = state.warning(few[:8])
        assert bool(warning) == warns and ("lambda_drift=0.001" in warning) == warns
        assert any(event.warning for event in run(state, few)) == warns
    state = AMATrainer(config.replace(precision="bf16", lambda_drift=0.001), CPU)
    drown(state, 1e4)
    assert "lambda_drift above 0.001" in state.warning(few[:8])


def test_what_rounding_leaves_of_differences(config, few):
    networks = AMATrainer(config, CPU).networks
    real, difference, rounding = (found.numpy() for found in inference.critic_rounding(networks, few))
    x_hat = inference.reconstruct(networks, few)
    np.testing.assert_allclose(real, inference.critic_values(networks, few, few), rtol=1e-5)
    assert real.shape == difference.shape == rounding.shape == (len(few),)
    # x_hat as uint8 is coarser than what the critic is given: close, not equal.
    np.testing.assert_allclose(real - difference, inference.critic_values(networks, few, x_hat), atol=0.01)
    assert 0 < np.abs(rounding).max() < 2**-6 * np.abs(real).max()


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((70, 28, 28, 1), np.uint8), "shape"),
        (np.zeros((70, 32, 32, 3), np.uint8), "shape"),
        (np.zeros((70, 32, 32, 1), np.float32), "uint8"),
        (np.zeros((32, 32, 1), np.uint8), "shape"),
        (np.zeros((15, 32, 32, 1), np.uint8), "batch_size"),
    ],
)
def test_images_that_do_not_fit(config, images, message):
    with pytest.raises(DataError, match=message):
        run(AMATrainer(config, CPU), images)


def test_anomalies_that_do_not_fit(config, few):
    with pytest.raises(DataError, match="anomalies"):
        run(AMATrainer(config, CPU), few, anomalies=np.zeros((5, 32, 32, 3), np.uint8))


# Schedule


@pytest.mark.parametrize("precision, dtype", [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_the_arithmetic_of_a_step(config, few, precision, dtype):
    state, seen = AMATrainer(config.replace(precision=precision, max_steps=1), CPU), []
    state.networks.E.to_code.register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))
    run(state, few)
    assert seen[0] == dtype, "of the step; pictures after it are fp32"


def test_learning_rate_falls_tenfold_at_30_60_90_percent():
    c = Config(lr=1.0, lr_schedule="steps")
    rates = [learning_rate(c, step, 100) for step in range(100)]
    expected = [1.0] * 30 + [0.1] * 30 + [0.01] * 30 + [0.001] * 10
    np.testing.assert_allclose(rates, expected)


def test_other_schedules():
    linear, constant = (Config(lr=0.5, lr_schedule=s) for s in ("linear", "constant"))
    np.testing.assert_allclose([learning_rate(constant, s, 10) for s in range(10)], 0.5)
    rates = [learning_rate(linear, s, 100) for s in range(100)]
    np.testing.assert_allclose(rates[:51], 0.5)
    np.testing.assert_allclose(np.diff(rates[50:]), -0.01, rtol=1e-9)
    assert rates[-1] > 0


def test_the_schedule_reaches_the_optimisers(config, few):
    c = config.replace(lr_schedule="steps", lr=1e-3)
    state = AMATrainer(c, CPU)
    used = {key: [] for key in state.optimisers}
    for key, optimiser in state.optimisers.items():
        optimiser.register_step_pre_hook(lambda o, *_, key=key: used[key].append(o.param_groups[0]["lr"]))
    run(state, few)
    expected = [1e-3] * 3 + [1e-4] * 3 + [1e-5] * 3 + [1e-6]
    for key in used:
        np.testing.assert_allclose(used[key], expected)
    betas = {key: o.param_groups[0]["betas"] for key, o in state.optimisers.items()}
    assert betas == {"E": (0.5, 0.9), "G": (0.0, 0.9), "D": (0.0, 0.9)}


@pytest.mark.parametrize("resumed", [False, True])
def test_the_step_is_adam_s(config, few, tmp_path, resumed):
    """Kingma and Ba's update, element by element in NumPy, whatever lies how in memory; also right after a resume."""
    state = AMATrainer(config.replace(lr_schedule="constant"), CPU)
    if resumed:
        state = stop_at(state, few, 3, tmp_path / "c")
    expected = {}

    def predict(key):
        b1, b2 = {"E": 0.5, "G": 0.0, "D": 0.0}[key], 0.9

        def hook(optimiser, args, kwargs):
            for name, p in getattr(state.networks, key).named_parameters():
                slots = optimiser.state.get(p)
                w, g = (t.detach().double().numpy() for t in (p, p.grad))
                t, m, v = 0, np.zeros(w.shape), np.zeros(w.shape)
                if slots:
                    t, m, v = float(slots["step"]), slots["exp_avg"].double().numpy(), slots["exp_avg_sq"].double().numpy()
                m, v, t = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2, t + 1
                expected[f"{key}.{name}"] = w - config.lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + 1e-8)

        return hook

    for key, optimiser in state.optimisers.items():
        optimiser.register_step_pre_hook(predict(key))
    for event in train(state, few, log_every=1, sample_every=1000):
        for name, p in state.networks.named_parameters():
            np.testing.assert_allclose(p.detach().numpy(), expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
        if event.step >= 6:
            break


def test_a_step_that_does_not_fit_into_memory_says_what_to_lower(config, few, monkeypatch):
    def update(self, x):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(AMATrainer, "update", update)
    with pytest.raises(ConfigError, match=rf"{config.batch_size} images does not fit into the memory of cpu: lower batch_size"):
        run(AMATrainer(config, CPU), few)


def test_a_checkpoint_of_another_kind_of_device_goes_on_with_draws_of_its_step(config, few, tmp_path):
    """A GPU's generator has a state of another size."""
    trainer = AMATrainer(config, CPU)
    trainer.step = 4
    trainer.rng = SimpleNamespace(get_state=lambda: torch.zeros(16, dtype=torch.uint8))
    trainer.save(tmp_path / "checkpoint")
    loaded, again = (AMATrainer.load(tmp_path / "checkpoint", CPU) for _ in range(2))
    assert torch.equal(loaded.rng.get_state(), again.rng.get_state())
    assert not torch.equal(loaded.rng.get_state(), AMATrainer(config, CPU).rng.get_state()), "not the first draws once more"
    run(loaded, few)
    assert loaded.step == config.max_steps


def test_total_steps():
    assert Config(epochs=100).total_steps(50_000) == 100 * 195
    assert Config(epochs=2, batch_size=16).total_steps(70) == 8
    assert Config(epochs=100, max_steps=7).total_steps(50_000) == 7
    assert Config(epochs=1, max_steps=700).total_steps(512) == 2


def test_an_epoch_sees_every_image_once(config, few, monkeypatch):
    """Batches of one epoch are disjoint; the remainder is dropped; the next epoch is another order."""
    seen = []
    original = scale

    def spy(images):
        seen.append(images.clone())
        return original(images)

    monkeypatch.setattr(training, "scale", spy)
    run(AMATrainer(config.replace(max_steps=8, atypical="none"), CPU), few, sample_every=1000)
    batches = [t.permute(0, 2, 3, 1).numpy() for t in seen if t.shape[0] == 16][:8]
    rows = {row.tobytes(): i for i, row in enumerate(few)}
    assert len(rows) == 70
    epochs = [[rows[row.tobytes()] for batch in batches[i : i + 4] for row in batch] for i in (0, 4)]
    assert all(len(set(epoch)) == 64 for epoch in epochs) and epochs[0] != epochs[1]


# Validation


def test_best_weights_are_those_of_the_best_validation(config, few, digits):
    of_a = (0.6, 0.9, 0.7, 0.9, 0.2)
    aurocs = iter([value for a in of_a for value in (0.5, a, 0.95, 0.99, 0.99)])  # of R, A, M, T and C in turns; A chooses
    state = AMATrainer(config, CPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "roc_auc_score", lambda *_: next(aurocs))
        options = dict(validation=Validation(digits.images[:2], digits.images[:2]), validate_every=2)
        for event in train(state, few, **options):
            if event.kind == "validation" and event.step == 4:
                expected = {name: t.clone() for name, t in state.networks.bare_state().items()}
    assert state.best_auroc == 0.9
    assert all(torch.equal(expected[name], t) for name, t in state.best.items())
    assert not torch.equal(state.best["E.to_code.weight"], state.networks.E.to_code.weight)


def test_the_preview_s_statistics_are_of_training_images(config, few, digits):
    """A preview whose statistics are of the images in question would take the anomalies among them for normal."""
    state, images = AMATrainer(config, CPU), digits.images[100:140]
    found = state.anomaly_scores(state.weights(), few, images)
    others = state.anomaly_scores(state.weights(), few, np.concatenate([images[:5], 255 - images[5:]]))
    networks = build_networks(config, state.weights(), CPU)
    of_train, of_images = (inference.statistics(networks, part) for part in (few, images))
    expected = anomaly_scores(Calibration.fit(of_train, of_train).score(of_images))
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5)
        np.testing.assert_allclose(others[name][:5], values[:5], rtol=1e-5)


def test_validated_selection_keeps_the_best_weights(config, digits):
    flat = np.full((10, 32, 32, 1), 99, np.uint8)
    state = AMATrainer(config, CPU)
    aurocs = iter([0.5, 0.9] + [0.1] * 80)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "roc_auc_score", lambda *_: next(aurocs))
        d = AMADetector(config, device=CPU).fit(digits.images, validation_anomalies=flat, trainer=state, select="validated")
    assert d.info_["training"]["validated_auroc_A"] == 0.9
    stored = state.best["E.to_code.weight"].half().float()
    torch.testing.assert_close(d.networks_.E.to_code.weight, stored, rtol=0, atol=0)


def test_validated_selection_needs_anomalies(config, digits):
    with pytest.raises(ConfigError, match="validat"):
        AMADetector(config.replace(max_steps=1), device=CPU).fit(digits.images, select="validated")


# Learning


def test_a_few_hundred_steps_on_digits_separate_other_images(digits):
    """The method works: unseen digits are told from two other kinds of images, and scores are diverse."""
    config = Config(
        channels=1,
        fit="pad",
        nz=16,
        width_encoder=8,
        width_generator=8,
        width_critic=8,
        batch_size=16,
        n_critic=1,
        lambda_gp=0.0,
        inter_fraction=0.25,
        reg="hinge",
        epochs=1000,
        max_steps=200,
        lr=2e-3,
        lr_schedule="linear",
        precision="fp32",
    )
    detector = AMADetector(config, device=CPU).fit(digits.images)
    normal = detector.scores(load("digits", "test").images)
    for name in ("textures", "house_numbers"):
        images = prepare(load(name, "test").images[:300], size=32, channels=1, fit="pad")[0]
        other = detector.scores(images)
        auroc = {key: detection_metrics(anomaly_scores(normal)[key], anomaly_scores(other)[key])["auroc"] for key in ("M", "T")}
        assert min(auroc.values()) > 0.9, (name, auroc)
    for key in ("R", "log_A", "M", "T", "z_norm", "pixel_l1"):
        assert len(np.unique(normal[key].round(6))) > 400, key
        assert normal[key].std() > 1e-3 * abs(normal[key].mean()), key

    # Reconstructions of unseen digits are much nearer to them than the mean digit is.
    test = load("digits", "test").images[:200].astype(float)
    copies = detector.reconstruct(test.astype(np.uint8)).astype(float)
    assert np.abs(copies - test).mean() < 0.8 * np.abs(digits.images.mean(axis=0) - test).mean()


# ---------------------------------------------------------------------------------------------------------------------
# The clock, what is drawn, negatives, the average


class FakeTime:
    """perf_counter advances by one second at each look; whoever consumes events adds their own."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        self.now += 1.0
        return self.now


def test_the_clock_leaves_out_the_consumer_and_keeps_the_seconds_of_every_step(config, few, tmp_path, monkeypatch):
    """Two looks a step, one second apart: ten steps are ten seconds, however slow the consumer and wherever it is stopped."""
    time = FakeTime()
    monkeypatch.setattr(training, "time", time)
    state = AMATrainer(config, CPU)
    for event in train(state, few, log_every=4, sample_every=1, checkpoint_seconds=1e9):
        time.now += 1000.0
        if event.step == 7 and event.closes_step:  # between two reports
            break
    assert state.step == state.seconds == 7
    state.save(tmp_path / "state.safetensors")
    resumed = AMATrainer.load(tmp_path / "state.safetensors", CPU)
    events = run(resumed, few, log_every=4)
    assert resumed.step == resumed.seconds == 10
    rates = [event.values["images_per_s"] for event in events if event.kind == "progress"]
    assert rates == [config.batch_size] * len(rates)


def test_a_short_run_says_something_at_once(config, few):
    events = run(AMATrainer(config.replace(max_steps=3), CPU), few)
    assert [event.step for event in events if event.kind == "progress"] == [1, 2, 3]


def test_validation_draws_from_all_training_images(config, digits, monkeypatch):
    """A folder may be sorted by class: its first images are not like the others."""
    images = digits.images[np.argsort(digits.labels, kind="stable")]
    seen = []
    monkeypatch.setattr(training, "VALIDATION_TRAIN", 100)
    measured = AMATrainer.anomaly_scores

    def keep(self, weights, drawn, looked_at):
        seen.append((drawn, looked_at[:-2]))
        return measured(self, weights, drawn, looked_at)

    monkeypatch.setattr(AMATrainer, "anomaly_scores", keep)
    detector = AMADetector(config.replace(max_steps=2, calibration_fraction=0.5), device=CPU)
    monkeypatch.setattr("ama_core.detectors.base.VALIDATION_NORMALS", 60)
    detector.fit(images, validation_anomalies=images[:2])
    drawn, normals = seen[0]
    place = {image.tobytes(): i for i, image in enumerate(images)}
    for some, n in ((drawn, 100), (normals, 60)):
        places = np.array([place[image.tobytes()] for image in some])
        assert len(some) == n and np.histogram(places, 4, (0, len(images)))[0].min() > n / 10


@pytest.mark.parametrize("settings", [{"negative_fraction": 0.0}, {"lambda_neg": 0.0}])
def test_no_negative_row_where_they_have_no_part(config, few, monkeypatch, settings):
    counts = []
    signs = losses.signs
    monkeypatch.setattr(losses, "signs", lambda n, n_neg, *rest: (counts.append(n_neg), signs(n, n_neg, *rest))[1])
    run(AMATrainer(config.replace(warmup=0.0, **settings), CPU), few, anomalies=few[:5])
    assert counts == [0] * 10


def test_the_betas_are_settings(config):
    state = AMATrainer(config.replace(beta1_encoder=0.1, beta1_generator=0.2, beta1_critic=0.3, beta2=0.8), CPU)
    betas = {name: optimiser.param_groups[0]["betas"] for name, optimiser in state.optimisers.items()}
    assert betas == {"E": (0.1, 0.8), "G": (0.2, 0.8), "D": (0.3, 0.8)}


def test_the_average_follows_its_formula_and_survives_a_checkpoint(config, few, tmp_path):
    config = config.replace(average=0.5, max_steps=6)
    state, expected = AMATrainer(config, CPU), None
    for event in train(state, few, log_every=1, sample_every=1000):
        if event.kind == "progress":
            now = {name: t.double().numpy() for name, t in state.networks.bare_state().items()}
            decay = min(0.5, event.step / (event.step + 9))
            expected = now if expected is None else {k: decay * expected[k] + (1 - decay) * now[k] for k in now}
    for name, tensor in state.weights().items():
        if tensor.is_floating_point():
            np.testing.assert_allclose(tensor.numpy(), expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
    state.save(tmp_path / "state.safetensors")
    loaded = AMATrainer.load(tmp_path / "state.safetensors", CPU)
    assert all(torch.equal(loaded.average[name], tensor) for name, tensor in state.average.items())
    plain = AMATrainer(config.replace(average=0.0), CPU)
    run(plain, few)
    assert all(torch.equal(tensor, state.networks.bare_state()[name]) for name, tensor in plain.weights().items())


def test_the_average_is_what_scores(config, digits):
    config = config.replace(average=0.9)
    state = AMATrainer(config, CPU)
    detector = AMADetector(config, device=CPU).fit(digits.images, trainer=state)
    scored = detector.networks_.state_dict()
    assert torch.equal(scored["E.to_code.weight"], state.average["E.to_code.weight"].half().float())
    assert not torch.equal(scored["E.to_code.weight"], state.networks.E.to_code.weight.half().float())


def test_how_long_the_rate_falls():
    config = Config(lr_schedule="linear", lr=1.0, lr_fall=0.25)
    assert [learning_rate(config, step, 100) for step in (0, 74, 75, 80, 99)] == pytest.approx([1, 1, 1, 0.8, 0.04])
