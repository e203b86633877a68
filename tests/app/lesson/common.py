"""What tests of the lesson share: made-up figures of a set, and the take-away of a step."""

from pathlib import Path

from streamlit.testing.v1 import AppTest

from ama_core.storage.bundle import read_results, write_results

STEPS = ("Hope", "Surprise", "Cause", "Threshold", "Band", "Overlap", "Limits", "Others", "Quiz")
SETS = ("gradients", "textures")
WORKS = {"R": 0.97, "A": 0.97, "M": 0.98, "T": 0.99, "C": 0.99}
FAILS = {"R": 0.2, "A": 0.9, "M": 0.6, "T": 0.65, "C": 0.64}
LIES_ON_TOP = {"R": 0.51, "A": 0.52, "M": 0.95, "T": 0.9, "C": 0.9}
NOTHING = {"R": 0.5, "A": 0.5, "M": 0.55, "T": 0.52, "C": 0.54}


def taken(at: AppTest) -> str:
    (line,) = [m.value for m in at.markdown if m.value.startswith(":material/lightbulb:")]
    assert line.endswith("**")
    return line.replace("\\", "")


def with_aurocs(folder: Path, changes: dict[str, dict[str, float]]) -> Path:
    """The bundle, with other figures of some sets."""
    results = read_results(folder)
    for row in results["results"]:
        for by, value in changes.get(row["ood"], {}).items():
            row["scores"][by]["auroc"] = value
    write_results(folder, results)
    return folder
