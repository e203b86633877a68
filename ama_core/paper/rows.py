"""The rows and tables that are trained here: what is declared before anything is measured, so that nothing is chosen by its
result.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ama_core.detectors.ama.config import Config
from ama_core.detectors.autoencoder import AutoencoderSettings
from ama_core.detectors.lossless_length import LosslessLengthSettings
from ama_core.detectors.pixel_mean import PixelMeanSettings
from ama_core.detectors.registry import DETECTORS
from ama_core.evaluation.protocol import REST
from ama_core.paper import published as paper
from ama_core.settings import Settings
from ama_core.storage.bundle import FIRST

FEW = 50  # real anomalies of the semi-supervised row; the paper says "a few"
SMOKE_STEPS = 200  # fewer show that a command runs, not what it learns
STATUSES = SMOKE, REDUCED, FULL = "smoke", "reduced", "full"  # of a training, by its size (see `Record`)

RELEASED, SIMPLE_ROW = "AMA, mode released", "simple"
INWARD, OUTWARD, SIPPLE = "AMA, inward", "AMA, outward", "AMA, Sipple"
SEMI = f"AMA, {FEW} real anomalies"
# The trivial baselines of the row SIMPLE_ROW: their names in stored results -> in the registry. They know nothing of AMA: where
# one of them does as well, a figure of AMA's proves little.
SIMPLE = {"pixel mean": "pixel_mean", "lossless length": "lossless_length", "L2 autoencoder": "autoencoder"}


@dataclass(frozen=True)
class Row:
    """A row of a table: the name it has in files, and what it changes in the settings of the AMA row."""

    slug: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


# The row w/o A-score needs no training: it is the AMA row, ranked by R.
ROWS = {
    paper.AMA: Row("ama"),
    RELEASED: Row("released", {"mode": "released"}),
    paper.WITHOUT_MIRRORED: Row("without-mirrored", {"reconstruction": "plain"}),
    paper.WITHOUT_SIMPLEX: Row("without-simplex", {"lambda_inter": 0.0}),
    paper.WITHOUT_ATYPICAL: Row("without-atypical", {"atypical": "none"}),
    INWARD: Row("inward", {"atypical": "inward"}),
    OUTWARD: Row("outward", {"atypical": "outward"}),
    SIPPLE: Row("sipple", {"atypical": "sipple"}),
    SEMI: Row("few-anomalies"),
    SIMPLE_ROW: Row("simple"),
}
TABLES: dict[str, tuple[str, ...]] = {
    "table1": (paper.AMA, SIMPLE_ROW, RELEASED),
    "table2": (paper.AMA, SIMPLE_ROW),
    "ablations": (
        paper.AMA,
        paper.WITHOUT_MIRRORED,
        paper.WITHOUT_SIMPLEX,
        paper.WITHOUT_ATYPICAL,
        INWARD,
        OUTWARD,
        SIPPLE,
        SEMI,
    ),
}
# Trainings of every other detector on the sets of Table 1 and on the classes of Table 2; a row is called as its detector.
RIVALS, RIVALS_ONE_CLASS = RIVAL_TABLES = ("rivals", "rivals-one-class")
TABLES |= {table: tuple(name for name in DETECTORS if name != FIRST) for table in RIVAL_TABLES}
BESIDE = {"cifar10": ("gtsrb", "house_numbers")}  # sets of ours beside the paper's, under their own names


def simple_settings(config: Config) -> dict[str, Settings]:
    """Settings of the trivial baselines that see the images of an AMA training and hold the same ones out, by detector."""
    common = {field.name: getattr(config, field.name) for field in dataclasses.fields(Settings)}
    return {
        "pixel_mean": PixelMeanSettings(**common),
        "lossless_length": LosslessLengthSettings(**common),
        "autoencoder": AutoencoderSettings.like(config),
    }


def tasks(table: str) -> list[tuple[str, int | None, tuple[str, ...]]]:
    """(normal set, label of a one-class task, OOD sets as they are measured here) of a table, in the paper's order."""
    if table in ("table2", RIVALS_ONE_CLASS):
        return [(normal, label, (REST,)) for normal in paper.TABLE_2_SETS for label in range(10)]
    found: dict[str, tuple[str, ...]] = {}
    for normal, ood in paper.TASKS:
        found[normal] = (*found.get(normal, ()), paper.STAND_INS.get(ood, ood))
    return [(normal, None, ood + BESIDE.get(normal, ())) for normal, ood in found.items()]


def title_of(row: str, normal: str, label: int | None, few_from: str | None) -> str:
    slug = ROWS[row].slug if row in ROWS else row  # of a rival its detector's name
    return "-".join(str(part) for part in (slug, normal, label, few_from) if part is not None)


def name_of(table: str, title: str, preset: str, condition: str, seed: int) -> str:
    return f"{table}-{title}-{preset}-{condition}-s{seed}"


def status_of(steps: int, *, whole: bool, trained: bool = True) -> str:
    """One of STATUSES.

    Args:
        whole: whether it is of the published size and length. trained: whether it takes steps at all.
    """
    if trained and steps < SMOKE_STEPS:
        return SMOKE
    return FULL if whole else REDUCED
