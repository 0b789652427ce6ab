"""The command `split`: the division of a labelled data set and its label fractions as index files."""

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_prep.aside import write_text
from data_prep.readers.catalogue import find
from data_prep.readers.dataset import Dataset, Division
from data_prep.readers.division import PARTS, divide
from data_prep.readers.read import Reading, read
from data_prep.readers.target import evaluation_kind, target_name
from data_prep.split_index import index_csv, index_json, index_name
from maskedclip_composer.data.folders import require_folder
from maskedclip_composer.errors import UserError


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "split",
        help="write the division of a labelled data set and its label fractions as index files",
        description="Divide a known data set into train, val and test, draw nested label fractions of train, and write "
        "both as FOLDER/NAME[-TARGET].csv with a description beside it (.json). The same command on the same "
        "photographs writes the same bytes; `prepare --split-file` uses them.",
    )
    parser.add_argument("name", metavar="NAME", help="of the data set")
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder of the data set as released")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for the two files")
    parser.add_argument("--target", help="which of its labels (default: the first)")
    add_division_options(parser)
    parser.add_argument("--draws", type=int, default=5, help="of label fractions (default: %(default)s)")
    parser.add_argument("--hash", action="store_true", help="add the sha256 of every photograph")
    parser.set_defaults(run=run)


def add_division_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `divided` reads."""
    parser.add_argument(
        "--test",
        type=float,
        metavar="SHARE",
        help="of all photographs, for the test set, where the set has no official one (default: the data set's own "
        "share, see docs/splits.md; 0 for none)",
    )
    parser.add_argument(
        "--val",
        type=float,
        metavar="SHARE",
        help="of what is not in the test set, for validation, where the set has no official one (default: the same)",
    )
    parser.add_argument("--redraw", action="store_true", help="set the official split aside and draw all parts")
    parser.add_argument("--seed", type=int, default=17, help="of the parts that are drawn (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Write the index as the command line says; return the exit status."""
    dataset = find(args.name)
    if args.draws < 0:
        raise UserError(f"--draws {args.draws}: give a number from 0")
    root = require_folder(args.root, "--root")
    kind = evaluation_kind(dataset, args.target)
    whole = read(dataset, root, args.target, kind)
    reading = divided(dataset, whole, root, args)
    target = target_name(dataset, args.target, kind)
    table = index_csv(reading, args.draws, root if args.hash else None)
    path = args.out / f"{index_name(dataset, target)}.csv"
    write_text(path, table)
    # Last: a table without its description is not checked, one with an old description is refused.
    notes = reading.notes[len(whole.notes) :]  # the others name sheets, whose paths depend on --root
    description = index_json(reading, dataset, target, table, seed=args.seed, draws=args.draws, notes=notes)
    write_text(path.with_suffix(".json"), description)
    counts = Counter(row.split for row in reading.rows)
    print("\n".join(reading.notes))
    print(f"{', '.join(f'{name} {counts[name]}' for name in PARTS)} written to {path}")
    options = f" --kind {kind}" * (kind != dataset.kind) + f" --target {target}" * (args.target is not None)
    where = f"--root {args.root} --split-file {path}"
    print(f"next: python -m data_prep prepare {dataset.name}{options} {where} --out DIR")
    return 0


def given_options(args: argparse.Namespace) -> list[str]:
    """Name the options of a division that the command line gives."""
    given = {"--test": args.test is not None, "--val": args.val is not None, "--redraw": args.redraw}
    return [option for option, is_given in given.items() if is_given]


def divided(dataset: Dataset, reading: Reading, root: Path, args: argparse.Namespace) -> Reading:
    """Divide labelled rows as `add_division_options` says.

    Raises:
        UserError: A share is out of range, or is given for a part that is official.
    """
    if args.redraw:
        reading = replace(reading, rows=[replace(row, split="") for row in reading.rows])
    official = {row.split for row in reading.rows}
    shares = {name: share for name, share in (("test", args.test), ("val", args.val)) if share is not None}
    division = replace(dataset.division, **shares)
    for name in shares:
        if name in official:
            raise UserError(
                f"--{name} {shares[name]}: the split {name} of {dataset.title} is official; leave the option out, or "
                "set the official split aside with --redraw"
            )
    return divide_set(dataset, reading, root, args.target, division, args.seed)


def divide_set(
    dataset: Dataset, reading: Reading, root: Path, target: str | None, division: Division, seed: int
) -> Reading:
    """Divide labelled rows; identical photographs are compared in all labellings of the set."""
    chosen = target_name(dataset, target, reading.kind)
    others = {
        name: _codes(read(dataset, root, name, of_set.kind))
        for name, of_set in dataset.targets.items()
        if name != chosen
    }
    return divide(reading, root, division, seed, others)


def _codes(reading: Reading) -> dict[str, str]:
    return {row.image: code for row, code in zip(reading.rows, reading.codes, strict=True)}
