"""Command line: `python -m maskedclip_composer.report SUITE`."""

import argparse
import logging
import sys
from pathlib import Path

from maskedclip_composer.errors import UserError, report


def main(arguments: list[str] | None = None) -> int:
    """Write the report, print its warnings and its place; return the exit status (2 after what the user can mend)."""
    parser = argparse.ArgumentParser(
        prog="python -m maskedclip_composer.report",
        description="Tables, figures and a page from what evaluate.py wrote, complete or not, into SUITE/report.",
    )
    parser.add_argument("suite", type=Path, metavar="SUITE", help="folder that evaluate.py wrote")
    parser.add_argument("--baseline", metavar="NAME", help="encoder to compare with (default: the suite's)")
    parser.add_argument("--quoted", action="store_true", help="lay the paper's numbers beside ours, marked as quoted")
    parser.add_argument("--draws", type=int, default=2000, help="of test patients, for intervals (default: 2000)")
    parser.add_argument("--title", help="of the page (default: the suite's name)")
    args = parser.parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        from maskedclip_composer.report.write import write_report  # matplotlib and scikit-learn: not for --help

        path = write_report(args.suite, baseline=args.baseline, quoted=args.quoted, draws=args.draws, title=args.title)
    except UserError as error:
        return report(error, parser.prog)
    print(path.with_name("warnings.md").read_text())
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
