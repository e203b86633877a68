"""Commands about images before anything is trained: `datasets` and `inspect`."""

import argparse
import json
import shlex
import sys
from pathlib import Path

from tqdm import tqdm

from ama_core.cli.arguments import Commands, add_alpha, add_command, add_json, add_quiet, source
from ama_core.cli.progress import hidden
from ama_core.data import Guidance, available, catalog, data_dir, divided, guidance, load
from ama_core.data import inspect as inspect_images
from ama_core.data.files import ARCHIVES
from ama_core.data.guidance import FEWEST
from ama_core.errors import ConfigError


def add_datasets(commands: Commands) -> None:
    parser = add_command(commands, datasets)
    parser.add_argument("--download", nargs="+", default=[], metavar="NAME", help="fetch these sets through torchvision")
    add_json(parser)


def datasets(arguments: argparse.Namespace) -> None:
    """List the catalog, or download sets."""
    unknown = [name for name in arguments.download if name not in catalog()]
    if unknown:
        raise ConfigError(f"There is no data set {', '.join(unknown)}. Known: {', '.join(catalog())}.")
    for name in arguments.download:
        for split in catalog()[name].splits:
            images = load(name, split, download=True, progress=_downloaded)
            print(f"{name} {split}: {len(images):,} images", file=sys.stderr)
    rows = [
        {"name": name, "channels": info.channels, "available": list(available(name)), "title": info.title, "kind": info.kind}
        for name, info in catalog().items()
    ]
    if arguments.json:
        print(json.dumps(rows))
        return
    print(f"Data directory: {data_dir()} (set AMA_DATA_DIR to change it)\n")
    for row in rows:
        where = ", ".join(row["available"]) or f"download (about {catalog()[row['name']].download_mb} MB)"
        print(f"{row['name']:14}{'grey' if row['channels'] == 1 else 'colour':8}{row['kind']:12}{where:26}{row['title']}")


def _downloaded(done: int, total: int, what: str) -> None:
    print(f"[{done}/{total}] {what}", file=sys.stderr)


def add_inspect(commands: Commands) -> None:
    parser = add_command(commands, inspect)
    add = parser.add_argument
    add("sources", nargs="+", type=source, metavar="PATH", help="folders, .zip, .tar, .npz or image files")
    add("--against", type=source, metavar="PATH", help="images that should not be among them, such as those of the test set")
    add_alpha(parser, "false-alarm rate that the suggested settings should reach")
    add_json(parser)
    add_quiet(parser)


def inspect(arguments: argparse.Namespace) -> None:
    """Look at your own images before training: sizes, unreadable files, duplicates, and the settings that follow."""
    sources = [Path(word) for word in arguments.sources]
    with tqdm(unit="file", disable=hidden(arguments.quiet)) as bar:
        found = inspect_images(sources, arguments.against, lambda met: bar.update(met - bar.n))
    suited = guidance(found, arguments.alpha, len(sources) == 1 and divided(sources[0])) if found.n else None
    whole = len(sources) == 1 and (sources[0].is_dir() or sources[0].suffix.lower() in ARCHIVES)
    command = _training(sources[0], suited) if suited and whole and suited.n_train >= FEWEST else None
    if arguments.json:
        sizes = [{"width": width, "height": height, "n": n} for (width, height), n in found.sizes.items()]
        parts = {name: getattr(found, name) for name in ("n", "grey", "refused", "duplicates", "near", "shared", "notes")}
        follows = suited and {"settings": suited.settings(), "smallest_alpha": suited.smallest_alpha, "command": command}
        print(json.dumps(parts | {"sizes": sizes, "suggested": follows}))
        return
    print("\n".join(found.sentences()))
    if arguments.against and found.compared and found.compared_with_test and not found.shared:
        print(f"None of them looks the same as an image of {arguments.against}.")
    if suited:
        print("\nSettings that follow:\n" + "\n".join(f"- {reason}" for reason in suited.reasons))
        few = f"Too few to train on: at least {FEWEST} training images are needed."
        together = "To train on them, put them into one folder: `train` takes one."
        print(f"\n{command or (few if suited.n_train < FEWEST else together)}")


def _training(source: Path, suited: Guidance) -> str:
    """The command that trains with these settings."""
    changes = [word for name, value in suited.settings().items() for word in ("--set", f"{name}={value}")]
    out = Path("runs") / (source.resolve().stem or "mine")
    fast = ["--preset", "fast64"] if suited.image_size >= 64 else []
    return shlex.join(["python", "-m", "ama_core", "train", str(source), "--out", str(out), *fast, *changes])
