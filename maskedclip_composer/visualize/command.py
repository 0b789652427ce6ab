"""Command line: `python -m maskedclip_composer visualize PHOTOS --model SOURCE --out FOLDER`."""

import argparse
import logging
import shlex
import sys
from pathlib import Path

from maskedclip_composer.use.options import add_reading_options, check_writable, count
from maskedclip_composer.visualize.kinds import KINDS
from maskedclip_composer.visualize.options import Options


def main(arguments: list[str] | None = None) -> int:
    """Draw pictures of a model, and print where they are; what the user can mend is a UserError."""
    given = sys.argv[1:] if arguments is None else arguments
    args = vars(_parser().parse_args(given))
    options = Options(**args, command=shlex.join(["python", "-m", "maskedclip_composer", "visualize", *given]))
    check_writable("--out", options.out, folder=True)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    from maskedclip_composer.visualize.write import write_pictures  # torch takes seconds: not for --help

    result, files, run = write_pictures(options)
    for name, reason in result.left_out.items():
        print(f"left out: {name}: {reason}")
    if result.unreadable:
        print(f"photographs that cannot be read: {len(result.unreadable)}; the page lists them")
    print("\n".join(map(str, files)))
    if run is not None:
        print(f"stored with MLflow run {run} as pictures/")
    return 0


def _parser() -> argparse.ArgumentParser:
    kinds = "; ".join(f"{name}: {what}" for name, what in KINDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m maskedclip_composer visualize",
        description=f"Pictures of what a model has learnt, with numbers and a page that explains them. {kinds}.",
    )
    add_reading_options(parser)
    parser.add_argument(
        "--model",
        metavar="SOURCE",
        help="run folder, checkpoint .pt in one, or folder of `export --to hf`; not needed where PHOTOS is what embed "
        "wrote, of which spaces are drawn",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the pictures go")
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=[], help="kinds of pictures (default: all that can be drawn)"
    )
    parser.add_argument(
        "--text", nargs="+", default=[], dest="texts", metavar="TEXT", help="texts to compare photographs with"
    )
    parser.add_argument("--labels", metavar="COLUMN", help="column that colours the points of spaces")
    parser.add_argument("--sets", metavar="COLUMN", help="column that gives them their markers")
    parser.add_argument("--count", type=count, metavar="N", default=4, help="photographs that are drawn (default: 4)")
    parser.add_argument(
        "--points", type=count, metavar="N", default=1000, help="photographs in spaces, at most (default: 1000)"
    )
    parser.add_argument("--mask-ratio", type=float, metavar="SHARE", help="of reconstruction (default: the run's)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice, the masks and t-SNE (default: 0)")
    parser.add_argument("--log", action="store_true", help="store them with the model's own MLflow run, too")
    return parser
