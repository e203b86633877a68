"""The paper's published numbers, as data: AUROC of Table 1, of its ablations and of Table 2.

Somepalli, Wu, Balaji, Vinzamuri, Feizi: Unsupervised Anomaly Detection with Adversarial Mirrored AutoEncoders (UAI 2021,
arXiv 2003.10713v3). Every number is the authors' own and stands beside ours, never mixed with it. Data sets are called as in
the catalog; `imagenet` is the paper's "ImageNet (resized)", which is not in the catalog (see `STAND_INS`).
"""

from typing import Any

from ama_core.detectors.ama.config import Config

SOURCE = "Somepalli et al., UAI 2021, arXiv 2003.10713v3"

# Table 1: (normal, out of distribution), in the paper's order.
TASKS = (
    ("fashionmnist", "mnist"),
    ("fashionmnist", "omniglot"),
    ("cifar10", "svhn"),
    ("cifar10", "imagenet"),
    ("cifar10", "cifar100"),
    ("svhn", "cifar10"),
    ("svhn", "imagenet"),
    ("svhn", "cifar100"),
)

AMA = "AMA"
TYPICALITY = "Typicality (Glow)"
_TABLE_1: dict[str, tuple[float | None, ...]] = {
    "WAIC": (0.871, 0.832, 0.623, 0.626, None, None, None, None),
    "Likelihood ratio": (0.994, None, 0.931, None, None, None, None, None),
    TYPICALITY: (0.140, None, 0.420, 0.640, None, 0.980, 1.000, None),
    "DeepSVDD": (0.864, 0.999, 0.533, 0.387, 0.478, 0.795, 0.823, 0.819),
    "Input complexity S": (0.967, 1.000, 0.929, 0.589, 0.535, None, None, None),
    AMA: (0.987, 0.998, 0.958, 0.911, 0.551, 0.993, 1.000, 0.988),
}

# Ablations of Table 1. The last one changes no network: it ranks by R where AMA ranks by A.
WITHOUT_MIRRORED, WITHOUT_SIMPLEX, WITHOUT_ATYPICAL = "w/o mirrored", "w/o simplex", "w/o atypical"
WITHOUT_A = "w/o A-score (raw R)"
ABLATIONS = (WITHOUT_MIRRORED, WITHOUT_SIMPLEX, WITHOUT_ATYPICAL, WITHOUT_A)
_ABLATIONS: dict[str, tuple[float, ...]] = {
    WITHOUT_MIRRORED: (0.653, 0.899, 0.800, 0.526, 0.510, 0.503, 0.693, 0.592),
    WITHOUT_SIMPLEX: (0.960, 0.998, 0.820, 0.847, 0.537, 0.991, 0.993, 0.987),
    WITHOUT_ATYPICAL: (0.894, 0.997, 0.861, 0.812, 0.535, 0.990, 0.991, 0.987),
    WITHOUT_A: (0.991, 0.997, 0.442, 0.890, 0.501, 0.993, 1.000, 0.988),
}

# Table 2: AMA trained on one class, tested against the other classes; by label.
TABLE_2_SETS = ("mnist", "cifar10")
_TABLE_2: dict[str, tuple[float, ...]] = {
    "mnist": (0.986, 0.998, 0.882, 0.891, 0.894, 0.938, 0.981, 0.983, 0.876, 0.948),
    "cifar10": (0.752, 0.634, 0.696, 0.603, 0.733, 0.650, 0.658, 0.582, 0.754, 0.632),
}
_TABLE_2_MEANS: dict[str, dict[str, float]] = {
    "FGAN": {"mnist": 0.504, "cifar10": 0.567},
    "ALAD": {"mnist": 0.828, "cifar10": 0.601},
    "AnoGAN": {"mnist": 0.731, "cifar10": 0.598},
    "Skip-GANomaly": {"mnist": 0.531, "cifar10": 0.597},
    "DeepSVDD": {"mnist": 0.921, "cifar10": 0.631},
    AMA: {"mnist": 0.938, "cifar10": 0.669},
}

# A method of the tables -> its detector here (see `detectors.registry`).
DETECTORS = {
    "WAIC": "waic",
    "Likelihood ratio": "likelihood_ratio",
    TYPICALITY: "typicality",
    "DeepSVDD": "deepsvdd",
    "Input complexity S": "complexity",
    "FGAN": "fencegan",
    "ALAD": "alad",
    "AnoGAN": "anogan",
    "Skip-GANomaly": "skipganomaly",
}

# Detectors that depart from their publication in networks or training, at every size: how, the Notes of each say.
DEPARTING = frozenset({"waic", "alad", "anogan", "skipganomaly", "fencegan", "pixelcnn", "complexity", "likelihood_ratio"})

# A set of the paper -> the set of the catalog that is measured in its place.
STAND_INS = {"imagenet": "tinyimagenet"}
# A set of the paper that cannot be had where the bundled models were made -> why.
OUT_OF_REACH = {"svhn": "SVHN was not available where these models were trained"}

CAVEATS = (
    "Several baselines of Table 1 look copied from their own papers, with other protocols.",
    f"The row {TYPICALITY} matches a rejected fraction of the images, not an AUROC: do not compare it with the others.",
    "FGAN's CIFAR-10 mean is printed as 0.567 in Table 2, while its cells average 0.534.",
    "The paper's ImageNet is ODIN's Imagenet_resize, whose resizing leaves artefacts that make it easier to detect. Ours is an "
    "antialiased Tiny-ImageNet.",
    "The released code picks checkpoints by the AUROC on validation images of the same OOD set; ours takes the last step "
    "unless it says otherwise.",
)


def table1(normal: str, ood: str, method: str = AMA) -> float | None:
    """AUROC of Table 1, in [0, 1]; None where the paper has no such cell. KeyError where `method` is not among `methods(1)`."""
    return _cell(_TABLE_1[method], normal, ood)


def ablation(variant: str, normal: str, ood: str) -> float | None:
    """AUROC of AMA without one of its parts, in [0, 1]; None where the paper has no such cell. KeyError where `variant` is not
    among `ABLATIONS`.
    """
    return _cell(_ABLATIONS[variant], normal, ood)


def table2(normal: str, label: int) -> float | None:
    """AUROC of AMA trained on the class `label` of `normal` (Table 2); None where the paper has no such cell."""
    values = _TABLE_2.get(normal, ())
    return values[label] if 0 <= label < len(values) else None


def table2_mean(normal: str, method: str = AMA) -> float | None:
    """The mean AUROC over ten classes that Table 2 prints; None where it has none. KeyError where `method` is not among
    `methods(2)`.
    """
    return _TABLE_2_MEANS[method].get(normal)


def published(config: Config, normal: str, label: int | None, ood: str, rest: str = "rest") -> dict[str, float]:
    """What the paper prints for a model of this configuration on this very set, score -> AUROC; empty where it has no cell.

    A stand-in of one of its sets is not that set. label: of a one-class model; `rest`: what its other classes are called.
    """
    row = variant(config)
    if row is None:
        return {}
    if label is not None:
        values = {"A": table2(normal, label) if (row, ood) == (AMA, rest) else None}
    elif row == AMA:
        values = {"A": table1(normal, ood), "R": ablation(WITHOUT_A, normal, ood)}
    else:
        values = {"A": ablation(row, normal, ood)}
    return {score: value for score, value in values.items() if value is not None}


def seedless(config: Config) -> Config:
    """The configuration but for its seed: models that agree in it differ by chance alone."""
    return config.replace(seed=Config().seed)


def methods(table: int = 1) -> tuple[str, ...]:
    """The methods of Table 1 or 2, AMA last. Raises KeyError for another table."""
    return tuple({1: _TABLE_1, 2: _TABLE_2_MEANS}[table])


def paper_name(ood: str) -> str:
    """The paper's name of the set that `ood` stands in for; others as they are."""
    return next((theirs for theirs, ours in STAND_INS.items() if ours == ood), ood)


def variant(config: Config) -> str | None:
    """The row that a configuration belongs to: AMA, or the ablation with that one part left out; None for any other."""
    missing = [
        name
        for name, there in (
            (WITHOUT_MIRRORED, config.reconstruction == "mirrored"),
            (WITHOUT_SIMPLEX, config.lambda_inter > 0),
            (WITHOUT_ATYPICAL, config.uses_negatives),
        )
        if not there
    ]
    return AMA if not missing else missing[0] if len(missing) == 1 else None


def reductions(config: Config, training: dict[str, Any]) -> list[str]:
    """In which ways a training stayed below the paper's size, in words; empty for one of full size.

    Args:
        training: the `training` part of a bundle's config.json (`steps`, `n_train`).
    """
    full = Config()
    found = [
        f"{words} {getattr(config, name)} of {getattr(full, name)}"
        for name, words in (
            ("width_critic", "critic width"),
            ("width_encoder", "encoder width"),
            ("width_generator", "generator width"),
            ("nz", "latent dimension"),
            ("n_critic", "critic steps"),
        )
        if getattr(config, name) < getattr(full, name)
    ]
    passes = epochs(config, training)
    if passes is not None and passes < full.epochs - 0.5:
        found.append(f"{passes:.3g} of {full.epochs} epochs")
    return found


def epochs(config: Config, training: dict[str, Any]) -> float | None:
    """Passes over the training data; None where a bundle does not say."""
    steps, n_train = training.get("steps"), training.get("n_train")
    return steps * config.batch_size / n_train if steps and n_train else None


def _cell(row: tuple[float | None, ...], normal: str, ood: str) -> float | None:
    return dict(zip(TASKS, row)).get((normal, ood))
