"""The commands `list` and `prepare`: known data sets in their official layout in, manifest or MDS shards out."""

import argparse
import csv
import io
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from data_prep.aside import write_text
from data_prep.convert import Conversion, add_conversion_options, convert
from data_prep.ledger import Rejected
from data_prep.manifest import Row
from data_prep.patients import only_patients
from data_prep.readers.catalogue import DATASETS, find
from data_prep.readers.dataset import Dataset
from data_prep.readers.layout import layout, missing
from data_prep.readers.read import Reading, read
from data_prep.readers.target import choose_target, target_name
from data_prep.readers.tree import Tree
from data_prep.split import add_division_options, divided, given_options
from data_prep.split_index import apply_index
from maskedclip_composer.data.folders import require_folder
from maskedclip_composer.data.records import BETWEEN, LEFT_OUT
from maskedclip_composer.data.schema import EVALUATION_KINDS, Kind
from maskedclip_composer.errors import UserError

LEFT_OUT_CSV = "left_out.csv"
_SEPARATORS = ("|", ";", "\uff0c", "\u2016")


def add_list_parser(subparsers: Any) -> None:
    """Register the command `list`."""
    parser = subparsers.add_parser(
        "list",
        help="show the known data sets: task, photographs, licence, where to get them",
        description="Show the data sets that `prepare` reads in their official layout.",
    )
    parser.set_defaults(run=_list)


def _list(args: argparse.Namespace) -> int:
    for role in dict.fromkeys(dataset.role for dataset in DATASETS.values()):
        print(f"{role}:")
        for dataset in DATASETS.values():
            if dataset.role != role:
                continue
            count = "" if dataset.count is None else f"{dataset.count:,} photographs, "
            print(f"  {dataset.name:16} {dataset.title}: {count}{dataset.task}")
            if dataset.licence:
                print(f"  {'':16} {dataset.licence}; {dataset.source}")
    return 0


def add_parser(subparsers: Any) -> None:
    """Register the command `prepare`."""
    parser = subparsers.add_parser(
        "prepare",
        help="convert a known data set in its official layout to MDS shards",
        description="Convert a known data set, as downloaded and unpacked, to MDS shards; `list` shows the names.",
        epilog="Exit status: as of the command manifest; with --expect 1 where something is missing.",
    )
    parser.add_argument("name", metavar="NAME", help="of the data set")
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of the data set as released")
    parser.add_argument("--expect", action="store_true", help="only show the layout, and what --root lacks of it")
    parser.add_argument("--manifest", type=Path, metavar="FILE.csv", help="write the table of rows; needs no --out")
    parser.add_argument("--kind", choices=get_args(Kind), help="default: what the set is used for")
    parser.add_argument("--target", help="which of its labels (default: the first that fits; --expect shows them)")
    parser.add_argument("--template", help="make texts from labels: 'A fundus photograph of {label}'")
    parser.add_argument(
        "--patients", type=Path, metavar="FILE", help="take only these patients, one a line, and leave the others out"
    )
    parser.add_argument(
        "--split-file",
        type=Path,
        metavar="FILE.csv",
        help="take the division of labelled records from the command split",
    )
    add_division_options(parser)
    add_conversion_options(parser, out_required=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prepare as the command line says; return the exit status."""
    dataset = find(args.name)
    if args.expect:
        return _expect(dataset, args.root)
    if args.root is None:
        raise UserError(f"prepare {dataset.name}: give --root DIR; --expect shows what must be there")
    if args.out is None and args.manifest is None:
        raise UserError(f"prepare {dataset.name}: give --out DIR for shards, --manifest FILE.csv for a table, or both")
    if args.manifest is not None and args.manifest.suffix.lower() != ".csv":
        raise UserError(f"--manifest {args.manifest}: give a file that ends in .csv")
    if args.template is not None and "{label}" not in args.template:
        raise UserError(f"--template {args.template!r} has no {{label}}; write 'A fundus photograph of {{label}}'")
    root = require_folder(args.root, "--root")
    reading = _divided(dataset, read(dataset, root, args.target, args.kind), root, args)
    if args.template is not None:
        reading = with_template(reading, args.template)
    print(_account(dataset, reading))
    if args.manifest is not None:
        write_text(args.manifest, manifest_csv(reading))
        write_text(args.manifest.with_name(f"{args.manifest.stem}.{LEFT_OUT_CSV}"), _left_out_csv(reading))
        print(f"{len(reading.rows)} rows written to {args.manifest}")
        if args.out is None:
            print(f"next: {_next_command(dataset, reading, args)}")
            return 0
    conversion = Conversion.of(args, crop=not dataset.cropped)
    return convert(
        conversion,
        root,
        reading.kind,
        rows_of(dataset, reading, args.target),
        dataset=dataset.name,
        licence=dataset.licence,
        # An official split is for evaluation: a stream of pre-training reads one folder.
        by_split=reading.kind in EVALUATION_KINDS,
        about=about(dataset, reading, args.target),
    )


def rows_of(dataset: Dataset, reading: Reading, target: str | None) -> Iterator[Row | Rejected]:
    """Yield the rows of a reading with what their data set says of all of them, then what was left out."""
    chosen = choose_target(dataset, target, reading.kind)
    names = (chosen.classes if chosen else None) or {}
    for row, codes in zip(reading.rows, reading.labels, strict=True):
        yield replace(row, licence=dataset.licence, label_name=BETWEEN.join(names.get(code, "") for code in codes))
    for image, reason in reading.left_out:
        yield Rejected(number=0, image=image, status=LEFT_OUT, reason=reason)


def about(dataset: Dataset, reading: Reading, target: str | None) -> dict[str, Any]:
    """Say where a data set comes from and what its labels mean, for report and data card."""
    chosen = choose_target(dataset, target, reading.kind)
    return {
        "name": dataset.name,
        "title": dataset.title,
        "source": dataset.source,
        "terms": dataset.terms,
        "citation": dataset.citation,
        "classes": dict(chosen.classes) if chosen and chosen.classes else {},
        "left_out": dict(Counter(reason for _, reason in reading.left_out)),
        "notes": reading.notes,
    }


def _expect(dataset: Dataset, root: Path | None) -> int:
    print(f"{dataset.title}: {dataset.task}")
    print(f"get it from {dataset.source}")
    print(f"licence: {dataset.licence or 'your own'}; {dataset.terms}")
    if dataset.citation:
        print(f"cite: {dataset.citation}")
    if dataset.targets:
        said = [name + " (--kind multilabel)" * target.several for name, target in dataset.targets.items()]
        print(f"targets: {', '.join(said)}")
    for trap in dataset.traps:
        print(f"note: {trap}")
    tree = None if root is None else Tree(require_folder(root, "--root"))
    print("layout:" if tree is None else f"layout, and what of it is in {root}:")
    print(layout(dataset, tree))
    absent = [] if tree is None else missing(dataset, tree)
    for what in absent:
        print(f"missing: {what}")
    return 1 if absent else 0


def _divided(dataset: Dataset, reading: Reading, root: Path, args: argparse.Namespace) -> Reading:
    """Take the chosen patients of a reading, and divide those that are for evaluation."""
    given = given_options(args) + ["--split-file"] * (args.split_file is not None)
    if args.patients is not None and args.split_file is None:
        reading = only_patients(reading, args.patients)
    if reading.kind not in EVALUATION_KINDS:
        if given:
            raise UserError(
                f"{given[0]} is for labelled records, these are {reading.kind}; leave it out, or --kind labelled"
            )
        return reading
    if args.split_file is None:
        return divided(dataset, reading, root, args)
    if len(given) > 1:
        raise UserError(f"{given[0]}: --split-file divides already; leave one of them out")
    target = target_name(dataset, args.target, reading.kind)
    reading = apply_index(reading, dataset, target, args.split_file, root)
    # Only now: an index names photographs of all its patients.
    return reading if args.patients is None else only_patients(reading, args.patients)


def with_template(reading: Reading, template: str) -> Reading:
    """Word the names of classes and findings by `template`, `{label}` standing for one; sentences stay."""
    if reading.kind != "paired":
        raise UserError(f"--template is for paired records, these are {reading.kind}; add --kind paired")
    rows = [
        replace(
            row,
            texts=tuple(
                text if kind == "sentence" else template.replace("{label}", text)
                for text, kind in zip(row.texts, row.kinds, strict=True)
            ),
            kinds=("sentence",) * len(row.texts),
        )
        for row in reading.rows
    ]
    return replace(reading, rows=rows)


def _account(dataset: Dataset, reading: Reading) -> str:
    lines = [f"{dataset.title}: {len(reading.rows)} {reading.kind} rows"]
    splits = Counter(row.split for row in reading.rows)
    if set(splits) != {""}:
        lines.append("splits: " + ", ".join(f"{name or 'none'} {count}" for name, count in splits.items()))
    if reading.left_out:
        lines.append(f"left out: {len(reading.left_out)} ({LEFT_OUT_CSV})")
        reasons = Counter(reason for _, reason in reading.left_out).most_common(20)
        lines += [f"  {count} {reason}" for reason, count in reasons]
    return "\n".join([*lines, *reading.notes])


def manifest_csv(reading: Reading) -> str:
    """Write the rows as a table for the command manifest.

    The official split of records that are not for evaluation goes to `official_split`, which that command passes over.
    """
    separator = _separator(reading)
    split = "split" if reading.kind in EVALUATION_KINDS else "official_split"
    columns = [
        "image",
        *(["text", "text_kind"] if reading.kind == "paired" else []),
        "label",
        "patient",
        "eye",
        split,
        "dataset",
    ]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in reading.rows:
        cells = {
            "text": separator.join(row.texts),
            "text_kind": separator.join(row.kinds),
            "label": separator.join(row.labels),
            split: row.split,
        }
        names = {"image": row.image, "patient": row.patient, "eye": row.eye, "dataset": row.dataset}
        writer.writerow(cells | names)
    return buffer.getvalue()


def _separator(reading: Reading) -> str:
    rows = reading.rows
    if reading.kind == "multilabel":
        return BETWEEN
    if max((len(row.texts) for row in rows), default=0) <= 1:
        return ""
    used = "".join(text for row in rows for text in (*row.texts, *row.labels))
    return next((mark for mark in _SEPARATORS if mark not in used), _SEPARATORS[-1])


def _left_out_csv(reading: Reading) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["image", "reason"])
    writer.writerows(reading.left_out)
    return buffer.getvalue()


def _next_command(dataset: Dataset, reading: Reading, args: argparse.Namespace) -> str:
    command = ["python", "-m", "data_prep", "manifest", "--csv", str(args.manifest), "--images", str(args.root)]
    command += ["--kind", reading.kind]
    separator = _separator(reading)
    command += ["--separator", separator] * bool(separator) + ["--no-crop"] * dataset.cropped
    return f"{shlex.join(command)} --out DIR"
