"""What all data set readers share: the command line, the manifest file and the account of what was left out.

A reader is a module with `read(root, ...) -> Reading` and an `add_parser` that calls `add_reader`.
"""

import argparse
import csv
import io
import os
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.folders import require_folder
from data_prep.manifest import COLUMNS
from maskedclip_composer.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a reader found.

    Attributes:
        rows: Manifest rows, with keys from `data_prep.manifest.COLUMNS`; `image` is relative to the root.
        left_out: (image or sheet entry, reason) of what did not become a row.
        notes: Other things to know, one line each.
        options: Options that the command `manifest` needs for these rows.
    """

    rows: list[dict[str, str]]
    left_out: list[tuple[str, str]]
    notes: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def add_reader(
    subparsers: Any, name: str, title: str, layout: str, read: Callable[[Path, argparse.Namespace], Reading]
) -> argparse.ArgumentParser:
    """Register the command `name`, which reads the data set below --root and writes its manifest to --out."""
    parser = subparsers.add_parser(
        name,
        help=f"write the manifest of {title}",
        description=f"Write the manifest of {title}, to be converted with the command manifest.",
        epilog=f"Layout below --root:\n{layout}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set as released")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.csv", help="manifest to write")

    def run(args: argparse.Namespace) -> int:
        if args.out.suffix.lower() != ".csv":
            raise UserError(f"--out {args.out}: give a file that ends in .csv")
        reading = read(require_folder(args.root, "--root"), args)
        if not reading.rows:
            raise UserError(f"--root {args.root}: no row is left; the images and the sheet do not belong together")
        left_out = args.out.with_name(f"{args.out.stem}.left_out.csv")
        _write_csv(args.out, [column for column in COLUMNS if column in reading.rows[0]], reading.rows)
        _write_csv(left_out, ["image", "reason"], [{"image": i, "reason": r} for i, r in reading.left_out])
        print(_account(reading, args, left_out))
        return 0

    parser.set_defaults(run=run)
    return parser


def _account(reading: Reading, args: argparse.Namespace, left_out: Path) -> str:
    lines = [f"{len(reading.rows)} rows written to {args.out}"]
    splits = Counter(row.get("split", "") for row in reading.rows)
    if set(splits) != {""}:
        lines.append("splits: " + ", ".join(f"{name} {count}" for name, count in splits.items()))
    if reading.left_out:
        lines.append(f"left out: {len(reading.left_out)} ({left_out})")
        lines += [f"  {count} {reason}" for reason, count in Counter(r for _, r in reading.left_out).most_common()]
    lines += reading.notes
    command = ["python", "-m", "data_prep", "manifest", "--csv", str(args.out), "--images", str(args.root)]
    lines.append(f"next: {shlex.join([*command, *reading.options])} --out DIR")
    return "\n".join(lines)


def _write_csv(path: Path, columns: list[str], rows: list[dict[str, str]]) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(buffer.getvalue(), encoding="utf-8")
    os.replace(aside, path)
