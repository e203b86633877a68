"""The option `--maps` of `score`: photographs with their marked places outlined, one file an image."""

import argparse
import sys
from collections.abc import Iterable

import numpy as np
from tqdm import tqdm

from ama_core.cli.arguments import path
from ama_core.cli.progress import hidden, warn
from ama_core.detectors.base import AnomalyDetector
from ama_core.errors import ConfigError, DataError
from ama_core.scoring import table
from ama_core.scoring.check import Checked, originals
from ama_core.scoring.localise import MAPS, can_localise, find_localiser
from ama_core.scoring.outlines import Outlines, check_folder, write_outlines
from ama_core.scoring.report import to_outline
from ama_core.storage.bundle import find_bundle


def add_maps(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--maps", type=path, metavar="DIR", help="write flagged images, unusual places outlined, as .png into this folder")
    add("--maps-of", choices=("flagged", "all"), default="flagged", help="which images --maps writes (%(default)s)")
    add_map(parser)


def add_map(parser: argparse.ArgumentParser) -> None:
    meanings = "; ".join(f"{name}: {meaning}" for name, meaning in MAPS.items())
    parser.add_argument("--map", choices=MAPS, help=f"what outlines come from. {meanings} (default: the first available)")


def outlines_of(detector: AnomalyDetector, arguments: argparse.Namespace) -> Outlines:
    """What `--map`, or the detector's first map, draws at `--alpha`. Raises ConfigError, DataError, BundleError."""
    localiser = find_localiser(detector, find_bundle(arguments.model))
    found = Outlines(detector, localiser, arguments.map or localiser.default, arguments.alpha)
    localiser.threshold(found.name, found.alpha)  # refuses a map that there is not
    warn(localiser.reach_warning(arguments.alpha))
    return found


def outlined(detector: AnomalyDetector, checked: Checked, arguments: argparse.Namespace) -> tuple[dict[int, np.ndarray], str]:
    """What `html_report` takes of outlines: photographs by their position in `checked`, and a sentence on them.

    Raises ConfigError where `--map` asks for a map that the detector does not have.
    """
    if not can_localise(detector) and not arguments.map:
        return {}, ""
    try:
        outlines = outlines_of(detector, arguments)
    except DataError as error:
        if arguments.map:
            raise
        return {}, str(error)
    chosen = to_outline(detector, checked, arguments.alpha)
    return outlines.for_report(originals(arguments.paths, checked, chosen))


def check_maps(arguments: argparse.Namespace) -> None:
    """Raises ConfigError where `--maps` cannot be written."""
    if not arguments.maps:
        return
    if arguments.watch:
        raise ConfigError("--maps needs all images at once: score them without --watch.")
    if arguments.shard:
        raise ConfigError("--maps needs the whole table: score without --shard, or draw the maps in a second call.")
    check_folder(arguments.maps, arguments.paths, replace=arguments.force or arguments.resume)


def write_maps(outlines: Outlines, arguments: argparse.Namespace, verdicts: Iterable[bool | None]) -> None:
    """Write `--maps` of the images that were scored: `verdicts` of each, in their order, None where it could not be."""
    chosen = [verdict is not None and (verdict or arguments.maps_of == "all") for verdict in verdicts]
    with tqdm(total=sum(chosen), unit="map", disable=hidden(arguments.quiet)) as bar:
        unread = table.images_of(arguments.paths, arguments.out)
        written, unmarked = write_outlines(outlines, unread, chosen, arguments.maps, lambda done: bar.update(done - bar.n))
    which = "flagged images" if arguments.maps_of == "flagged" else "images"
    none = f"; in {unmarked:,} of them no single place is unusual at alpha = {outlines.alpha:g}" if unmarked else ""
    print(f"{arguments.maps}: {written:,} {which} by the map {outlines.name}{none}", file=sys.stderr)
