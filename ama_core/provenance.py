"""Where a figure comes from: device, versions, commit and command, as bundles and results record them."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ama_core._version import __version__

VARIABLE = "AMA_COMMIT"  # of the environment: the commit of a copy that is no git checkout


def training_facts(trained: Mapping[str, Any], device: torch.device, n_train: int, select: str) -> dict[str, Any]:
    """How, where and with what a model was trained, for the bundle; `trained`: of `Trainer.facts`, or without gradient steps
    its `seconds` alone.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    steps, seconds = trained.get("steps", 0), trained["seconds"]
    return {
        "n_train": n_train,
        "steps": steps,
        "seconds": round(seconds, 1),
        "images_per_s": round(steps * trained.get("batch_size", 0) / max(seconds, 1e-9), 1),
        "select": select,
        "validated_auroc_A": trained.get("validated"),
        "precision": trained.get("precision", "fp32"),
        "device": f"{device.type}: {name}, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
        | {"ama_core": __version__},
        "commit": commit(),
        "command": shlex.join(["python", "-m", "ama_core", *sys.argv[1:]]) if _is_command() else None,
    }


def _is_command() -> bool:
    """Whether this process is `python -m ama_core`."""
    return Path(sys.argv[0]).parts[-2:] == ("ama_core", "__main__.py")


def commit() -> str | None:
    """The commit of this source tree, "-dirty" where the engine differs from it; of a tree that is no git checkout, such as one
    that is installed below somebody else's, what the environment names, or None.
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "--short", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return os.environ.get(VARIABLE) or None
