"""What a step of the lesson is about: a model and one OOD set, and the words for their figures."""

from dataclasses import dataclass

import cache
import controls

from ama_core.evaluation.cases import NEAR_CHANCE
from ama_core.formatting import of_100
from ama_core.storage.bundle import StoredScores

ALPHA = 0.05  # the false-alarm rate of steps that offer no other
AUTO = "chosen for this step"  # instead of a set: the one that shows the step's point


@dataclass(frozen=True)
class Case:
    """A model, its normal test scores, and those of one OOD set."""

    view: controls.View
    own: StoredScores
    other: StoredScores
    aurocs: dict[str, dict[str, float]]  # set -> score -> AUROC, of every measured set

    @property
    def auroc(self) -> dict[str, float]:
        """AUROC of every score of this set."""
        return self.aurocs[self.other.name]

    @property
    def title(self) -> str:
        """What the OOD set is called in a sentence."""
        return controls.title_of(self.other.name)

    @property
    def ood(self) -> str:
        """The same, in bold."""
        return f"**{controls.literal(self.title)}**"

    @property
    def normal(self) -> str:
        """What the model's own set is called in a sentence."""
        return controls.title_of(self.own.name)

    @property
    def threshold_r(self) -> float:
        """R above which 5 % of the held-out normal images would be flagged; infinite where they are too few."""
        return self.view.detector.threshold("R", ALPHA)

    def can_flag(self, alpha: float) -> bool:
        """Whether the model can flag anything at a false-alarm rate; says so where it cannot."""
        return controls.within_reach(len(self.view.detector.held_out_scores_["R"]), alpha)

    @property
    def scores(self) -> tuple[str, ...]:
        return self.view.detector.score_names()


def case_of(view: controls.View, ood: str) -> Case:
    """The case of one OOD set. Raises BundleError."""
    stored = {s.name: s for s in cache.stored(view.folder) if s.split == "test"}
    return Case(view, stored[view.normal], stored[ood], cache.aurocs(view.folder))


def pairs(auroc: float) -> str:
    """An AUROC as a bet on pairs, in words."""
    return f"in {of_100(auroc)} of 100 pairs of one anomalous and one normal image the anomalous one has the higher score"


def order(auroc: float) -> str:
    """Which of the two kinds of images scores higher: `ood`, `normal` or `same`."""
    return "same" if abs(auroc - 0.5) <= NEAR_CHANCE else "ood" if auroc > 0.5 else "normal"
