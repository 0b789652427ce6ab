"""The command `build`: many known data sets in, paired, unpaired and downstream shards with one manifest out."""

import argparse
import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from data_prep import card
from data_prep.aside import write_text
from data_prep.build_config import GROUPS, BuildConfig, Group
from data_prep.contamination import Contamination, TestPhotographs, contamination_csv
from data_prep.convert import Conversion, convert
from data_prep.duplicates import find_duplicates
from data_prep.ledger import Rejected
from data_prep.manifest import Row
from data_prep.prepare import about, rows_of, with_template
from data_prep.readers.catalogue import find
from data_prep.readers.dataset import Dataset
from data_prep.readers.read import Reading, read
from data_prep.readers.target import evaluation_kind
from data_prep.split import divide_set
from data_prep.writer import Workplace, check_destination, link
from maskedclip_composer.cards.tally import Tally
from maskedclip_composer.config_file import load_config
from maskedclip_composer.data import records
from maskedclip_composer.data.photograph import REPORT
from maskedclip_composer.errors import UserError

CONTAMINATION = "contamination.csv"


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A data set that was found and read."""

    group: Group
    dataset: Dataset
    root: Path
    reading: Reading
    target: str | None
    duplicates: tuple[Rejected, ...] = ()

    @property
    def place(self) -> str:
        """Its folder in the result."""
        return f"{self.group}/{self.dataset.name}"

    def rows(self) -> Iterator[Row | Rejected]:
        """Yield what is to be converted, then what is not."""
        yield from rows_of(self.dataset, self.reading, self.target)
        yield from self.duplicates


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "build",
        help="prepare all data sets of a yaml: paired/, unpaired/ and downstream/ with one manifest and data card",
        description="Prepare many known data sets at once. Photographs of downstream test sets are kept out of those "
        "for pre-training. A build that was killed continues when it is started again.",
        epilog="Exit status: 0 done; 1 a set has more unusable photographs than max_bad allows, nothing is published; "
        "2 wrong input.",
    )
    parser.add_argument("config", metavar="FILE.yaml", help="for example yamls/data/maskedclip-paper.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example roots=DIR out=s3://bucket/data")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build as the yaml says; return the exit status."""
    config = load_config(BuildConfig, args.config, args.overrides)
    workplace = Workplace(config.out, Path(config.work) if config.work else None)
    check_destination(config.out, False, workplace.begun(config.out))
    sources = _read_all(config)
    workplace.open()
    try:
        prepared = workplace.folder / "sets"
        refused = None
        for source in sources:
            if source.group != "downstream" and config.contamination == "exclude":
                refused = refused or _test_photographs(sources, prepared)
            status = _prepare(config, source, prepared / source.place, refused)
            if status:
                print(f"{source.place}: stopped; mend it, or raise max_bad, and start again", file=sys.stderr)
                return status
        _join(prepared, workplace.tree, sources, config)
        workplace.publish(config.out)
    finally:
        workplace.close()
    print(f"{len(sources)} data sets written to {config.out}; {config.out}/DATA_CARD.md says what is in them")
    return 0


def _read_all(config: BuildConfig) -> list[_Source]:
    """Find and read every set, before anything is written; tell all that is wrong at once."""
    sources, absent, wrong = [], [], []
    for group, name, chosen in config.sets():
        dataset = find(name)
        root = Path(chosen.root) if chosen.root else Path(config.roots) / name
        if not root.is_dir():
            absent.append(f"{group}.{name}: no folder {root}; get it from {dataset.source}")
            continue
        try:
            kind = evaluation_kind(dataset, chosen.target) if group == "downstream" else group
            reading = read(dataset, root.resolve(), chosen.target, kind)
            if group == "downstream":
                division = dataset.division
                reading = divide_set(dataset, reading, root.resolve(), chosen.target, division, config.seed)
            if chosen.template is not None:
                reading = with_template(reading, chosen.template)
        except UserError as error:
            wrong.append(f"{group}.{name}: {error}")
            continue
        sources.append(
            _Source(group=group, dataset=dataset, root=root.resolve(), reading=reading, target=chosen.target)
        )
    if absent and not config.skip_missing:
        wrong = [*absent, "(skip_missing=true goes on without them)", *wrong]
    if wrong:
        raise UserError("\n".join(wrong))
    for line in absent:
        print(f"skipped: {line}", file=sys.stderr)
    if not sources:
        raise UserError(f"roots={config.roots}: none of the data sets is there")
    return _first_of_each(sources) if config.duplicates == "first" else sources


def _first_of_each(sources: list[_Source]) -> list[_Source]:
    """Take out of every set for pre-training what an earlier row or set of its group has already, byte by byte."""
    repeats: dict[tuple[str, int], str] = {}  # place and row -> what it repeats
    for group in ("paired", "unpaired"):
        rows = [(s, number, row) for s in sources if s.group == group for number, row in enumerate(s.reading.rows)]
        for later, first in find_duplicates(source.root / row.image for source, _, row in rows).items():
            source, number, row = rows[later]
            of, _, original = rows[first]
            other = ", whose texts are others" if row.texts != original.texts else ""
            repeats[source.place, number] = f"is byte-identical to {original.image} of {of.dataset.name}{other}"
    return [
        _without(source, {n: why for (place, n), why in repeats.items() if place == source.place}) for source in sources
    ]


def _without(source: _Source, repeats: Mapping[int, str]) -> _Source:
    if not repeats:
        return source
    reading = source.reading
    kept = [number for number in range(len(reading.rows)) if number not in repeats]
    if not kept:
        raise UserError(
            f"{source.place}: every photograph repeats one of an earlier set of {source.group}; take the set out, or "
            "set duplicates=keep"
        )
    duplicates = [
        Rejected(
            number=reading.rows[number].number,
            image=reading.rows[number].image,
            status=records.DUPLICATE,
            reason=reason,
        )
        for number, reason in sorted(repeats.items())
    ]
    reading = replace(reading, rows=[reading.rows[n] for n in kept], codes=[reading.codes[n] for n in kept])
    return replace(source, reading=reading, duplicates=tuple(duplicates))


def _test_photographs(sources: list[_Source], prepared: Path) -> TestPhotographs:
    return TestPhotographs.of(prepared / source.place for source in sources if source.group == "downstream")


def _prepare(config: BuildConfig, source: _Source, folder: Path, refused: TestPhotographs | None) -> int:
    """Convert one set unless an earlier run of this work folder has, in the same way."""
    plan = folder.with_name(f"{folder.name}.plan")
    fingerprint = _fingerprint(config, source, refused)
    if not plan.is_file() or plan.read_text(encoding="utf-8") != fingerprint:
        for stale in (folder, Path(Workplace(str(folder), None).folder)):
            shutil.rmtree(stale, ignore_errors=True)
        write_text(plan, fingerprint)
    if (folder / REPORT).is_file():  # a set is published whole
        return 0
    print(f"== {source.place}", file=sys.stderr)
    conversion = Conversion(
        out=str(folder),
        recipe=config.recipe(crop=not source.dataset.cropped),
        max_bad=config.max_bad,
        workers=config.workers,
    )
    status = convert(
        conversion,
        source.root,
        source.reading.kind,
        source.rows(),
        dataset=source.dataset.name,
        licence=source.dataset.licence,
        by_split=source.group == "downstream",
        about=about(source.dataset, source.reading, source.target),
        objection=refused.objection if refused is not None else None,
    )
    if status:
        shutil.rmtree(folder, ignore_errors=True)
    return status


def _fingerprint(config: BuildConfig, source: _Source, refused: TestPhotographs | None) -> str:
    """Differs where another result is to be expected, the photographs themselves being the same."""
    recipe = config.recipe(crop=not source.dataset.cropped)
    said = about(source.dataset, source.reading, source.target)
    digest = hashlib.sha256(repr((recipe, str(source.root), said)).encode())
    digest.update((refused.fingerprint if refused is not None else "").encode())
    for row in source.rows():
        digest.update(repr(row).encode())
    return digest.hexdigest()


def _join(prepared: Path, tree: Path, sources: list[_Source], config: BuildConfig) -> None:
    """Put the sets into one tree: an index over each group for pre-training, one manifest, report and card."""
    from streaming.base.util import merge_index

    shutil.rmtree(tree, ignore_errors=True)
    for source in sources:
        shutil.copytree(prepared / source.place, tree / source.place, copy_function=link)
    logging.disable(logging.WARNING)  # merge_index warns that it makes a temporary folder
    for group in ("paired", "unpaired"):
        indexes = [str(tree / s.place / "index.json") for s in sources if s.group == group]
        if indexes:
            merge_index(indexes, str(tree / group), keep_local=True)
    logging.disable(logging.NOTSET)
    test = _test_photographs(sources, prepared)
    contaminated: list[Contamination] = []
    with pyarrow.parquet.ParquetWriter(tree / records.NAME, records.BUILD_SCHEMA, compression="zstd") as writer:
        for source in sources:
            file = tree / source.place / records.NAME
            if source.group != "downstream":
                contaminated += test.among(file, group=source.group, name=source.dataset.name)
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches(4096):
                writer.write_batch(_of_build(source, batch))
    (tree / CONTAMINATION).write_text(contamination_csv(contaminated), encoding="utf-8")
    reports = {source.place: json.loads((tree / source.place / REPORT).read_bytes()) for source in sources}
    tally = Tally.of([tree])
    settings = config.settings()
    counts = {"contamination": len(contaminated)}  # kept out or not
    whole = tally.summary() | counts | {"sets": reports, "options": settings}
    text = card.card(
        "Data of a build",
        tally,
        [_about(place, report) for place, report in reports.items()],
        settings | {group: _named(settings[group]) for group in GROUPS},
        allowed=[line for line in contaminated if line.status == records.STORED],
    )
    (tree / card.NAME).write_text(text, encoding="utf-8")
    (tree / REPORT).write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _named(sets: Mapping[str, Mapping[str, str]]) -> str:
    """Name the sets of a group with what is said of each: `idrid (target=dme), jsiec`."""
    said = {name: ", ".join(f"{key}={value}" for key, value in chosen.items()) for name, chosen in sets.items()}
    return ", ".join(f"{name} ({words})" if words else name for name, words in said.items())


def _of_build(source: _Source, batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
    """Say in the records of one set where they are in the whole."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    folders = [f"{source.place}/{folder}".rstrip("/") for folder in columns["folder"].to_pylist()]
    columns |= {
        "folder": pyarrow.array(folders, pyarrow.string()),
        "group": pyarrow.array([source.group] * len(batch), pyarrow.string()),
        "set": pyarrow.array([source.dataset.name] * len(batch), pyarrow.string()),
    }
    return pyarrow.record_batch([columns[name] for name in records.BUILD_SCHEMA.names], schema=records.BUILD_SCHEMA)


def _about(place: str, report: dict[str, Any]) -> dict[str, Any]:
    return report["about"] | {
        "identical": [
            group | {"images": [f"{place}: {group['images'][0]}", *group["images"][1:]]}
            for group in report["identical"]
        ]
    }
