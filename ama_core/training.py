"""The training loop of the paper, top to bottom.

`train` is a generator of events: whoever iterates shows them, stores them, or stops early by no longer iterating. All that
the loop changes lives in a `TrainingState`, which a checkpoint stores whole: on the CPU an interrupted and resumed run equals
an uninterrupted one bit for bit.
"""

import json
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ama_core import inference, latent, losses
from ama_core.bundle import build_networks
from ama_core.config import Config
from ama_core.data import draw
from ama_core.errors import AMAError, BundleError, DataError, TrainingDiverged
from ama_core.files import write_atomically
from ama_core.networks import Networks
from ama_core.scores import log_a_score, r_score

LR_MILESTONES = (0.3, 0.6, 0.9)  # lr x0.1 at these parts of the run [C]
CRITIC_LIMIT = 1e6  # |loss| beyond this is an exploding critic
N_SAMPLES = 8  # fixed images whose reconstructions are followed
EARLY_STEPS = (1, 2, 5, 10)  # with a `progress` event of their own, so that a short or slow run shows something soon
VALIDATION_TRAIN = 1000  # training images behind mu and sigma of the periodic AUROC


@dataclass(frozen=True)
class Event:
    """Something that happened at `step` of `total_steps`.

    kind: `progress` (values: losses, z_ratio, images_per_s, seconds, eta_s, epoch, lr), `samples` (images: two rows of uint8
    (2, N, H, W, C), inputs and reconstructions), `validation` (values: auroc_R, auroc_A), `checkpoint`, or `done`.
    closes_step: no other event of this step follows; whoever stops and saves here will, resumed, miss none and see none twice.
    """

    kind: str
    step: int
    total_steps: int
    values: dict[str, float] = field(default_factory=dict)
    images: np.ndarray | None = None
    closes_step: bool = False


@dataclass(frozen=True)
class Validation:
    """Images for the periodic AUROC: held-out normals and a few anomalies (50 in the paper), uint8 (N, H, W, C)."""

    normals: np.ndarray
    anomalies: np.ndarray


class TrainingState:
    """Everything a training changes: networks, optimisers, random state, counters, and the best validated weights."""

    def __init__(self, config: Config, device: torch.device | None = None):
        self.config = config
        self.device = device or inference.default_device()
        with torch.random.fork_rng(devices=[]):  # initialisation must not disturb, nor depend on, the caller's randomness
            torch.manual_seed(config.seed)
            self.networks = Networks(config)
        self.networks.to(self.device, memory_format=torch.channels_last)
        self.optimisers = {
            name: torch.optim.Adam(getattr(self.networks, name).parameters(), config.lr, betas, fused=fused(self.device))
            for name, betas in config.betas.items()
        }
        self.rng = torch.Generator(self.device).manual_seed(config.seed)
        self.step = 0
        self.seconds = 0.0  # of work in the loop so far, over all interruptions, without those of whoever consumes its events
        self.best_auroc = -math.inf
        self.best: dict[str, Tensor] = {}
        self.average: dict[str, Tensor] = {}  # moving average of `Networks.bare_state`, where the configuration asks for one

    def weights(self) -> dict[str, Tensor]:
        """What scores images now, a state of `Networks(config, spectral=False)`: the average, or the last step's weights."""
        return self.average if self.config.average > 0 and self.average else self.networks.bare_state()

    def update_average(self) -> None:
        """Move the average towards the weights after a step; a young average forgets faster, lest it remember the start."""
        if self.config.average == 0:
            return
        state = self.networks.bare_state()
        decay = min(self.config.average, self.step / (self.step + 9))
        for name, tensor in self.average.items():
            state[name] = tensor.lerp(state[name], 1 - decay) if tensor.is_floating_point() else state[name]
        self.average = state

    def save(self, path: Path) -> None:
        """Write everything to `path` atomically, as safetensors."""
        tensors = {f"networks.{name}": t for name, t in self.networks.state_dict().items()}
        tensors |= {f"best.{name}": t for name, t in self.best.items()}
        tensors |= {f"average.{name}": t for name, t in self.average.items()}
        tensors["rng"] = self.rng.get_state()
        for key, optimiser in self.optimisers.items():
            for index, slots in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{key}.{index}.{slot}": t for slot, t in slots.items()}
        header = {"step": self.step, "seconds": self.seconds, "best_auroc": self.best_auroc, "config": self.config.to_dict()}
        contents = safetensors_bytes(
            {name: t.detach().cpu().contiguous() for name, t in tensors.items()}, {"ama_checkpoint": json.dumps(header)}
        )
        write_atomically(path, contents)

    @classmethod
    def load(cls, path: Path, device: torch.device | None = None) -> "TrainingState":
        """Read what `save` wrote. Raises BundleError on a missing, damaged or foreign file."""
        try:
            with safe_open(path, "pt") as file:
                header = json.loads(file.metadata()["ama_checkpoint"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            state = cls(Config.from_dict(header["config"]), device)
            state.networks.load_state_dict(_under(tensors, "networks."))
            state.best = _under(tensors, "best.")
            state.average = {name: t.to(state.device) for name, t in _under(tensors, "average.").items()}
            state.rng.set_state(tensors["rng"])
            for key, optimiser in state.optimisers.items():
                slots: dict[int, dict[str, Tensor]] = {}
                for name, tensor in _under(tensors, f"optimiser.{key}.").items():
                    index, slot = name.split(".")
                    # In the weights' layout: fused Adam on the CPU pairs elements as they lie in memory, whatever the strides.
                    dense = tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
                    slots.setdefault(int(index), {})[slot] = dense
                optimiser.load_state_dict({"state": slots, "param_groups": optimiser.state_dict()["param_groups"]})
            state.step, state.seconds, state.best_auroc = header["step"], header["seconds"], header["best_auroc"]
        except (OSError, SafetensorError, AMAError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"The checkpoint {path} cannot be read ({error}). Train again without --resume.") from error
        return state


def train(
    state: TrainingState,
    images: np.ndarray,
    *,
    anomalies: np.ndarray | None = None,
    validation: Validation | None = None,
    checkpoint: Path | None = None,
    log_every: int = 25,
    sample_every: int | None = None,
    validate_every: int | None = None,
    checkpoint_seconds: float = 60.0,
) -> Iterator[Event]:
    """Train `state` on normal images until its last step.

    Args:
        images: normal training images, uint8 (N, S, S, c) as `config` says.
        anomalies: a few real anomalies; they take the place of the synthetic negatives (the semi-supervised case).
        validation: where given, R's and A's AUROC are measured `validate_every` steps (default: 20 times a run), and the
            weights with the best A are kept in `state.best`.
        checkpoint: where given, the state is saved there every `checkpoint_seconds` and at the end.
        log_every: steps between `progress` events, of which there are a few more in the beginning (`EARLY_STEPS`); the only
            place where the loop waits for the device.
        sample_every: steps between `samples` events; default 40 times a run.

    Raises:
        DataError: the images do not fit the configuration or do not fill one batch.
        TrainingDiverged: a loss is NaN or beyond `CRITIC_LIMIT`; the last checkpoint remains.
    """
    config, networks, device, rng = state.config, state.networks, state.device, state.rng
    E, G, D = networks.E, networks.G, networks.D
    _check_images(config, images, "training images")
    steps_per_epoch = len(images) // config.batch_size
    if steps_per_epoch == 0:
        raise DataError(f"{len(images)} training images do not fill one batch of {config.batch_size}: lower batch_size.")
    total = total_steps(config, len(images))
    sample_every = sample_every or max(1, total // 40)
    validate_every = validate_every or max(1, total // 20)

    data = _on_device(images, device)
    samples = images[:N_SAMPLES]
    real_negatives = None
    if anomalies is not None:
        _check_images(config, anomalies, "anomalies")
        real_negatives = _on_device(anomalies, device)
    has_negatives = config.uses_negatives if real_negatives is None else config.n_negatives > 0
    # The released code has real anomalies in its batches from the first step on.
    warmup = 0.0 if real_negatives is not None and config.mode == "released" else config.warmup
    n_penalty = max(1, round(config.gp_fraction * config.batch_size))
    autocast = _autocast(config, device)
    validation_train = images[draw(len(images), VALIDATION_TRAIN, config.seed)]  # for mu and sigma of A

    order_epoch, order = -1, None
    reported_step, reported_seconds, last_save = state.step, state.seconds, time.perf_counter()

    while state.step < total:
        began = time.perf_counter()
        networks.train()
        for optimiser in state.optimisers.values():
            optimiser.param_groups[0]["lr"] = learning_rate(config, state.step, total)

        # A batch of normals; after the warm-up a fraction of it gives way to negatives.
        epoch, place = divmod(state.step, steps_per_epoch)
        if epoch != order_epoch:
            order_epoch, order = epoch, _epoch_order(len(images), config.seed, epoch, device)
        n_neg = config.n_negatives if has_negatives and state.step >= warmup * total else 0
        n = config.batch_size - n_neg
        start = place * config.batch_size
        x_normal = inference.scale(data[order[start : start + n]])

        with autocast():
            x = x_normal
            if n_neg:
                if real_negatives is not None:
                    picks = torch.randint(len(real_negatives), (n_neg,), generator=rng, device=device)
                    x_neg = inference.scale(real_negatives[picks])
                else:
                    x_neg = _synthetic_negatives(networks, x_normal, n_neg, rng)
                x = torch.cat([x_normal, x_neg])
            y = losses.signs(n, n_neg, config.lambda_neg, device)

            # E and G stand still during the critic's steps: reconstruct once, with the graph that their own step needs.
            z = E(x)
            x_hat = G(z)
            # Codes of the normals; the released code takes them from a pass of their own, with their own batch statistics.
            z_normal = E(x_normal) if n_neg and config.mode == "released" else z[:n]
            x_parents = x_inter = None
            if config.lambda_inter > 0:
                n_inter = max(1, round(config.inter_fraction * n))
                parents = latent.simplex_parents(n, config.k, rng)[:n_inter]
                weights = latent.simplex_weights(n_inter, config.k, rng, mode=config.mode)
                x_inter = G(latent.simplex_interpolation(z_normal, parents, weights))
                if config.reconstruction == "mirrored":  # pair the decode with every parent; alone it needs no partner
                    x_parents = x_normal[parents].flatten(0, 1)
                    x_inter = x_inter.repeat_interleave(config.k, dim=0)

            # Critic: n_critic steps on constants, all pairs in one call (no batch norm in D, so this is exact).
            x_fixed = x_hat.detach()
            pairs = [networks.pair(x, x), networks.pair(x, x_fixed)]
            if x_inter is not None:
                pairs.append(networks.pair(x_parents, x_inter.detach()))
            pairs = torch.cat([p.float() for p in pairs])
            D.requires_grad_(True)
            for _ in range(config.n_critic):
                values = D(pairs)
                d_real, d_recon, d_inter = values[: len(x)], values[len(x) : 2 * len(x)], values[2 * len(x) :]
                wasserstein = losses.critic_wasserstein(d_real, d_recon, y)
                loss_d = wasserstein
                if x_inter is not None:
                    loss_d = loss_d + config.lambda_inter * losses.critic_simplex(d_real[:n], d_inter)
                if config.lambda_gp > 0:
                    some = torch.randperm(len(x), generator=rng, device=device)[:n_penalty]
                    a = torch.rand(len(some), generator=rng, device=device)
                    penalty = losses.gradient_penalty(
                        D, networks.pair, x[some], x_fixed[some].float(), a, per_pixel=config.mode == "released"
                    )
                    loss_d = loss_d + config.lambda_gp * penalty
                _update(loss_d, state.optimisers["D"])

            # Autoencoder: one step through the same reconstructions.
            D.requires_grad_(False)
            pairs = [networks.pair(x, x_hat)]
            simplex_has_gradient = x_inter is not None and config.mode == "paper"  # the released code detaches the decode
            if simplex_has_gradient:
                pairs.append(networks.pair(x_parents, x_inter))
            values = D(torch.cat([p.float() for p in pairs]))
            loss_eg = losses.autoencoder_wasserstein(values[: len(x)], y)
            if simplex_has_gradient:
                loss_eg = loss_eg + config.lambda_inter * losses.autoencoder_simplex(values[len(x) :])
            regulariser = losses.latent_regulariser(z_normal, config.reg, config.radius)
            loss_eg = loss_eg + config.lambda_reg * regulariser
            _update(loss_eg, state.optimisers["E"], state.optimisers["G"])
        state.step += 1
        state.update_average()

        # Report.
        last = state.step == total
        events = []
        if validation is not None and (state.step % validate_every == 0 or last):
            _stop_if_diverged({"loss_critic": float(loss_d.detach()), "loss_autoencoder": float(loss_eg.detach())}, state.step)
            weights = state.weights()
            aurocs = _validate(build_networks(config, weights, device), validation_train, validation)
            if aurocs["auroc_A"] > state.best_auroc:
                state.best_auroc, state.best = aurocs["auroc_A"], weights
            events.append(Event("validation", state.step, total, aurocs))
        progress = state.step % log_every == 0 or state.step in EARLY_STEPS or last
        if progress:
            values = {
                "loss_critic": loss_d,
                "loss_autoencoder": loss_eg,
                "wasserstein": -wasserstein,
                "regulariser": regulariser,
                "z_ratio": latent.shell_ratio(z_normal.detach()).mean(),
            }
            if config.lambda_gp > 0:
                values["penalty"] = penalty
            values = {name: float(value.detach()) for name, value in values.items()}
            _stop_if_diverged(values, state.step)
            values |= {"epoch": epoch + 1, "lr": state.optimisers["E"].param_groups[0]["lr"]}
            events.append(Event("progress", state.step, total, values))
        if state.step % sample_every == 0 or last:
            pictures = np.stack([samples, inference.reconstruct(networks, samples)])
            events.append(Event("samples", state.step, total, images=pictures))
        state.seconds += time.perf_counter() - began
        if progress:
            rate = (state.step - reported_step) / max(state.seconds - reported_seconds, 1e-9)
            reported_step, reported_seconds = state.step, state.seconds
            values |= {
                "images_per_s": rate * config.batch_size,
                "seconds": state.seconds,
                "eta_s": (total - state.step) / rate,
            }
        save = checkpoint is not None and (last or time.perf_counter() - last_save > checkpoint_seconds)
        for event in events:
            yield replace(event, closes_step=event is events[-1] and not save)
        if save:  # after the events, which a resumed run would not repeat
            _stop_if_diverged({"loss_critic": float(loss_d.detach()), "loss_autoencoder": float(loss_eg.detach())}, state.step)
            state.save(checkpoint)
            last_save = time.perf_counter()
            yield Event("checkpoint", state.step, total, closes_step=True)
    yield Event("done", state.step, total, {"seconds": state.seconds})


def total_steps(config: Config, n_images: int) -> int:
    """E/G steps of a whole run on `n_images` training images."""
    steps = config.epochs * (n_images // config.batch_size)
    return min(steps, config.max_steps) if config.max_steps else steps


def learning_rate(config: Config, step: int, total: int) -> float:
    """`config.lr_schedule` at `step`: a function of the step alone, so that resuming needs no scheduler state."""
    if config.lr_schedule == "steps":
        return config.lr * 0.1 ** sum(step >= milestone * total for milestone in LR_MILESTONES)
    if config.lr_schedule == "linear":
        return config.lr * min(1.0, (1 - step / total) / config.lr_fall)
    return config.lr


def fused(device: torch.device) -> bool:
    """Whether Adam may update all weights in one kernel there."""
    return device.type in ("cuda", "cpu")


def precision(config: Config, device: torch.device) -> str:
    """What `precision="auto"` means on this device: `bf16` where the hardware multiplies it natively, else `fp32`."""
    if config.precision != "auto":
        return config.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else "fp32"


def _autocast(config: Config, device: torch.device):
    if precision(config, device) == "fp32":
        return nullcontext
    return lambda: torch.autocast(device.type, torch.bfloat16)


def _synthetic_negatives(networks: Networks, x_normal: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """x_neg = G(z_neg): decodes of atypical codes, in eval mode and without gradient (Eq. 4 in the code's reading)."""
    config = networks.config
    networks.E.eval()
    networks.G.eval()
    with torch.no_grad():
        if config.mode == "released":
            z_neg = latent.atypical_codes_released(networks.E(x_normal[:n]).float(), config.atypical, rng)
        else:
            z_neg = latent.atypical_codes(n, config.nz, config.atypical, config.delta, rng)
        x_neg = networks.G(z_neg).float()
    networks.E.train()
    networks.G.train()
    return x_neg


def _update(loss: Tensor, *optimisers: torch.optim.Optimizer) -> None:
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    loss.backward()
    for optimiser in optimisers:
        optimiser.step()


def _epoch_order(n: int, seed: int, epoch: int, device: torch.device) -> Tensor:
    """A permutation that depends on seed and epoch alone, so that a resumed epoch goes on where it stopped."""
    rng = np.random.default_rng([seed, epoch])
    return torch.from_numpy(rng.permutation(n)).to(device)


def _validate(networks: Networks, train_images: np.ndarray, validation: Validation) -> dict[str, float]:
    """AUROC of R and A on the validation images; mu and sigma from training images, uint8 (N, S, S, c)."""
    r_train, r_normal, r_anomalous = (
        r_score(inference.statistics(networks, part).difference)
        for part in (train_images, validation.normals, validation.anomalies)
    )
    truth = np.repeat([0, 1], [len(r_normal), len(r_anomalous)])
    r = np.concatenate([r_normal, r_anomalous])
    log_a = log_a_score(r, r_train.mean(), r_train.std())
    return {"auroc_R": float(roc_auc_score(truth, r)), "auroc_A": float(roc_auc_score(truth, -log_a))}


def _stop_if_diverged(values: dict[str, float], step: int) -> None:
    for name, value in values.items():
        if not math.isfinite(value) or abs(value) > CRITIC_LIMIT:
            raise TrainingDiverged(
                f"Training diverged at step {step}: {name} = {value:.3g}. The last good checkpoint is kept. "
                "Lower lr, or raise lambda_gp."
            )


def _check_images(config: Config, images: np.ndarray, what: str) -> None:
    expected = (config.image_size, config.image_size, config.channels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected:
        raise DataError(
            f"The {what} must be uint8 of shape (N, {', '.join(map(str, expected))}), but are {images.dtype} of shape "
            f"{images.shape}: prepare them with ama_core.data.prepare."
        )


def _on_device(images: np.ndarray, device: torch.device) -> Tensor:
    """The whole set as uint8 (N, C, H, W): a quarter of the bytes of floats, and no loader in the loop."""
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2)


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
