"""`manifest --divide` and `--except`: parts of a table that has no splits, and the photographs that a table lacks."""

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from data_prep.manifest import Row, Source, read_rows
from data_prep.readers.dataset import Division
from data_prep.readers.division import PARTS, describe, divide
from data_prep.readers.read import Reading
from maskedclip_composer.data.records import join_labels
from maskedclip_composer.errors import UserError

SEED = 17


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `--divide` and `--except`."""
    usual = Division()
    parser.add_argument(
        "--divide",
        nargs="*",
        type=float,
        metavar="SHARE",
        help="draw the parts train, val and test, equally of every label and patients whole: --divide TEST VAL, shares "
        f"of all and of what the test set leaves (default: {usual.test:g} {usual.val:g}; 0 for none). The same rows "
        "with the same labels are always divided alike",
    )
    parser.add_argument(
        "--except",
        dest="besides",
        type=Path,
        metavar="FILE",
        help="with --images alone: leave out the photographs that this table names",
    )


def division_of(args: argparse.Namespace) -> Division | None:
    """Return the shares that the command line asks for, None where it asks for no division.

    Raises:
        UserError: They are no two shares, or there is nothing to divide.
    """
    if args.divide is None:
        return None
    if args.csv is None:
        raise UserError("--divide divides the rows of a table; give it as --csv")
    if args.divide and (len(args.divide) != 2 or not all(0 <= share < 1 for share in args.divide)):
        given = " ".join(f"{share:g}" for share in args.divide)
        raise UserError(f"--divide {given}: give two shares from 0 to below 1, such as --divide 0.3 0.2")
    return Division(test=args.divide[0], val=args.divide[1]) if args.divide else Division()


def divided_rows(rows: Iterable[Row], root: Path | str, division: Division, *, by_texts: bool) -> Iterator[Row]:
    """Give every row its part, and say how they were drawn.

    Args:
        rows: Of a table without splits.
        root: Resolved folder that their images lie below.
        division: Shares of the parts.
        by_texts: Labels are in the texts (`--text-from-label`), as the table has them: so the same labels give the
            same parts, whatever becomes of them.

    Raises:
        UserError: The table has splits, or its photographs are in an object store.
    """
    if isinstance(root, str):
        raise UserError("--divide compares the photographs' files; copy them to a disk, or give a column split")
    rows = list(rows)
    if any(row.split for row in rows):
        raise UserError("--divide: the table has splits of its own; leave the option out, or the column split")
    # What is not there is told with the other unusable photographs, later.
    here = [index for index, row in enumerate(rows) if (root / row.image).is_file()]
    taken = [rows[index] for index in here]
    labels = [join_labels(row.texts if by_texts else row.labels) for row in taken]
    reading = Reading(kind="multilabel", rows=taken, codes=labels, left_out=[], notes=[])
    reading = divide(reading, root, division, SEED)
    parts = {index: row.split for index, row in zip(here, reading.rows, strict=True)}
    drawn = [part for part in PARTS if part in parts.values()]
    print("\n".join([*reading.notes, f"parts: {', '.join(f'{part} {_count(parts, part)}' for part in drawn)}"]))
    return (replace(row, split=parts.get(index, "train")) for index, row in enumerate(rows))


def account(division: Division) -> dict[str, list[str]]:
    """Say for the data card how the parts were drawn; no photograph is named."""
    return {"notes": [f"division: {describe(set(), division, SEED)}"]}


def without(rows: Iterable[Row], table: Path, root: Path | str) -> Iterator[Row]:
    """Leave out the photographs that a table names.

    Raises:
        UserError: The table cannot be read.
    """
    if not table.is_file():
        raise UserError(f"--except {table}: no such file")
    _, named = read_rows(Source(table=table, images=root, kind="unpaired"))
    known = {row.image for row in named}
    return (row for row in rows if row.image not in known)


def _count(parts: dict[int, str], part: str) -> int:
    return sum(found == part for found in parts.values())
