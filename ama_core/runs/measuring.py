"""What is measured of a trained model and kept in its bundle."""

from pathlib import Path

from ama_core.analysis.latent_map import measure_latents, write_latents
from ama_core.analysis.model_card import model_card
from ama_core.analysis.neighbours import measure_neighbours, write_neighbours
from ama_core.analysis.response import measure_response, write_response
from ama_core.detectors.base import AnomalyDetector
from ama_core.errors import AMAError
from ama_core.evaluation import protocol as evaluation
from ama_core.evaluation.simple import measure_simple, write_simple
from ama_core.scoring.localise import can_localise, fit_localiser, held_out_images, write_localiser
from ama_core.storage.bundle import write_results, write_scores
from ama_core.storage.files import write_atomically

# What is measured of the detectors that ask for it (`AnomalyDetector.MEASURED`): codes of images with their map, and how R
# answers to plain properties of images.
CODES, RESPONSE = "codes", "response"


class MeasuringSkipped(AMAError):
    """Raised by a `progress` that wants no more sets measured; what was measured so far is kept."""


def measure_run(detector: AnomalyDetector, folder: Path, progress: evaluation.Progress | None = None, *, seed: int = 0) -> None:
    """Score and map every data set that is available locally (of one's own images: those that were named), hold simple methods
    against the model, and store the nearest training images and what normal images show at each place: all that the bundle
    `folder` shows, replaced.
    """
    stored = []
    for found in evaluation.measure_each(detector, seed=seed, progress=progress):
        stored.append(found)
        write_scores(folder, stored)  # whatever is skipped later, this is kept
    if CODES in detector.MEASURED:
        write_latents(folder, measure_latents(detector, seed=seed, progress=progress))
    others = evaluation.available_others(detector)
    write_results(folder, evaluation.evaluate(detector, others, model=folder.name, seed=seed, progress=progress))
    if RESPONSE in detector.MEASURED and (response := measure_response(detector, stored, progress=progress)):
        write_response(folder, response)
    write_card(detector, folder)
    write_simple(folder, measure_simple(detector, seed=seed, progress=progress))
    if can_localise(detector):
        write_localiser(folder, fit_localiser(detector, *held_out_images(detector)), detector)
    if "features" in detector.can():
        write_neighbours(folder, measure_neighbours(detector, seed=seed))


def measuring_steps(detector: AnomalyDetector) -> int:
    """How often `measure_run` goes on to something else: sets scored for densities and for figures; codes, map, response; the
    simple methods.
    """
    others = evaluation.available_others(detector)
    scored = (2 + len(others)) + (1 + len([name for name in others if name != evaluation.REST]))
    codes = 1 + any(name != evaluation.REST for name in others) if CODES in detector.MEASURED else 0  # codes; their map
    return scored + codes + (RESPONSE in detector.MEASURED) + 1


def write_card(detector: AnomalyDetector, folder: Path) -> None:
    """The model card, from what the bundle holds."""
    write_atomically(folder / "README.md", model_card(folder, detector))
