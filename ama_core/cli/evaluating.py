"""Commands about a trained model: `evaluate`, `measure`, `calibrate`, `info`, `share` and `export`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ama_core.cli.arguments import (
    Commands,
    add_alpha_of_model,
    add_command,
    add_device,
    add_json,
    add_model,
    alpha_of,
    check_new,
    check_out,
    path,
    seed,
    source,
)
from ama_core.cli.progress import SetBars, warn
from ama_core.data import load_any
from ama_core.detectors.conformal import conformal_p_value, decidable
from ama_core.detectors.registry import load_detector
from ama_core.errors import AMAError, ConfigError
from ama_core.evaluation import protocol as evaluation
from ama_core.evaluation.metrics import auroc_interval
from ama_core.runs.measuring import measure_run, write_card
from ama_core.scoring.check import reach_warning
from ama_core.scoring.onnx_export import export_onnx, is_onnx
from ama_core.storage.bundle import find_bundle, is_shared, read_info, read_results, read_scores, zip_bundle
from ama_core.storage.files import write_atomically


def add_evaluate(commands: Commands) -> None:
    parser = add_command(commands, evaluate)
    add_model(parser)
    add = parser.add_argument
    sets = (
        "data sets, or folders, archives or .npz files of images; rest: of a model of one class, the other classes of its set"
    )
    add("--ood", nargs="+", required=True, type=source, metavar="NAME", help=sets)
    add("--seed", type=seed, default=0, help="seed of the draw of anomalies, 20 %% of the number of normal images (default: 0)")
    add("--full", action="store_true", help="the whole OOD test split instead of the draw")
    add_json(parser)
    add_device(parser)


def evaluate(arguments: argparse.Namespace) -> None:
    """AUROC, AUPRC and FPR95 of every score against OOD sets."""
    detector = load_detector(arguments.model, device=arguments.device)
    with SetBars(arguments.quiet) as bars:
        found = evaluation.evaluate(
            detector,
            arguments.ood,
            model=arguments.model,
            seed=arguments.seed,
            full=arguments.full,
            progress=bars.update,
        )
    if arguments.json:
        print(json.dumps(found))
    else:
        _print_results(found)


def add_measure(commands: Commands) -> None:
    parser = add_command(commands, measure)
    add_model(parser)
    parser.add_argument(
        "--seed", type=seed, default=0, help="seed of the stored samples and of the draw of anomalies (default: 0)"
    )
    again = "first refit statistics and p-values on its training images, which adds new scores to a model of an earlier version"
    parser.add_argument("--calibrate", action="store_true", help=again)
    add_device(parser)


def measure(arguments: argparse.Namespace) -> None:
    """Measure a bundle against every data set that is available locally and store the scores in it."""
    folder = find_bundle(arguments.model)
    detector = load_detector(folder, device=arguments.device)
    if arguments.calibrate:
        if others := detector.info_.get("calibrated_on"):
            raise ConfigError(
                f"The p-values of this model are from {others['n']:,} images of {others['name']}, which --calibrate would "
                "replace. Run it on the model that this one was made from, then `calibrate` that one."
            )
        detector.calibrate(evaluation.training_images(detector).images).save(folder)
    with SetBars(arguments.quiet) as bars:
        measure_run(detector, folder, bars.update, seed=arguments.seed)
    _print_results(read_results(folder))


def add_calibrate(commands: Commands) -> None:
    parser = add_command(commands, calibrate)
    add_model(parser)
    add = parser.add_argument
    normal = (
        "normal images that it was not trained on: a folder (its `test`, if it has `train` and `test`), archive or data set"
    )
    add("good", type=source, metavar="GOOD", help=normal)
    add("--out", required=True, type=path, metavar="DIR", help="a new folder for the model with these p-values")
    add_alpha_of_model(parser)
    add_device(parser)


def calibrate(arguments: argparse.Namespace) -> None:
    """Take p-values from other normal images, such as those of another camera: a model of the same scores."""
    check_new(arguments.out)
    detector = load_detector(arguments.model, device=arguments.device)
    images = load_any(arguments.good, "ood", **vars(detector.settings.input))
    alpha, calibration = alpha_of(arguments, detector), detector.calibration_scores_
    detector.recalibrate(images).save(arguments.out)
    before = float((conformal_p_value(detector.calibration_scores_, calibration) <= alpha).mean())
    write_card(detector, arguments.out)
    said = f"At a false-alarm rate of {alpha:g}, {before:.1%} of these {len(images):,} images were flagged"
    if not decidable(len(calibration), alpha):
        said = f"At a false-alarm rate of {alpha:g} nothing could be flagged before"
    beyond = reach_warning(detector, alpha)
    print(said + ("." if beyond else f"; of similar images, at most about {alpha:.1%} now are."))
    print(f"{arguments.out} holds the model; it has not been measured yet.", file=sys.stderr)
    seen = f"It was trained on images of {arguments.good}, which look more normal to it than new ones: calibrate on others."
    warn(seen if evaluation.was_trained_on(detector, arguments.good) else None, beyond)


def add_info(commands: Commands) -> None:
    parser = add_command(commands, info)
    add_model(parser)
    parser.add_argument("--verify", action="store_true", help="score a fraction of the stored samples again and compare")
    add_json(parser)
    add_device(parser)


def info(arguments: argparse.Namespace) -> None:
    """What a model is, and how well it was measured to do; --verify: whether it still gives the scores stored with it."""
    folder = find_bundle(arguments.model)
    if arguments.verify:
        _verify(folder, arguments)
        return
    header = read_info(folder)
    results = read_results(folder)
    if arguments.json:
        print(json.dumps({"path": str(folder), **header, "results": results}))
        return
    print(folder)
    for section in ("normal", "training", "calibrated_on", "config"):
        if section in header:
            print(f"\n{section}")
        for name, value in header.get(section, {}).items():
            if isinstance(value, dict):
                value = ", ".join(f"{part} {of}" for part, of in value.items())
            if value is not None:
                print(f"  {name:22}{value}")
    if results and results["results"]:
        print()
        _print_results(results)


def _verify(folder: Path, arguments: argparse.Namespace) -> None:
    """Compare, print, and raise AMAError where the model does not give its stored scores."""
    stored = read_scores(folder)
    if not stored:
        raise AMAError(f"{folder} stores no scores to compare with: python -m ama_core measure {folder} makes them.")
    with SetBars(arguments.quiet) as bars:
        rows = evaluation.verify(load_detector(folder, device=arguments.device), stored, progress=bars.update)
    if arguments.json:
        print(json.dumps(rows))
    else:
        for row in rows:
            said = {True: "agrees", False: "DIFFERS", None: "not compared"}[row["agrees"]]
            how = f"{row['n']} images, at most {row['difference']:.1e} apart ({row['score']})" if row["n"] else row["why"]
            print(f"{row['name'][-20:]:22}{row['split']:8}{said:14}{how}")
    if differing := [f"{row['name']} ({row['split']})" for row in rows if row["agrees"] is False]:
        raise AMAError(
            f"{folder} does not give the scores stored with it for {', '.join(differing)}: its weights, its calibration or "
            "the images have changed. Copy the bundle again, or measure it again."
        )
    if not any(row["agrees"] for row in rows):
        raise AMAError(f"Nothing of what {folder} stores could be compared. {rows[0]['why']}")


def _print_results(found: dict[str, Any]) -> None:
    """What `evaluation.evaluate` returned, as a table."""
    print(f"normal: {found['normal']}   draw seed: {found['seed']}   AUROC (AUPRC, FPR95), below it AUROC's 95 % interval")
    names = list(found["results"][0]["scores"]) if found["results"] else []
    print(f"{'against':16}{'n':>8}{'n OOD':>8}  " + "".join(f"{score:<24}" for score in names))
    for row in found["results"]:
        cells = [row["scores"][score] for score in names]
        figures = [f"{c['auroc']:.3f} ({c['auprc']:.3f}, {c['fpr95']:.3f})" for c in cells]
        print(f"{row['ood'][-15:]:16}{row['n_normal']:>8,}{row['n_ood']:>8,}  " + "".join(f"{f:<24}" for f in figures))
        intervals = [auroc_interval(c["auroc"], row["n_normal"], row["n_ood"]) for c in cells]
        print(" " * 34 + "".join(f"{f'{low:.3f} to {high:.3f}':<24}" for low, high in intervals))
    for note in found.get("notes", ()):
        print(note, file=sys.stderr)


def add_export(commands: Commands) -> None:
    parser = add_command(commands, export)
    add_model(parser)
    add = parser.add_argument
    add("--onnx", required=True, type=path, metavar="FILE", dest="out", help="the .onnx file")
    add("--by", metavar="SCORE", help="the score that gives the p-value (default: the detector's own)")
    add("--force", action="store_true", help="replace FILE even if it is not an ONNX file written here")


def export(arguments: argparse.Namespace) -> None:
    """Write a model as one ONNX file for other programs, calibration inside, checked against PyTorch."""
    check_out(arguments, is_onnx, ())
    found = export_onnx(load_detector(arguments.model, score=arguments.by, device="cpu"), arguments.out)
    apart = ", ".join(f"{name} {value:.0e}" for name, value in found.items())
    print(f"{arguments.out} is written; differences from PyTorch, relative: {apart}", file=sys.stderr)


def add_share(commands: Commands) -> None:
    parser = add_command(commands, share)
    add_model(parser)
    parser.add_argument("--out", required=True, type=path, metavar="FILE", help="the .zip file")
    parser.add_argument("--force", action="store_true", help="replace FILE even if it is not a shared model")


def share(arguments: argparse.Namespace) -> None:
    """Pack a model as a .zip file to give to others, who unpack it and name its folder as MODEL."""
    check_out(arguments, is_shared, ())
    folder = find_bundle(arguments.model)
    load_detector(folder)  # what does not fit together is not handed on
    write_atomically(arguments.out, zip_bundle(folder))
    print(f"{arguments.out} is written", file=sys.stderr)
