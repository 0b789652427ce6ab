"""The command `manifest`: photographs and a table of them in, checked MDS shards out."""

import argparse
import errno
import json
import os
import sqlite3
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep import card, records
from data_prep.contact_sheet import write_contact_sheet
from data_prep.folders import require_folder
from data_prep.ledger import Ledger, Rejected
from data_prep.manifest import Row, Source, read_rows
from data_prep.parts import Objection, write_part
from data_prep.photograph import Photograph, Recipe
from data_prep.pool import prepare_in_order
from data_prep.records import QUARANTINED
from data_prep.remote import fetch_table, is_remote, join
from data_prep.report import build_report, not_stored, rejected_csv, summary, write_records
from data_prep.writer import REPORT, Workplace, check_destination
from maskedclip_composer.data.schema import COLUMNS, Kind
from maskedclip_composer.errors import UserError


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "manifest",
        help="convert images listed in a table, or all below a folder, to MDS shards",
        description="Convert photographs to MDS shards: check, turn upright, crop to the retina, resize, strip "
        "metadata, write. A run that was killed continues where it stopped when it is started again.",
        epilog="Exit status: 0 done; 1 done, but more than --max-bad of the rows were quarantined (all of them: "
        "nothing is written); 2 wrong input, nothing was written.",
    )
    parser.add_argument(
        "--csv",
        metavar="FILE|URL",
        help="CSV, TSV, Parquet, JSON-lines or Excel table with the columns image[, text][, text_kind][, label]"
        "[, patient][, eye][, visit][, split][, dataset][, licence]; without it every image below --images becomes an "
        "unpaired row",
    )
    parser.add_argument(
        "--images",
        metavar="ROOT|URL",
        help="folder or s3://... that the image paths start from (default: the table's)",
    )
    parser.add_argument(
        "--kind", choices=("auto", "paired", "unpaired", "labelled"), default="auto", help="default: by the columns"
    )
    parser.add_argument("--separator", metavar="TEXT", help="between the texts of one cell (default: a cell is one)")
    parser.add_argument("--template", help="make texts from labels: 'A fundus photograph of {label}'")
    parser.add_argument(
        "--text-from-label", action="store_true", help="take labels as texts, to be worded when training (data.prompts)"
    )
    parser.add_argument("--label-from-text", action="store_true", help="make every text a category of its own")
    parser.add_argument(
        "--dataset", metavar="NAME", help="data set of rows that name none (default: the folder's name)"
    )
    parser.add_argument("--licence", default="", metavar="TEXT", help="terms of the images, noted in report.json")
    add_conversion_options(parser, out_required=True)
    parser.set_defaults(run=run)


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
        "--max-bad", type=float, default=0.02, metavar="SHARE", help="quarantined rows allowed (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per CPU)")
    parser.add_argument(
        "--part", type=int, default=1024, metavar="ROWS", help="unit of resuming; a shard ends there (default: 1024)"
    )
    parser.add_argument("--work", type=Path, metavar="DIR", help="folder for unfinished work (default: OUT.partial)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier result in --out")


def run(args: argparse.Namespace) -> int:
    """Convert as the command line says; return the exit status."""
    conversion = Conversion.of(args)
    if args.csv is None and args.images is None:
        raise UserError("give --csv FILE, --images ROOT, or both")
    images = args.images or os.path.dirname(args.csv) or "."
    with tempfile.TemporaryDirectory(prefix="data_prep-") as folder:
        if args.csv is None:
            table = None
        elif is_remote(args.csv):
            table = fetch_table(args.csv, Path(folder))
        else:
            table = Path(args.csv)
            if not table.is_file():
                raise UserError(f"--csv {args.csv}: no such file")
        root = images.rstrip("/") if is_remote(images) else require_folder(Path(images), "image root (--images)")
        return _run(args, conversion, table, root)


def _run(args: argparse.Namespace, conversion: "Conversion", table: Path | None, root: Path | str) -> int:
    source = Source(
        table=table,
        images=root,
        kind=args.kind,
        separator=args.separator,
        template=args.template,
        label_from_text=args.label_from_text,
        text_from_label=args.text_from_label,
        dataset=args.dataset,
        licence=args.licence,
    )
    kind, rows = read_rows(source)
    dataset = args.dataset or source.name
    return convert(conversion, source.images, kind, rows, dataset=dataset, licence=args.licence)


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

    def __post_init__(self) -> None:
        if not 0 <= self.max_bad <= 1:
            raise UserError(f"--max-bad {self.max_bad}: give a share from 0 to 1")
        if self.part < 1:
            raise UserError(f"--part {self.part}: give a number of rows from 1")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers {self.workers}: give a number from 1")

    @classmethod
    def of(cls, args: argparse.Namespace, *, crop: bool = True) -> "Conversion":
        """Take the options from the command line; `crop` says whether the photographs have a surround at all."""
        return cls(
            out=args.out,
            recipe=Recipe(size=args.size, crop=crop and not args.no_crop, quality=args.quality),
            max_bad=args.max_bad,
            workers=args.workers,
            part=args.part,
            work=args.work,
            overwrite=args.overwrite,
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

    Raises:
        UserError: The destination is wrong, or the disk is full; nothing was published.
    """
    workplace = Workplace(conversion.out, conversion.work)
    check_destination(conversion.out, conversion.overwrite, workplace.begun(conversion.out))
    options = asdict(conversion.recipe)
    workplace.open()
    try:
        plan = options | {"images": str(root), "kind": kind, "columns": COLUMNS[kind]}
        ledger, same = workplace.plan(rows, plan, part_rows=conversion.part, by_split=by_split)
        if same:
            print(f"continuing the unfinished run in {workplace.folder}", file=sys.stderr)
        _convert(workplace, ledger, kind, root, conversion, objection)
        tree = workplace.assemble(ledger.parts())
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
) -> None:
    """Do the parts that are not finished."""
    workers = conversion.workers or len(os.sched_getaffinity(0))
    todo = ledger.parts(open_only=True)
    missing, total = sum(part.size for part in todo), ledger.num_rows()

    def paths() -> Iterator[str]:
        for part in todo:
            for row in ledger.rows(part):
                yield join(root, row.image) if isinstance(root, str) else str(root / row.image)

    with tqdm(total=total, initial=total - missing, unit="image", disable=None) as progress:
        # A handful of photographs is done before a second process is up.
        prepared = prepare_in_order(paths(), conversion.recipe, workers if missing > 8 else 1)
        for part in todo:
            ledger.reopen(part)
            photographs = _counted(islice(prepared, part.size), progress)
            folder = workplace.parts / part.name
            ledger.finish(part, write_part(folder, kind, ledger.rows(part), photographs, objection))


def _counted(photographs: Iterator[Photograph | str], progress: Any) -> Iterator[Photograph | str]:
    for photograph in photographs:
        progress.update()
        yield photograph
