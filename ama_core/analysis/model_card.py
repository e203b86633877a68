"""The model card of a bundle: what it is, how it was made, how well it does, what it must not be used for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ama_core.data import label_of
from ama_core.data.splits import count_anomalies
from ama_core.detectors.base import AnomalyDetector
from ama_core.errors import BundleError
from ama_core.formatting import markdown_table
from ama_core.storage.bundle import read_results, read_scores
from ama_core.storage.files import MAX_JSON_BYTES, read_regular


def model_card(folder: Path, detector: AnomalyDetector) -> str:
    """Markdown for the bundle in `folder`, from its own files."""
    settings = detector.settings
    tensors, _ = detector.state()
    by_network: dict[str, int] = {}
    for name, tensor in tensors.items():
        part = name.partition(".")[0]
        by_network[part] = by_network.get(part, 0) + (0 if "running_" in name or "num_batches" in name else tensor.numel())
    sizes = ", ".join(f"{name} {n:,}" for name, n in by_network.items()) or "none"
    names = detector.score_names()
    lines = [
        f"# {folder.name}",
        "",
        f"{detector.title} ({detector.reference}){detector.card_remark()}, trained on {_trained_on(detector)} at "
        f"{settings.image_size}x{settings.image_size}x{settings.channels}.",
        "",
        f"- Parameters: {sizes}.",
        *_training(detector),
        *_calibrated_on(detector),
        f"- Settings: {', '.join(f'{name} {value}' for name, value in settings.to_dict().items())}.",
        "",
        "## Measured",
        "",
    ]
    results = read_results(folder, names)
    if results is None or not results["results"]:
        lines.append("Not measured yet: `python -m ama_core measure` fills this.")
    else:
        lines += [
            f"AUROC of telling the normal test images from each set (anomalies: {_anomalies(results)}); last training step "
            "unless said otherwise; one training seed.",
            "",
            *markdown_table(["against", "n normal", "n OOD", *names], [_measured(row, names) for row in results["results"]]),
        ]
        lines += [f"\n{note}" for stored in read_scores(folder) for note in stored.notes]
    lines += [
        "",
        "## Limits",
        "",
        "The p-values hold for images that come from the same source as the normal training data. A model of this size, "
        "trained for this long, shows how the method behaves; check its false-alarm rate on your own normal images before "
        "anything depends on it.",
        "",
    ]
    return "\n".join(lines)


def _trained_on(detector: AnomalyDetector) -> str:
    """The normal images; a bundle need not say which."""
    normal, training = detector.normal, detector.info_.get("training")
    if normal is None:
        return "images that its bundle does not name"
    n = f"{normal.n:,} images" + (f", {training['n_train']:,} after the calibration hold-out" if training else "")
    return f"**{label_of(normal.name, normal.label)}** as normal data ({n})"


def _training(detector: AnomalyDetector) -> list[str]:
    normal, training = detector.normal, detector.info_.get("training")
    if not training:
        return ["- Training: not recorded."]
    source = f"source commit: `{training['commit']}`"
    return [
        f"- Training: {training['steps']:,} steps in {training['seconds'] / 60:.1f} minutes on {training['device']}, "
        f"{training['precision']}; weights of the {training['select']} step; torch {training['versions']['torch']}.",
        f"- Command: `{training['command']}`" if training["command"] else "- Command: not recorded.",
        f"- Training data fingerprint: `{normal.fingerprint}`; {source}." if normal else f"- {source.capitalize()}.",
    ]


def _calibrated_on(detector: AnomalyDetector) -> list[str]:
    """Whether p-values come from other images than the training's."""
    found = detector.info_.get("calibrated_on")
    return [f"- p-values: from {found['n']:,} other normal images, {found['name']}."] if found else []


def _anomalies(results: Mapping[str, Any]) -> str:
    """Which images of each set were tested: by their counts, since results do not say whether `evaluate` drew them."""
    counts = [(row["n_ood"], count_anomalies(row["n_normal"])) for row in results["results"]]
    if any(tested > drawn for tested, drawn in counts):
        return "all test images of the set"
    fewer = ", or all where there are fewer" if any(tested < drawn for tested, drawn in counts) else ""
    return f"20 % of the normals' number{fewer}, drawn with seed {results['seed']}"


def _measured(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """A row of the table of AUROCs."""
    aurocs = [f"{row['scores'][name]['auroc']:.3f}" for name in names]
    return [label_of(row["ood"]), f"{row['n_normal']:,}", f"{row['n_ood']:,}", *aurocs]


def read_card(folder: Path | str) -> str | None:
    """The card of a bundle, None where it has none. Raises BundleError where it cannot be read."""
    try:
        return read_regular(Path(folder) / "README.md", MAX_JSON_BYTES).decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{Path(folder) / 'README.md'} cannot be read: {error}.") from error
