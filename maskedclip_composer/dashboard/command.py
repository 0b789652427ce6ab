"""`python -m maskedclip_composer dashboard`: the page of a run."""

import argparse
from pathlib import Path

from maskedclip_composer.errors import UserError, report

PROGRAM = "python -m maskedclip_composer dashboard"


def main(argv: list[str] | None = None) -> int:
    """Write the page and print where it is; return the exit status, 2 after what the user can mend."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
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
    try:
        from maskedclip_composer.dashboard.write import write_dashboard  # numpy and jinja2: not for --help

        path = write_dashboard(arguments.run, arguments.suite, arguments.out)
    except UserError as error:
        return report(error, PROGRAM)
    except OSError as error:
        return report(UserError(f"{error}.\nChoose another file with --out."), PROGRAM)
    print(path)
    return 0
