"""The model card of a bundle: what it is, how it was made, how well it does, what it must not be used for."""

from pathlib import Path
from typing import Any

from ama_core.bundle import read_results, read_scores
from ama_core.config import Config
from ama_core.errors import BundleError
from ama_core.networks import Networks, count_parameters
from ama_core.scores import SCORES

SETTINGS = (
    "mode", "reconstruction", "nz", "width_encoder", "width_generator", "width_critic", "lambda_gp", "lambda_inter", "k",
    "lambda_reg", "reg", "atypical", "delta", "lambda_neg", "negative_fraction", "batch_size", "n_critic", "lr", "seed",
)  # fmt: skip


def model_card(folder: Path, config: Config, info: dict[str, Any]) -> str:
    """Markdown for the bundle in `folder`, from its own files."""
    normal, training = info["normal"], info["training"]
    what = normal["name"] if normal.get("label") is None else f"class {normal['label']} of {normal['name']}"
    networks = Networks(config, spectral=False)
    sizes = ", ".join(f"{name} {count_parameters(getattr(networks, name)):,}" for name in "EGD")
    lines = [
        f"# {folder.name}",
        "",
        f"An Adversarial Mirrored AutoEncoder (Somepalli et al., UAI 2021; arXiv 2003.10713), {config.reconstruction} "
        f"Wasserstein loss, trained on **{what}** as normal data ({normal['n']:,} images, {training['n_train']:,} after "
        f"the calibration hold-out) at {config.image_size}x{config.image_size}x{config.channels}.",
        "",
        f"- Parameters: {sizes}.",
        f"- Training: {training['steps']:,} steps in {training['seconds'] / 60:.1f} minutes on {training['device']}, "
        f"{training['precision']}; weights of the {training['select']} step; torch {training['versions']['torch']}.",
        f"- Command: `{training['command']}`" if training["command"] else "- Command: not recorded.",
        f"- Training data fingerprint: `{normal['fingerprint']}`; source commit: `{training['commit']}`.",
        f"- Settings: {', '.join(f'{name} {getattr(config, name)}' for name in SETTINGS)}.",
        "",
        "## Measured",
        "",
    ]
    results = read_results(folder)
    if results is None or not results["results"]:
        lines.append("Not measured yet: `python -m ama_core measure` fills this.")
    else:
        lines += [
            "AUROC of telling the normal test images from each set (anomalies: 20 % of the normals' number, drawn with seed "
            f"{results['seed']}); last training step unless said otherwise; one training seed.",
            "",
            f"| against | n normal | n OOD | {' | '.join(SCORES)} |",
            "|---|---|---|" + "---|" * len(SCORES),
        ]
        for row in results["results"]:
            cells = " | ".join(f"{row['scores'][score]['auroc']:.3f}" for score in SCORES)
            lines.append(f"| {row['ood']} | {row['n_normal']:,} | {row['n_ood']:,} | {cells} |")
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


def read_card(folder: Path | str) -> str | None:
    """The card of a bundle, None where it has none. Raises BundleError where it cannot be read."""
    try:
        return (Path(folder) / "README.md").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{Path(folder) / 'README.md'} cannot be read: {error}.") from error
