"""The command `manifest`: photographs and a table of them in, checked MDS shards out."""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from data_prep.convert import Conversion, add_conversion_options, convert
from data_prep.manifest import Source, read_rows
from data_prep.own_division import account, add_options, divided_rows, division_of, without
from data_prep.pseudonyms import Pseudonyms, add_option
from data_prep.readers.dataset import Division
from data_prep.remote import fetch_table, is_remote
from maskedclip_composer.data.folders import require_folder
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
        "--kind",
        choices=("auto", "paired", "unpaired", "labelled", "multilabel"),
        default="auto",
        help="default: by the columns; multilabel, every label that is true of an image, has to be said",
    )
    parser.add_argument(
        "--separator", metavar="TEXT", help="between the texts or labels of one cell (default: a cell is one)"
    )
    parser.add_argument("--template", help="make texts from labels: 'A fundus photograph of {label}'")
    parser.add_argument(
        "--text-from-label", action="store_true", help="take labels as texts, to be worded when training (data.prompts)"
    )
    parser.add_argument("--label-from-text", action="store_true", help="make every text a category of its own")
    parser.add_argument(
        "--dataset", metavar="NAME", help="data set of rows that name none (default: the folder's name)"
    )
    parser.add_argument("--licence", default="", metavar="TEXT", help="terms of the images, noted in report.json")
    add_options(parser)
    add_option(parser)
    add_conversion_options(parser, out_required=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert as the command line says; return the exit status."""
    conversion = Conversion.of(args)
    if args.csv is None and args.images is None:
        raise UserError("give --csv FILE, --images ROOT, or both")
    if args.besides is not None and args.csv is not None:
        raise UserError("--except leaves photographs of a folder out; of a table, take the rows out")
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


def _run(args: argparse.Namespace, conversion: Conversion, table: Path | None, root: Path | str) -> int:
    pseudonyms = None if args.hash_patients is None else Pseudonyms.of(args.hash_patients)
    if pseudonyms is not None and conversion.spark is not None:
        raise UserError("--hash-patients: Spark's tasks would write the names of files to its logs; leave --spark out")
    # Without a table the first folder would name the data set, and it may be a patient's.
    named = args.dataset or (Path(root).name if pseudonyms is not None and table is None else None)
    source = Source(
        table=table,
        images=root,
        kind=args.kind,
        separator=args.separator,
        template=args.template,
        label_from_text=args.label_from_text,
        text_from_label=args.text_from_label,
        dataset=named,
        licence=args.licence,
    )
    return convert_source(conversion, source, division_of(args), besides=args.besides, pseudonyms=pseudonyms)


def convert_source(
    conversion: Conversion,
    source: Source,
    division: Division | None = None,
    *,
    besides: Path | None = None,
    pseudonyms: Pseudonyms | None = None,
) -> int:
    """Convert the photographs that a table names, or all of a folder: the command `manifest` for other programs.

    Args:
        conversion: Where to, and how; worker processes import the calling script again, which therefore needs the
            guard `if __name__ == "__main__"`, or `workers=1`.
        source: The table and its photographs.
        division: Shares of test and validation photographs to draw; None keeps the table's own splits.
        besides: A table whose photographs are left out of a folder.
        pseudonyms: Under which patients and photographs go by.

    Returns:
        The command's exit status: 0, or 1 where more photographs than `conversion.max_bad` allows are unusable.

    Raises:
        UserError: The table or the destination is wrong; nothing was written.
    """
    kind, rows = read_rows(source)
    if besides is not None:
        rows = without(rows, besides, source.images)
    if division is not None:
        rows = divided_rows(rows, source.images, division, by_texts=source.text_from_label)
    return convert(
        conversion,
        source.images,
        kind,
        rows if pseudonyms is None else pseudonyms.of_rows(rows),
        dataset=source.dataset or source.name,
        licence=source.licence,
        about=None if division is None else account(division),
        pseudonyms=pseudonyms,
    )
