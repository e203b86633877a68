"""What each process of `test_distributed` does: some steps of every training in fp64, its weights and losses into one file.

torchrun --nproc-per-node N tests/training/several.py DIR
"""

import sys
from pathlib import Path

import numpy as np
import torch

from ama_core.detectors.registry import detector_class
from ama_core.errors import ConfigError
from ama_core.training import distributed
from ama_core.training.loop import train

STEPS = 3
SMALL = dict(channels=1, batch_size=13, max_steps=STEPS, precision="fp32", lr=3e-5)  # rows that 2 and 3 do not divide
AMA = SMALL | dict(nz=6, width_encoder=4, width_generator=4, width_critic=4, n_critic=2, warmup=0.0, negative_fraction=0.2)

CASES = {
    "mirrored": ("ama", AMA),
    "plain": ("ama", AMA | dict(reconstruction="plain", reg="hinge", lambda_drift=0.01)),
    "outward": ("ama", AMA | dict(atypical="outward")),
    "sipple": ("ama", AMA | dict(atypical="sipple")),
    "none": ("ama", AMA | dict(atypical="none")),
    "warmup": ("ama", AMA | dict(warmup=0.5)),
    "fractions": ("ama", AMA | dict(gp_fraction=0.4, inter_fraction=0.3)),
    "one row": ("ama", AMA | dict(gp_fraction=0.01, inter_fraction=0.01, negative_fraction=0.05)),
    "released inward": ("ama", AMA | dict(mode="released", atypical="inward")),
    "released sipple": ("ama", AMA | dict(mode="released", atypical="sipple", reconstruction="plain")),
    "anomalies": ("ama", AMA),
    "average": ("ama", AMA | dict(average=0.9)),
    "autoencoder": ("autoencoder", SMALL | dict(nz=6, width_encoder=4, width_generator=4)),
    "deepsvdd": ("deepsvdd", SMALL | dict(dim=6, width=4, pretraining=0.34)),
    "pixelcnn": ("pixelcnn", SMALL | dict(filters=4, blocks=1, mixtures=2)),
    "glow": ("glow", SMALL | dict(levels=2, flows=1, hidden=4)),
    "typicality": ("typicality", SMALL | dict(levels=2, flows=1, hidden=4)),
    "likelihood_ratio": ("likelihood_ratio", SMALL | dict(filters=4, blocks=1, mixtures=2)),
    "complexity": ("complexity", SMALL | dict(filters=4, blocks=1, mixtures=2)),
}
REFUSED = ("alad", "anogan", "skipganomaly", "fencegan", "waic")


def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 32, 32, 1), dtype=np.uint8)


def steps(name: str) -> dict[str, np.ndarray]:
    """State and losses after STEPS steps of a case."""
    detector, settings = CASES[name]
    found = detector_class(detector)
    trainer = found.trainer_class(found.Settings(**settings), torch.device("cpu"))
    trainer.networks.double()
    anomalies = images()[::-1][:5] if name == "anomalies" else None
    state = {}
    for event in train(trainer, images(), anomalies=anomalies, log_every=1, sample_every=10**6):
        if event.kind == "progress":
            measured = {key: v for key, v in event.values.items() if key not in ("images_per_s", "seconds", "eta_s")}
            state |= {f"step {event.step}/{key}": np.float64(value) for key, value in measured.items()}
        if event.kind == "progress" and event.step == 1:  # a flow's first batch sets weights that no gradient moves
            state |= {f"first/{key}": weight.detach().clone().numpy() for key, weight in trainer.networks.named_parameters()}
    state |= {f"networks/{key}": tensor.detach().numpy() for key, tensor in trainer.networks.state_dict().items()}
    state |= {f"average/{key}": tensor.detach().numpy() for key, tensor in trainer.average.items()}
    return state | {"rng": trainer.rng.get_state().numpy()}


def main(folder: Path) -> None:
    # Only here: pytest imports CASES from this file, and these would then hold for every test after it.
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # what is cast to fp32 in training is not to be rounded here
    with distributed.processes("cpu"):
        found = {f"{name}/{key}": value for name in CASES for key, value in steps(name).items()}
        refusals = []
        for name in REFUSED if distributed.size() > 1 else ():
            kind = detector_class(name)
            try:
                next(iter(train(kind.trainer_class(kind.Settings(**SMALL), torch.device("cpu")), images())))
            except ConfigError as error:
                refusals.append(f"{name}: {error}")
        np.savez(folder / f"{distributed.size()}-{distributed.rank()}.npz", refusals=np.array(refusals), **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
