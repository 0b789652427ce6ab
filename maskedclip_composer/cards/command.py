"""`python -m maskedclip_composer card RUN`: the model card and the data card of a run, from its files."""

import argparse
from pathlib import Path

from maskedclip_composer.cards.write import write_cards


def main(argv: list[str] | None = None) -> int:
    """Write the cards as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m maskedclip_composer card",
        description="Write model_card.md and data_card.md of a pre-training run from its files. Training and "
        "evaluate.py write them by themselves; this writes them again.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run, such as runs/maskedclip")
    parser.add_argument(
        "--suite",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="suites of evaluate.py that evaluated the run; those of earlier calls stay",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for the cards (default: RUN)")
    arguments = parser.parse_args(argv)
    for path in write_cards(arguments.run, arguments.suite, out=arguments.out):
        print(path)
    return 0
