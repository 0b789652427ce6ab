"""The command `build`: many known data sets in, paired, unpaired and downstream shards with one manifest out."""

import argparse
import json
import logging
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow
import pyarrow.parquet

from data_prep import card, records
from data_prep.contamination import TestPhotographs
from data_prep.convert import Conversion, convert
from data_prep.parts import Objection
from data_prep.photograph import Recipe
from data_prep.prepare import about, rows_of
from data_prep.readers.catalogue import find
from data_prep.readers.dataset import Dataset
from data_prep.readers.read import Reading, read
from data_prep.split import divide_set
from data_prep.tally import Tally
from data_prep.writer import REPORT, Workplace, check_destination, link
from maskedclip_composer.config_file import load_config
from maskedclip_composer.data.schema import Kind
from maskedclip_composer.errors import UserError

Group = Literal["downstream", "paired", "unpaired"]
_KINDS: dict[Group, Kind] = {"downstream": "labelled", "paired": "paired", "unpaired": "unpaired"}
# Downstream first: what is in its test sets must be known before anything is prepared for training.
GROUPS: tuple[Group, ...] = ("downstream", "paired", "unpaired")


@dataclass(frozen=True, kw_only=True)
class SetConfig:
    """One data set.

    Attributes:
        root: Its folder as released; None is `<roots>/<name>`.
        target: Which of its labels; None is the first.
    """

    root: str | None = None
    target: str | None = None


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What goes into a build.

    Attributes:
        out: New folder, or the URL of an object store.
        roots: Folder of the downloads, one folder a set.
        work: Folder for unfinished work; None is `<out>.partial`.
        size: Short side after the crop in pixels; 0 keeps.
        quality: JPEG quality.
        workers: Processes; None is one per CPU.
        max_bad: Share of a set's photographs that may be unusable.
        seed: Of the divisions that are drawn.
        contamination: What becomes of a photograph for pre-training that is, or looks like, one of a downstream test
            set: `exclude` leaves it out and lists it, `allow` keeps it.
        skip_missing: Go on without sets that are not below `roots`.
        paired: Sets with texts, by name.
        unpaired: Sets of bare photographs, by name.
        downstream: Labelled sets for evaluation, by name.
    """

    out: str
    roots: str = "downloads"
    work: str | None = None
    size: int = 512
    quality: int = 90
    workers: int | None = None
    max_bad: float = 0.02
    seed: int = 17
    contamination: Literal["exclude", "allow"] = "exclude"
    skip_missing: bool = False
    paired: dict[str, SetConfig] = field(default_factory=dict)
    unpaired: dict[str, SetConfig] = field(default_factory=dict)
    downstream: dict[str, SetConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.paired or self.unpaired or self.downstream):
            raise UserError("no data set is named; fill paired, unpaired or downstream, for example `hrf: {}`")
        Recipe(size=self.size, quality=self.quality)

    def sets(self) -> Iterator[tuple[Group, str, SetConfig]]:
        """Yield group, name and settings of every set, in the order in which they are done."""
        for group in GROUPS:
            for name, chosen in getattr(self, group).items():
                yield group, name, chosen


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A data set that was found and read."""

    group: Group
    dataset: Dataset
    root: Path
    reading: Reading
    target: str | None

    @property
    def place(self) -> str:
        """Its folder in the result."""
        return f"{self.group}/{self.dataset.name}"


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
        for source in sources:
            objection = _objection(config, prepared) if source.group != "downstream" else None
            status = _prepare(config, source, prepared / source.place, objection)
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
            reading = read(dataset, root.resolve(), chosen.target, _KINDS[group])
            if group == "downstream":
                division = dataset.division
                reading = divide_set(dataset, reading, root.resolve(), chosen.target, division, config.seed)
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
    return sources


def _objection(config: BuildConfig, prepared: Path) -> Objection | None:
    if config.contamination == "allow":
        return None
    return TestPhotographs.of(sorted(file.parent for file in prepared.glob(f"downstream/*/{records.NAME}"))).objection


def _prepare(config: BuildConfig, source: _Source, folder: Path, objection: Objection | None) -> int:
    if (folder / REPORT).is_file():  # by an earlier run of this work folder: a set is published whole
        return 0
    print(f"== {source.place}", file=sys.stderr)
    conversion = Conversion(
        out=str(folder),
        recipe=Recipe(size=config.size, quality=config.quality, crop=not source.dataset.cropped),
        max_bad=config.max_bad,
        workers=config.workers,
    )
    status = convert(
        conversion,
        source.root,
        source.reading.kind,
        rows_of(source.dataset, source.reading, source.target),
        dataset=source.dataset.name,
        licence=source.dataset.licence,
        by_split=source.group == "downstream",
        about=about(source.dataset, source.reading, source.target),
        objection=objection,
    )
    if status:
        shutil.rmtree(folder, ignore_errors=True)
    return status


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
    with pyarrow.parquet.ParquetWriter(tree / records.NAME, records.SCHEMA, compression="zstd") as writer:
        for source in sources:
            for batch in pyarrow.parquet.ParquetFile(tree / source.place / records.NAME).iter_batches(4096):
                folders = [f"{source.place}/{folder}".rstrip("/") for folder in batch.column("folder").to_pylist()]
                column = records.SCHEMA.get_field_index("folder")
                writer.write_batch(batch.set_column(column, "folder", pyarrow.array(folders, pyarrow.string())))
    reports = {source.place: json.loads((tree / source.place / REPORT).read_bytes()) for source in sources}
    tally = Tally.of([tree])
    settings = asdict(config) | {name: ", ".join(getattr(config, name)) for name in GROUPS}
    whole = tally.summary() | {"sets": reports, "options": settings}
    text = card.card("Data of a build", tally, [_about(place, report) for place, report in reports.items()], settings)
    (tree / card.NAME).write_text(text, encoding="utf-8")
    (tree / REPORT).write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _about(place: str, report: dict[str, Any]) -> dict[str, Any]:
    return report["about"] | {
        "identical": [
            group | {"images": [f"{place}: {group['images'][0]}", *group["images"][1:]]}
            for group in report["identical"]
        ]
    }
