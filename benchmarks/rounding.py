"""What bf16 leaves of the differences that train AMA's critic: `AMA_DATA_DIR=… python -m benchmarks.rounding [MODEL …]`.

For bundled models (or those named: names, folders of finished or of unfinished trainings), over N normal training images: the
level of D(x, x), the difference D(x, x) - D(x, G(E(x))), and how far computing the critic in bf16 moves that difference, each
as mean and standard deviation over images. The Wasserstein loss does not fix the level; where it, or the features that it is
made of, have drifted far from zero, rounding moves the differences by more than they are (see `Config.lambda_drift`).
"""

import argparse
import json
from pathlib import Path

import torch

from ama_core import AMADetector, AMAError
from ama_core.data import load_any, prepare
from ama_core.detectors.ama.inference import critic_rounding
from ama_core.detectors.ama.networks import Networks
from ama_core.detectors.ama.trainer import AMATrainer
from ama_core.runs.folder import Run
from ama_core.storage.bundle import FIRST, find_bundle, list_bundles, read_info

N = 512
CPU = torch.device("cpu")


def networks_of(model: str) -> tuple[Networks, int, str]:
    """The networks of a model or of a training that is not finished, its steps, and its normal images. Raises AMAError."""
    run = Run(Path(model))
    if run.checkpoint.exists():
        state = AMATrainer.load(run.checkpoint, CPU)
        return state.networks.eval(), state.step, run.spec().dataset
    detector = AMADetector.load(find_bundle(model), device="cpu")
    return detector.networks_.eval(), detector.info_["training"]["steps"], detector.normal.source


def row(model: str) -> dict:
    """Figures of one model. Raises AMAError."""
    networks, steps, source = networks_of(model)
    spec = networks.config.input
    images = load_any(source, "train", **vars(spec)).images[:N]
    found = critic_rounding(networks, prepare(images, size=spec.size, channels=spec.channels, fit=spec.fit)[0])
    figures = zip(("level", "difference", "rounding"), found)
    return {"model": model, "steps": steps} | {name: (v.mean().item(), v.std().item()) for name, v in figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    ama = [name for name, folder in list_bundles().items() if read_info(folder).get("detector", FIRST) == FIRST]
    try:
        found = [row(model) for model in arguments.models or ama]
    except AMAError as error:
        parser.error(str(error))
    if arguments.json:
        print(json.dumps(found))
        return
    print(f"{'model':40} {'steps':>7} {'level':>12} {'difference (sd)':>18} {'moved by bf16 (sd)':>20}")
    for r in found:
        (level, _), (mean, sd), (moved, noise) = r["level"], r["difference"], r["rounding"]
        pairs = f"{f'{mean:.2f} ({sd:.2f})':>18} {f'{moved:.2f} ({noise:.2f})':>20}"
        print(f"{r['model'][-40:]:40} {r['steps']:>7,} {level:>12,.1f} {pairs}")


if __name__ == "__main__":
    main()
