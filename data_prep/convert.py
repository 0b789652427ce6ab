"""From checked rows to published MDS shards: what every command that converts photographs runs."""

import argparse
import errno
import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep import card, spark
from data_prep.contact_sheet import write_contact_sheet
from data_prep.ledger import Ledger, Part, Rejected
from data_prep.manifest import Row
from data_prep.parts import Objection, write_part
from data_prep.photograph import Photograph
from data_prep.pool import prepare_in_order
from data_prep.pseudonyms import Pseudonyms
from data_prep.remote import locate
from data_prep.report import build_report, not_stored, rejected_csv, summary, write_records
from data_prep.writer import Workplace, check_destination, replace_folder
from maskedclip_composer.data import records
from maskedclip_composer.data.photograph import ENCODINGS, REPORT, Recipe
from maskedclip_composer.data.records import QUARANTINED
from maskedclip_composer.data.schema import COLUMNS, Kind
from maskedclip_composer.errors import UserError


def add_conversion_options(parser: argparse.ArgumentParser, *, out_required: bool) -> None:
    """Add the options of `convert` to a command: where to write, what to do to a photograph, how to work."""
    parser.add_argument(
        "--out", required=out_required, metavar="DIR|URL", help="folder, or s3://... and other cloud addresses"
    )
    recipe = Recipe()
    parser.add_argument("--size", type=int, default=recipe.size, help="short side; 0 keeps (default: %(default)s)")
    parser.add_argument("--no-crop", action="store_true", help="keep what surrounds the retina")
    parser.add_argument("--quality", type=int, default=recipe.quality, help="JPEG quality (default: %(default)s)")
    parser.add_argument(
        "--encoding",
        choices=ENCODINGS,
        default=recipe.encoding,
        help="raw stores plain pixels: some 20 times the bytes, nothing to decode in training (default: %(default)s)",
    )
    parser.add_argument(
        "--max-bad", type=float, default=0.02, metavar="SHARE", help="quarantined rows allowed (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per CPU)")
    parser.add_argument(
        "--spark",
        metavar="MASTER",
        help="convert on Spark: spark://host:7077, local[4] or another master; images and work folder must lie on a "
        "file system that its machines share under the same paths; the shards of each part get a sub-folder",
    )
    parser.add_argument(
        "--part", type=int, default=1024, metavar="ROWS", help="unit of resuming; a shard ends there (default: 1024)"
    )
    parser.add_argument("--work", type=Path, metavar="DIR", help="folder for unfinished work (default: OUT.partial)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier result in --out")


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Where to write, what to do to a photograph, how to work: the options of `add_conversion_options`."""

    out: str
    recipe: Recipe = field(default_factory=Recipe)
    max_bad: float = 0.02
    workers: int | None = None
    part: int = 1024
    work: Path | None = None
    overwrite: bool = False
    spark: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.max_bad <= 1:
            raise UserError(f"--max-bad {self.max_bad}: give a share from 0 to 1")
        if self.part < 1:
            raise UserError(f"--part {self.part}: give a number of rows from 1")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers {self.workers}: give a number from 1")
        if self.spark is not None:
            spark.check_options(self.spark, self.out, self.work, self.workers)

    @classmethod
    def of(cls, args: argparse.Namespace, *, crop: bool = True) -> "Conversion":
        """Take the options from the command line; `crop` says whether the photographs have a surround at all."""
        return cls(
            out=args.out,
            recipe=Recipe(size=args.size, crop=crop and not args.no_crop, quality=args.quality, encoding=args.encoding),
            max_bad=args.max_bad,
            workers=args.workers,
            part=args.part,
            work=args.work,
            overwrite=args.overwrite,
            spark=args.spark,
        )


def convert(
    conversion: Conversion,
    root: Path | str,
    kind: Kind,
    rows: Iterable[Row | Rejected],
    *,
    dataset: str,
    licence: str,
    by_split: bool = True,
    about: Mapping[str, Any] | None = None,
    objection: Objection | None = None,
    pseudonyms: Pseudonyms | None = None,
) -> int:
    """Convert checked rows; return the exit status.

    Args:
        conversion: How.
        root: Resolved folder, or URL, that the rows' images lie below.
        kind: Of all rows.
        rows: Photographs to convert, and rows that are not to be; read to the end before a photograph is opened.
        dataset: Name for the rejected ones among them.
        licence: Terms of the images, noted in report.json.
        by_split: Whether each split becomes a folder of its own.
        about: What the data set says of itself, see `prepare.about`; noted there and in the data card.
        objection: Keeps photographs of test sets out, see `parts.py`.
        pseudonyms: Under which the rows' images go by.

    Raises:
        UserError: The destination is wrong, or the disk is full; nothing was published.
    """
    workplace = Workplace(conversion.out, conversion.work)
    check_destination(conversion.out, conversion.overwrite, workplace.begun(conversion.out))
    options = conversion.recipe.options() | (pseudonyms.options() if pseudonyms is not None else {})
    original = pseudonyms.original if pseudonyms is not None else str
    workplace.open()
    try:
        plan = options | {"images": str(root), "kind": kind, "columns": COLUMNS[kind]}
        ledger, same = workplace.plan(rows, plan, part_rows=conversion.part, by_split=by_split)
        if same:
            print(f"continuing the unfinished run in {workplace.folder}", file=sys.stderr)
        _convert(workplace, ledger, kind, root, conversion, objection, original)
        join = workplace.assemble if conversion.spark is None else workplace.merge
        tree = join(ledger.parts())
        tally = write_records(ledger, tree, dataset=dataset)
        report = build_report(kind, tally, ledger, options, licence)
        about = {"name": dataset, **(about or {}), "identical": report["identical"]}
        rejected = list(not_stored(ledger))
        left_out = [row for row in rejected if row.status != QUARANTINED]
        rejected = [row for row in rejected if row.status == QUARANTINED]
        ledger.close()
        if report["stored"] == 0:
            print(summary(report, rejected, "nowhere: no image can be used"), file=sys.stderr)
            return 1
        (tree / "quarantine.csv").write_text(rejected_csv(rejected), encoding="utf-8")
        (tree / "left_out.csv").write_text(rejected_csv(left_out), encoding="utf-8")
        title = f"{about.get('title', dataset)}, {kind}"
        (tree / card.NAME).write_text(card.card(title, tally, [about], options), encoding="utf-8")
        write_contact_sheet(tree, tree / records.NAME)
        report["about"] = {name: value for name, value in about.items() if name != "identical"}
        (tree / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        workplace.publish(conversion.out)
    except (OSError, sqlite3.OperationalError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "disk is full" in str(error)
        if not full:
            raise
        raise UserError(
            f"no space is left for {workplace.folder}; make room, or give --work on another disk, and run the same "
            "command again: finished parts are kept"
        ) from error
    finally:
        workplace.close()
    print(summary(report, rejected, conversion.out))
    if len(rejected) > conversion.max_bad * report["rows"]:
        share = len(rejected) / report["rows"]
        print(f"{share:.1%} of the rows are quarantined, --max-bad allows {conversion.max_bad:.1%}", file=sys.stderr)
        return 1
    return 0


def _convert(
    workplace: Workplace,
    ledger: Ledger,
    kind: Kind,
    root: Path | str,
    conversion: Conversion,
    objection: Objection | None,
    original: Callable[[str], str],
) -> None:
    """Do the parts that are not finished."""
    todo = ledger.parts(open_only=True)
    missing, total = sum(part.size for part in todo), ledger.num_rows()
    with tqdm(total=total, initial=total - missing, unit="image", disable=None) as progress:
        if conversion.spark is None:
            _convert_here(workplace, ledger, todo, kind, root, conversion, objection, original, progress)
        elif todo:
            task = spark.Task(kind=kind, root=root, recipe=conversion.recipe, objection=objection)
            for part, folder, outcomes in spark.convert_parts(conversion.spark, workplace, ledger, todo, task):
                ledger.reopen(part)
                replace_folder(folder, workplace.parts / part.name)
                ledger.finish(part, outcomes)
                progress.update(part.size)


def _convert_here(
    workplace: Workplace,
    ledger: Ledger,
    todo: list[Part],
    kind: Kind,
    root: Path | str,
    conversion: Conversion,
    objection: Objection | None,
    original: Callable[[str], str],
    progress: Any,
) -> None:
    workers = conversion.workers or len(os.sched_getaffinity(0))

    def paths() -> Iterator[str]:
        for part in todo:
            for row in ledger.rows(part):
                yield locate(root, original(row.image))

    # A handful of photographs is done before a second process is up.
    few = sum(part.size for part in todo) <= 8
    prepared = prepare_in_order(paths(), conversion.recipe, 1 if few else workers)
    for part in todo:
        ledger.reopen(part)
        photographs = _counted(islice(prepared, part.size), progress)
        folder = workplace.parts / part.name
        ledger.finish(part, write_part(folder, kind, ledger.rows(part), photographs, objection))


def _counted(photographs: Iterator[Photograph | str], progress: Any) -> Iterator[Photograph | str]:
    for photograph in photographs:
        progress.update()
        yield photograph
