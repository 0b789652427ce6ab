"""Command line: `python -m maskedclip_composer visualize PHOTOS --model SOURCE --out FOLDER`."""

import argparse
import logging
import shlex
import sys
from pathlib import Path

from maskedclip_composer.visualize.kinds import KINDS
from maskedclip_composer.visualize.options import Options


def main(arguments: list[str] | None = None) -> int:
    """Draw pictures of a model, and print where they are; what the user can mend is a UserError."""
    given = sys.argv[1:] if arguments is None else arguments
    args = vars(_parser().parse_args(given))
    options = Options(**args, command=shlex.join(["python", "-m", "maskedclip_composer", "visualize", *given]))
    logging.basicConfig(format="%(levelname)s: %(message)s")
    from maskedclip_composer.visualize.write import write_pictures  # torch takes seconds: not for --help

    written = write_pictures(options)
    for name, reason in written.left_out.items():
        print(f"left out: {name}: {reason}")
    if written.unreadable:
        print(f"{len(written.unreadable)} photographs cannot be read; the page lists them")
    for path in written.files:
        print(path)
    return 0


def _parser() -> argparse.ArgumentParser:
    kinds = "; ".join(f"{name}: {what}" for name, what in KINDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m maskedclip_composer visualize",
        description=f"Pictures of what a model has learnt, with numbers and a page that explains them. {kinds}.",
    )
    parser.add_argument(
        "photos",
        metavar="PHOTOS",
        type=Path,
        help="an image file, a folder of them, a table with a column image, prepared shards, or what embed wrote",
    )
    parser.add_argument("--model", metavar="SOURCE", help="run folder, checkpoint in one, or exported model")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the pictures go")
    parser.add_argument("--images", type=Path, metavar="ROOT", help="folder that a table's paths start from")
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=[], help="kinds of pictures (default: all that can be drawn)"
    )
    parser.add_argument("--text", nargs="+", default=[], dest="texts", help="texts to compare photographs with")
    parser.add_argument("--labels", metavar="COLUMN", help="column that colours the points of spaces")
    parser.add_argument("--sets", metavar="COLUMN", help="column that gives them their markers")
    parser.add_argument("--count", type=int, default=4, help="photographs that are drawn (default: 4)")
    parser.add_argument("--points", type=int, default=1000, help="photographs in spaces, at most (default: 1000)")
    parser.add_argument("--mask-ratio", type=float, metavar="SHARE", help="of reconstruction (default: the run's)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice, the masks and t-SNE (default: 0)")
    parser.add_argument("--workers", type=int, default=0, help="processes that read photographs (default: 0)")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda where there is one)")
    parser.add_argument("--log", action="store_true", help="store them with the model's own MLflow run, too")
    return parser
