"""What the form calls the settings, and their explanations without the marks of their sources."""

import re

# Plain names of the settings, of AMA and of what all detectors share; any other is called by its own name.
NAMES = {
    "mode": "Follow the paper or its code",
    "reconstruction": "What the critic compares",
    "image_size": "Side of the image",
    "channels": "Grey or colour",
    "fit": "How images become square",
    "nz": "Numbers in a code",
    "width_encoder": "Encoder width",
    "width_generator": "Generator width",
    "width_critic": "Critic width",
    "lambda_gp": "Weight of the gradient penalty",
    "lambda_drift": "Weight of the critic's level",
    "lambda_inter": "Weight of the mixtures",
    "k": "Images in a mixture",
    "gp_fraction": "Fraction for the penalty",
    "inter_fraction": "Fraction for the mixtures",
    "lambda_reg": "Weight of the code length",
    "reg": "Limit on the code length",
    "atypical": "Negatives",
    "delta": "Thickness of the negatives' layer",
    "lambda_neg": "Weight of negatives",
    "negative_fraction": "Fraction of negatives",
    "warmup": "When negatives begin",
    "epochs": "Passes over the images",
    "max_steps": "Length: training steps",
    "batch_size": "Images per step",
    "lr": "Learning rate",
    "lr_schedule": "How the learning rate falls",
    "lr_fall": "When it falls",
    "average": "Averaging of the weights",
    "precision": "Arithmetic",
    "seed": "Seed",
    "n_critic": "Critic steps per step",
    "beta1_encoder": "Momentum, encoder",
    "beta1_generator": "Momentum, generator",
    "beta1_critic": "Momentum, critic",
    "beta2": "Decay of squared gradients",
    "calibration_fraction": "Fraction held out",
    "false_alarm_rate": "False-alarm rate",
}

# The choices of a plain control -> in words.
CHOICES = {
    "atypical": {
        "inward": "just inside the shell of codes",
        "outward": "just outside the shell of codes",
        "sipple": "from a cube at the origin",
        "none": "none: normal images alone",
    },
    "channels": {1: "grey", 3: "colour"},
}

_SOURCES = {"P": "paper", "C": "released code", "D": "our choice"}


def name_of(field: str) -> str:
    """What a setting is called in the form."""
    return NAMES.get(field) or field.replace("_", " ").capitalize()


def choice_in_words(field: str, value) -> str:
    """A choice of a setting in the form."""
    return str(CHOICES.get(field, {}).get(value, value))


def explained(doc: str) -> str:
    """The explanation of a setting, its marks [P], [C] and [D] in words: "[C] 128." as "In the released code: 128."."""

    def begins(mark: re.Match) -> str:
        source = _SOURCES[mark[2]]
        return f"{mark[1]}{'Our choice' if mark[2] == 'D' else f'In the {source}'}: "

    doc = re.sub(r"(^|[.;] )\[([PCD])\] ", begins, doc)
    return re.sub(r" ?\[([PCD])\]", lambda mark: f" ({_SOURCES[mark[1]]})", doc)
