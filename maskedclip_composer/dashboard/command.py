"""`python -m maskedclip_composer dashboard`: the page of a run."""

import argparse
from pathlib import Path

from maskedclip_composer.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Write the page, print where it is, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m maskedclip_composer dashboard",
        description="One page about a training run: is it learning, is it collapsing, how fast is it, what did it "
        "cost, which checkpoint is best downstream. Also of a run that goes on or has been killed.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that train.py wrote")
    parser.add_argument(
        "--suite",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="folder that evaluate.py wrote, once for each; those beside RUN are found without it",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: RUN/dashboard.html)")
    arguments = parser.parse_args(argv)
    from maskedclip_composer.dashboard.write import write_dashboard  # numpy and jinja2: not for --help

    try:
        path = write_dashboard(arguments.run, arguments.suite, arguments.out)
    except OSError as error:
        raise UserError(f"The page cannot be written: {error}.\nChoose another file with --out.") from error
    print(path)
    return 0
