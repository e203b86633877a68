"""A report on checked images as one HTML file that needs nothing else: no script, no network, pictures inside."""

import base64
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from ama_core._version import __version__
from ama_core.data import label_of
from ama_core.data.pictures import jpeg, png, thumbnail
from ama_core.detectors.base import AnomalyDetector, NormalData
from ama_core.detectors.conformal import decidable, smallest_alpha
from ama_core.formatting import significant
from ama_core.scoring.check import Checked, drift_warning, reach_warning
from ama_core.storage.files import open_regular, shown

GENERATOR = '<meta name="generator" content="AMA Explorer">'
OUTLINED = 50  # images, the most anomalous, that are shown with their outlines: the file stays one that can be sent
LARGEST = 1600  # pixels of their longer side, for the same reason
TEMPLATE = Path(__file__).with_name("report.html")


def html_report(
    detector: AnomalyDetector,
    model: str,
    checked: Checked,
    alpha: float,
    outlined: Mapping[int, np.ndarray] | None = None,
    where: str = "",
) -> str:
    """Verdict, p-value, scores and picture of every image, the most anomalous first, with what the model is.

    Args:
        model: what to call it. alpha: the false-alarm rate, in (0, 1); `detector.by` decides.
        outlined: photographs with their marked places outlined, uint8 (H, W, 3), by their position in `checked` (see
            `to_outline`). where: what the outlines come from, or why there are none, as a sentence.
    """
    by, normal = detector.by, detector.normal or NormalData("unknown")
    n = len(detector.calibration_scores_)
    facts = {
        "Model": model,
        "Normal images": f"{label_of(normal.name, normal.label)} ({normal.n:,})",
        "Data fingerprint": normal.fingerprint or "unknown",
        "Calibration": f"{n:,} held-out normal images",
        "Smallest possible p-value": f"{smallest_alpha(n):.2g}",
        "Score that decides": by,
        "False-alarm rate": f"{alpha:g}",
        "Made": f"{time.strftime('%Y-%m-%d %H:%M')} with AMA Explorer {__version__}",
    }
    rows = _rows(detector, checked, alpha, outlined or {}) if len(checked) else []
    warnings = (reach_warning(detector, alpha), drift_warning(detector, checked.examined.scores)) if rows else ()
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        generator=GENERATOR,
        by=by,
        alpha=alpha,
        decidable=decidable(n, alpha),
        rows=rows,
        expected=significant(alpha * len(rows), 2),
        n_flagged=sum(row["flagged"] for row in rows),
        warnings=[warning for warning in warnings if warning],
        more=checked.more,
        where=shown(where),
        score_names=detector.score_names(),
        refused=[(shown(name), shown(why)) for name, why in checked.refused],
        facts={name: shown(value) for name, value in facts.items()},
    )


def to_outline(detector: AnomalyDetector, checked: Checked, alpha: float) -> list[int]:
    """Positions in `checked` of the flagged images that a report shows with their outlines, the most anomalous first."""
    if not len(checked):
        return []
    scores, by = checked.examined.scores, detector.by
    order = np.argsort(-detector.anomaly_scores(scores)[by], kind="stable")
    return [int(i) for i in order if scores[f"p_{by}"][i] <= alpha][:OUTLINED]


def _rows(
    detector: AnomalyDetector, checked: Checked, alpha: float, outlined: Mapping[int, np.ndarray]
) -> list[dict[str, Any]]:
    """What the template shows of each image, the most anomalous first."""
    scores, by = checked.examined.scores, detector.by
    return [
        {
            "number": int(i),
            "name": shown(checked.names[i]),
            "png": _png(checked.given[i]),
            "outlined": _jpeg(outlined[i]) if i in outlined else "",
            "flagged": bool(scores[f"p_{by}"][i] <= alpha),
            "p": scores[f"p_{by}"][i],
            "scores": [scores[name][i] for name in detector.score_names()],
            "remarks": "; ".join((*checked.notes[i], *checked.concerns[i])),
        }
        for i in np.argsort(-detector.anomaly_scores(scores)[by], kind="stable")
    ]


def is_report(file: Path) -> bool:
    """Whether `html_report` made this file."""
    try:
        with open_regular(file) as opened:
            return GENERATOR.encode() in opened.read(2000)
    except OSError:
        return False


def _png(image: np.ndarray) -> str:
    """A small version of an image as PNG in base64."""
    return base64.b64encode(png(thumbnail(image, 96))).decode()


def _jpeg(image: np.ndarray) -> str:
    """A photograph, reduced where it is very large, as JPEG in base64."""
    return base64.b64encode(jpeg(thumbnail(image, LARGEST), 85)).decode()
