"""Options that several commands share; torch is not imported, for --help."""

import argparse
import os
import tempfile
from pathlib import Path

from maskedclip_composer.errors import UserError


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add PHOTOS, and how photographs are read and computed on."""
    parser.add_argument(
        "photos",
        metavar="PHOTOS",
        help="an image file; a folder of them; a table (CSV, TSV, JSON lines, Parquet, Excel) with the column image; "
        "or prepared shards",
    )
    parser.add_argument("--images", metavar="ROOT", help="folder that a table's paths start from (default: its own)")
    parser.add_argument("--batch-size", type=count, default=64, metavar="N", help="photographs at once (default: 64)")
    parser.add_argument(
        "--workers",
        type=lambda text: count(text, least=0),
        default=min(8, len(os.sched_getaffinity(0))),
        metavar="N",
        help="processes that read photographs (default: one per core, at most 8)",
    )
    add_device_option(parser)


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if there is")


def add_model_option(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Add --model; `more` names further kinds of source."""
    parser.add_argument(
        "--model",
        required=True,
        metavar="SOURCE",
        help=f"run folder, checkpoint .pt in one, or folder of `export --to hf`{more}",
    )


def count(text: str, least: int = 1) -> int:
    """Read a whole number of at least `least`, for argparse."""
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f"{number} is less than {least}")
    return number


def device_of(choice: str) -> str:
    """Return the device that --device names.

    Raises:
        UserError: It is cuda, and there is none.
    """
    import torch

    if choice == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here.\nLeave --device out, or mend the driver.")
    return choice if choice != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def check_writable(option: str, path: Path, *, folder: bool = False) -> None:
    """Refuse, before anything is computed, a place where nothing can be written; nothing is left there.

    Args:
        option: That names it.
        path: The file; folders above it may be absent.
        folder: Whether it is a folder.

    Raises:
        UserError: It cannot be written.
    """
    place = path if folder else path.parent
    try:
        if not folder and path.is_dir():
            raise UserError(f"{option} {path} is a folder.\nGive the name of a file.")
        while not place.exists() and place != place.parent:
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise UserError(f"{option} {path} cannot be written ({error.strerror}).\nGive another place.") from error
