"""Command line of the data preparation: `python -m data_prep COMMAND --help`."""

import argparse
import sys

from maskedclip_composer.callbacks.redaction import redact_tracebacks
from maskedclip_composer.errors import UserError, report


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status (2 after an error that the user can mend)."""
    # Not at the top: every worker process imports this module again, as the main one.
    from data_prep import build, check, overlap, prepare, split, synthetic, table, text_tower
    from data_prep.fixtures import command as fixtures

    parser = argparse.ArgumentParser(
        prog="python -m data_prep",
        description="Prepare retinal photographs for training: MDS shards for Streaming, from a data set, a table "
        "or a folder.",
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    prepare.add_list_parser(subparsers)
    for command in (build, prepare, split, table, check, overlap, text_tower, synthetic, fixtures):
        command.add_parser(subparsers)
    args = parser.parse_args(arguments)
    try:
        return args.run(args)
    except UserError as error:
        return report(error, f"{parser.prog} {args.command}")
    except KeyboardInterrupt:
        print("\ninterrupted; the same command continues the work", file=sys.stderr)
        return 130


if __name__ == "__main__":
    redact_tracebacks()
    sys.exit(main())
