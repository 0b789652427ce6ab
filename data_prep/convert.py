"""The command `manifest`: photographs and a table of them in, checked MDS shards out."""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.folders import require_folder
from data_prep.manifest import Rejected, Row, Source, read_rows
from data_prep.photograph import Photograph, Recipe, prepare
from data_prep.report import Outcome, Result, build_report, quarantine, quarantine_csv, summary
from data_prep.writer import REPORT, Workplace, check_destination
from maskedclip_composer.data.schema import COLUMNS, Kind
from maskedclip_composer.errors import UserError

_BATCH = 8  # photographs handed to a worker at a time: amortises the pipe, keeps the order's look-ahead short


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
        type=Path,
        metavar="FILE",
        help="CSV, TSV, Parquet, JSON-lines or Excel table with the columns image[, text][, label][, patient][, eye]"
        "[, split][, dataset]; without it every image below --images becomes an unpaired row",
    )
    parser.add_argument(
        "--images", type=Path, metavar="ROOT", help="folder that the image paths start from (default: the table's)"
    )
    parser.add_argument(
        "--kind", choices=("auto", "paired", "unpaired", "labelled"), default="auto", help="default: by the columns"
    )
    parser.add_argument("--separator", metavar="TEXT", help="between the texts of one cell (default: a cell is one)")
    parser.add_argument("--template", help="make texts from labels: 'A fundus photograph of {label}'")
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
    if args.csv is None and args.images is None:
        raise UserError("give --csv FILE, --images ROOT, or both")
    if args.csv is not None and not args.csv.is_file():
        raise UserError(f"--csv {args.csv}: no such file")
    source = Source(
        table=args.csv,
        images=require_folder(args.images or args.csv.parent, "image root (--images)"),
        kind=args.kind,
        separator=args.separator,
        template=args.template,
        label_from_text=args.label_from_text,
        dataset=args.dataset,
    )
    kind, rows, repeated = read_rows(source)
    return convert(args, source.images, kind, rows, repeated, licence=args.licence)


def convert(
    args: argparse.Namespace,
    root: Path,
    kind: Kind,
    rows: list[Row],
    repeated: list[Rejected],
    *,
    licence: str,
    by_split: bool = True,
    about: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
) -> int:
    """Convert checked rows as the options of `add_conversion_options` say; return the exit status.

    Args:
        args: Those options.
        root: Resolved folder that the rows' images lie below.
        kind: Of all rows.
        rows: Photographs to convert, each once.
        repeated: Rows that are quarantined before.
        licence: Terms of the images, noted in report.json.
        by_split: Whether each split becomes a folder of its own.
        about: More to note there.
        files: More text files for the destination, name -> content.

    Raises:
        UserError: An option or the destination is wrong; nothing was written.
    """
    recipe = Recipe(size=args.size, crop=not args.no_crop, quality=args.quality)
    if not 0 <= args.max_bad <= 1:
        raise UserError(f"--max-bad {args.max_bad}: give a share from 0 to 1")
    if args.part < 1:
        raise UserError(f"--part {args.part}: give a number of rows from 1")
    workers = len(os.sched_getaffinity(0)) if args.workers is None else args.workers
    if workers < 1:
        raise UserError(f"--workers {workers}: give a number from 1")
    check_destination(args.out, args.overwrite)

    options = asdict(recipe)
    plan = {"images": str(root), "kind": kind, "part": args.part, "by_split": by_split}
    plan["rows"] = [asdict(row) for row in rows]
    workplace = Workplace(args.out, args.work)
    if workplace.open(plan | {"recipe": options, "columns": COLUMNS[kind]}):
        print(f"continuing the unfinished run in {workplace.folder}", file=sys.stderr)
    try:
        results, splits = _convert(workplace, kind, rows, args.part, root, recipe, workers, by_split)
        report = build_report(kind, results, repeated, options, licence) | dict(about or {})
        rejected = quarantine(results, repeated)
        if report["stored"] == 0:
            print(summary(report, rejected, "nowhere: no image can be used"), file=sys.stderr)
            return 1
        tree = workplace.assemble(splits)
        (tree / "quarantine.csv").write_text(quarantine_csv(rejected), encoding="utf-8")
        for name, text in (files or {}).items():
            (tree / name).write_text(text, encoding="utf-8")
        (tree / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        workplace.publish(tree, args.out)
    finally:
        workplace.close()
    print(summary(report, rejected, args.out))
    if len(rejected) > args.max_bad * report["rows"]:
        share = len(rejected) / report["rows"]
        print(f"{share:.1%} of the rows are quarantined, --max-bad allows {args.max_bad:.1%}", file=sys.stderr)
        return 1
    return 0


def _convert(
    workplace: Workplace,
    kind: Kind,
    rows: list[Row],
    part_rows: int,
    root: Path,
    recipe: Recipe,
    workers: int,
    by_split: bool,
) -> tuple[list[Result], dict[str, list[str]]]:
    """Do the parts that are not finished; return what became of all rows and the parts of each split."""
    parts: list[tuple[str, str, list[Row]]] = []  # split, name, rows
    for split in dict.fromkeys(row.split for row in rows) if by_split else ("",):
        of_split = [row for row in rows if row.split == split] if by_split else rows
        for start in range(0, len(of_split), part_rows):
            parts.append((split, f"{len(parts):05}", of_split[start : start + part_rows]))

    # A finished part with rejected rows is done again: the user may have mended the files.
    records = {name: workplace.record(name) for _, name, _ in parts}
    records = {name: r for name, r in records.items() if r and not any(o["reason"] for o in r)}
    todo = [(name, part) for _, name, part in parts if name not in records]
    paths = [str(root / row.image) for _, part in todo for row in part]
    with tqdm(total=len(rows), initial=len(rows) - len(paths), unit="image", disable=None) as progress:
        prepared = _prepare_in_order(paths, recipe, workers)
        for name, part in todo:
            outcomes: list[Outcome] = []
            samples = _samples(kind, part, prepared, outcomes, progress)
            # The records hold what `samples` has appended by the time that all are written.
            workplace.finish_part(name, COLUMNS[kind], samples, lambda found=outcomes: [asdict(o) for o in found])
            records[name] = [asdict(o) for o in outcomes]
    results: list[Result] = []
    splits: dict[str, list[str]] = {}
    for split, name, part in parts:
        outcomes = [Outcome(**fields) for fields in records[name]]
        results += zip(part, outcomes, strict=True)
        if any(not outcome.reason for outcome in outcomes):
            splits.setdefault(split, []).append(name)
    return results, splits


def _samples(
    kind: Kind, part: list[Row], prepared: Iterator[Photograph | str], outcomes: list[Outcome], progress: Any
) -> Iterator[dict[str, Any]]:
    """Yield the MDS samples of a part, noting in `outcomes` what became of every row."""
    for row, photograph in zip(part, islice(prepared, len(part)), strict=True):
        progress.update()
        if isinstance(photograph, str):
            outcomes.append(Outcome(reason=photograph))
            continue
        outcomes.append(
            Outcome(
                sha256=photograph.sha256,
                crop=photograph.crop.status,
                verbatim=photograph.verbatim,
                num_bytes=len(photograph.data),
            )
        )
        sample = {
            "image": photograph.data,
            "width": photograph.width,
            "height": photograph.height,
            "dataset": row.dataset,
            "patient": row.patient,
            "eye": row.eye,
            "split": row.split,
            "source": row.image,
            "sha256": photograph.sha256,
            "crop": {"status": photograph.crop.status, "box": photograph.crop.box},
        }
        if kind == "paired":
            sample |= {"texts": list(row.texts), "labels": list(row.labels)}
        elif kind == "labelled":
            sample["label"] = row.labels[0]
        yield sample


def _prepare_in_order(paths: list[str], recipe: Recipe, workers: int) -> Iterator[Photograph | str]:
    """Prepare photographs in worker processes, with a bounded look-ahead; results come in the order of `paths`."""
    if workers == 1 or len(paths) <= _BATCH:
        yield from (prepare(path, recipe) for path in paths)
        return
    # Streaming has started threads by now, which makes a fork unsafe.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    waiting: deque[Future[list[Photograph | str]]] = deque()
    try:
        for start in range(0, len(paths), _BATCH):
            waiting.append(pool.submit(_prepare_batch, paths[start : start + _BATCH], recipe))
            if len(waiting) >= 4 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed, most often for want of memory; run the same command again with fewer "
            f"--workers (now {workers}): finished parts are kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare_batch(paths: list[str], recipe: Recipe) -> list[Photograph | str]:
    return [prepare(path, recipe) for path in paths]


def _start_worker() -> None:
    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the pool in order
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        # A worker holds both ends of the task queue: when the parent is killed it would wait for ever.
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
