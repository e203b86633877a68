"""A report on checked images as one HTML file that needs nothing else: no script, no network, pictures inside."""

import base64
import io
import time
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from ama_core._version import __version__
from ama_core.data import label_of
from ama_core.detectors.base import AnomalyDetector, NormalData
from ama_core.scoring.check import Checked, drift_warning, reach_warning
from ama_core.storage.files import open_regular, shown

GENERATOR = '<meta name="generator" content="AMA Explorer">'
STYLE = """
:root { color-scheme: light dark; --line: #8886; --flag: #b3470066; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: middle; }
th, td.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
td:last-child { min-width: 16rem; }
tr.flagged { background: var(--flag); }
img { image-rendering: pixelated; width: 72px; height: 72px; object-fit: contain; display: block; }
.scroll { overflow-x: auto; }
"""


def html_report(detector: AnomalyDetector, model: str, checked: Checked, alpha: float) -> str:
    """Verdict, p-value, scores and picture of every image, the most anomalous first, with what the model is.

    Args:
        model: what to call it. alpha: the false-alarm rate, in (0, 1); `detector.by` decides.
    """
    by, normal = detector.by, detector.normal or NormalData("unknown")
    n = len(detector.calibration_scores_)
    rows, summary = [], "No image could be scored."
    if len(checked):
        scores = checked.examined.scores
        p = scores[f"p_{by}"]
        flagged = p <= alpha
        summary = (
            f"<strong>{int(flagged.sum()):,} of {len(checked):,} images are flagged</strong> by {by} at a false-alarm rate of "
            f"{alpha:g}; of as many normal images, about {alpha * len(checked):.2g} would be."
        )
        warnings = (reach_warning(detector, alpha), drift_warning(detector, scores))
        summary += "".join(f" <strong>{escape(warning)}</strong>" for warning in warnings if warning)
        for i in np.argsort(-detector.anomaly_scores(scores)[by], kind="stable"):
            verdict = "flagged" if flagged[i] else "not flagged"
            remarks = "; ".join((*checked.notes[i], *checked.concerns[i]))
            cells = [f'<td class="number">{scores[name][i]:.4g}</td>' for name in detector.score_names()]
            rows.append(
                f'<tr class="{"flagged" if flagged[i] else "passed"}"><td>{_picture(checked.given[i], checked.names[i])}</td>'
                f"<td>{_text(checked.names[i])}</td><td>{verdict}</td>"
                f'<td class="number">{p[i]:.4f}</td>{"".join(cells)}<td>{escape(remarks)}</td></tr>'
            )
    refused = "".join(f"<li>{_text(name)}: {_text(why)}</li>" for name, why in checked.refused)
    facts = {
        "Model": model, "Normal images": f"{label_of(normal.name, normal.label)} ({normal.n:,})",
        "Data fingerprint": normal.fingerprint or "unknown", "Calibration": f"{n:,} held-out normal images",
        "Smallest possible p-value": f"{1 / (n + 1):.2g}", "Score that decides": by, "False-alarm rate": f"{alpha:g}",
        "Made": f"{time.strftime('%Y-%m-%d %H:%M')} with AMA Explorer {__version__}",
    }  # fmt: skip
    told = "".join(f"<tr><th>{escape(name)}</th><td>{_text(str(value))}</td></tr>" for name, value in facts.items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
{GENERATOR}
<title>Checked images</title><style>{STYLE}</style></head><body>
<h1>Checked images</h1>
<p>{summary}</p>
{"<p>Not all images were read: the limit was reached.</p>" if checked.more else ""}
<div class="scroll"><table><thead><tr><th>Image</th><th>Name</th><th>Verdict</th><th>p-value by {by}</th>
{"".join(f"<th>{name}</th>" for name in detector.score_names())}<th>Done to it</th></tr></thead><tbody>
{"".join(rows)}
</tbody></table></div>
{f"<h2>Could not be scored</h2><ul>{refused}</ul>" if refused else ""}
<h2>What decided</h2>
<p>The p-value of an image is the fraction of held-out normal images that look at least as unusual to the model; an image is
flagged where it is at most the false-alarm rate. The rate holds for images taken like the normal ones.</p>
<table>{told}</table>
</body></html>
"""


def is_report(file: Path) -> bool:
    """Whether `html_report` made this file."""
    try:
        with open_regular(file) as opened:
            return GENERATOR.encode() in opened.read(2000)
    except OSError:
        return False


def _text(words: str) -> str:
    """Words as HTML that can be written and means nothing."""
    return escape(shown(words))


def _picture(image: np.ndarray, name: str) -> str:
    shown, file = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image), io.BytesIO()
    shown.thumbnail((96, 96))
    shown.save(file, "PNG")
    return f'<img alt="{_text(name)}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'
