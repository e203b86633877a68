"""Stored results of the paper's tables: one file a finished training, from which the tables are made.

results/<job>.json    its settings and every figure measured of it
results/scores/<job>  a sample of the scores behind these figures, as bundles store them
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ama_core.errors import BundleError
from ama_core.paper.rows import RIVAL_TABLES, ROWS, TABLES, name_of, title_of
from ama_core.storage.files import ROOT, read_json

SCHEMA = 1
RESULTS = ROOT / "results"


@dataclass(frozen=True)
class Measured:
    """Figures against one OOD set.

    Attributes:
        scores: score -> {"auroc", "auprc", "fpr95"}; R, A, M, T, C of the last step, the names of SIMPLE, or a rival's scores.
        notes: what a reader of these figures should know of the images, in sentences.
        validated: the same of the weights with the best A on 50 validation anomalies of this set; None where not measured.
    """

    ood: str
    n_normal: int
    n_ood: int
    scores: dict[str, dict[str, float]]
    notes: tuple[str, ...] = ()
    validated: dict[str, dict[str, float]] | None = None


@dataclass(frozen=True)
class Record:
    """One finished job, as stored in `results/`.

    Attributes:
        status: `full`: the paper's preset and sizes and at least 100 epochs; `smoke`: fewer than SMOKE_STEPS steps; else
            `reduced`. Of a rival, `full` is its preset `paper` unchanged, where that is the published method
            (`published.DEPARTING` are not).
        condition: see `Job.condition`.
        width: channels of encoder, generator and critic.
        epochs: passes over the n_images training images.
        seconds: of training alone.
        few_anomalies: real anomalies it was trained with: {"source", "n"}.
        validation_ood: the set behind `Measured.validated`.
        codec: behind the lossless length of the row of simple methods.
        decides: of a rival, whose row is its detector's name, the score that decides; `mode` and `width` are then empty.
    """

    table: str
    row: str
    normal: str
    label: int | None
    seed: int
    preset: str
    settings: dict[str, str]
    condition: str
    status: str
    config: dict[str, Any]
    mode: str
    width: dict[str, int]
    steps: int
    epochs: float
    n_images: int
    precision: str
    hardware: str
    seconds: float
    versions: dict[str, str]
    commit: str | None
    command: str
    draw_seed: int
    results: tuple[Measured, ...]
    few_anomalies: dict[str, Any] | None = None
    validation_ood: str | None = None
    codec: str | None = None
    decides: str | None = None
    schema: int = SCHEMA

    @property
    def name(self) -> str:
        """Of its job, and so of its files."""
        title = title_of(self.row, self.normal, self.label, (self.few_anomalies or {}).get("source"))
        return name_of(self.table, title, self.preset, self.condition, self.seed)

    def against(self, ood: str) -> Measured | None:
        return next((found for found in self.results if found.ood == ood), None)


def read_results(folder: Path | str = RESULTS) -> list[Record]:
    """Every stored result, in order of table, row, set, class, settings and seed. Raises BundleError with the damaged file."""
    found = [read_record(file) for file in Path(folder).glob("*.json")]
    rows = [*ROWS, *sorted({record.row for record in found} - set(ROWS))]
    return sorted(
        found,
        key=lambda r: (
            list(TABLES).index(r.table),
            rows.index(r.row),
            r.normal,
            r.label or 0,
            r.preset,
            r.condition,
            str(r.few_anomalies),
            r.seed,
        ),
    )


def read_record(file: Path) -> Record:
    """One stored result. Raises BundleError where it is damaged or of another schema."""
    try:
        values = read_json(file)
        if values["schema"] != SCHEMA:
            raise BundleError(f"{file} has schema {values['schema']}, this software reads {SCHEMA}: measure it again.")
        results = tuple(Measured(**{**row, "notes": tuple(row["notes"])}) for row in values.pop("results"))
        record = Record(**values, results=results)
        if record.table not in TABLES or record.row not in ROWS and record.table not in RIVAL_TABLES:
            raise BundleError(f"{file} belongs to no row of the tables: {record.table}, {record.row}.")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{file} is not a stored result ({type(error).__name__}: {error}). Remove or restore it.") from error
    return record


def scores_folder(record: Record, results: Path = RESULTS) -> Path:
    """Where a sample of the scores behind a record is stored, if it is (see `bundle.read_scores`): sets by name, all `test`."""
    return results / "scores" / record.name
