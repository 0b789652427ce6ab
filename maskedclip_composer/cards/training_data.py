"""Which photographs a run has read, by the manifests that lie beside its shards and were copied into its folder."""

import csv
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from maskedclip_composer.cards.paths import without_photographs
from maskedclip_composer.cards.run_files import RunFiles
from maskedclip_composer.cards.set_sections import parts_of
from maskedclip_composer.cards.tally import Tally
from maskedclip_composer.cards.terms import Part
from maskedclip_composer.data.photograph import REPORT
from maskedclip_composer.data.records import NAME, STORED

PRETRAINING = ("paired", "unpaired")
_COUNTED = {
    *("status", "reason", "folder", "dataset", "image", "patient", "eye", "label", "label_name", "texts"),
    *("text_categories", "text_kinds", "licence", "original_width", "original_height", "crop_status", "bytes"),
    *("verbatim", "sharpness", "brightness", "clipped", "field"),
}


@dataclass(kw_only=True)
class StreamData:
    """What is known of the photographs of one stream.

    Attributes:
        name: paired or unpaired.
        samples: That the run's index lists; None where it was not recorded.
        sha256: Of the index, likewise.
        absent: Why the preparation is not known; empty where it is.
        read: The records that the stream reads.
        left_out: The records of its sets that were not stored.
        held_back: Stored records of the same manifest that the stream does not read, by folder.
        abouts: What the sets say of themselves.
        options: How the photographs were prepared; empty where `report.json` is not in the run's folder.
        identical: Groups of photographs that are the same file, and those of them whose labels conflict; None where
            that is not recorded.
        kept: Downstream test photographs that were stored for pre-training all the same, by (set, test set).
    """

    name: str
    samples: int | None
    sha256: str | None
    absent: str = ""
    read: Tally = field(default_factory=Tally)
    left_out: Tally = field(default_factory=Tally)
    held_back: "Counter[str]" = field(default_factory=Counter)
    abouts: list[dict[str, Any]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    identical: tuple[int, int] | None = None
    kept: "Counter[tuple[str, str]]" = field(default_factory=Counter)

    @property
    def parts(self) -> list[Part]:
        """The terms of its sets; one part of unknown terms where nothing tells which sets they are."""
        if self.absent:
            return [Part(f"{self.name} stream, not recorded", "")]
        parts = parts_of(self.read, self.abouts)
        if self.is_all_listed:
            return parts
        return [*parts, Part(f"{self.name} stream, photographs that no manifest lists", "")]

    @property
    def is_all_listed(self) -> bool:
        """Whether the manifest lists as many photographs as the index."""
        return self.samples is None or self.read.total == self.samples


def read_streams(run: RunFiles) -> list[StreamData]:
    """Read what is known of each stream of a run."""
    return [_stream(run, name, settings) for name, settings in run.streams.items()]


def _stream(run: RunFiles, name: str, settings: Mapping[str, Any]) -> StreamData:
    said = (run.manifest or {}).get(name) or {}
    data = StreamData(name=name, samples=said.get("samples"), sha256=said.get("sha256"))
    place = _place(run, name, settings)
    if place is None:
        data.absent = f"no {NAME} of data_prep lay beside the shards when the run began"
        return data
    try:
        _count(data, place, settings)
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
        data.absent = f"data/{place.name}/{NAME} is damaged or of another kind ({error})"
        return data
    _read_report(data, place / REPORT)
    _read_kept(data, place / "contamination.csv")
    return data


def _place(run: RunFiles, name: str, settings: Mapping[str, Any]) -> Path | None:
    """Return the folder of a stream's documents: its own, or the other stream's where both read one build or set."""
    own = run.folder / "data" / name
    if (own / NAME).is_file():
        return own
    for other, others in run.streams.items():
        folder = run.folder / "data" / other
        if other == name or not (folder / NAME).is_file():
            continue
        here, there = _location(settings), _location(others)
        is_build = "group" in pyarrow.parquet.read_schema(folder / NAME).names
        if here == there or (is_build and here.rpartition("/")[0] == there.rpartition("/")[0]):
            return folder
    return None


def _location(settings: Mapping[str, Any]) -> str:
    return str(settings.get("remote") or settings.get("local") or "").removeprefix("file://").rstrip("/")


def _count(data: StreamData, place: Path, settings: Mapping[str, Any]) -> None:
    group, split = _location(settings).rpartition("/")[2], settings.get("split")
    with pyarrow.parquet.ParquetFile(place / NAME) as file:
        is_build = "group" in file.schema_arrow.names
        for batch in file.iter_batches(4096, columns=sorted(_COUNTED | ({"group"} if is_build else set()))):
            for record in batch.to_pylist():
                folder, is_of_group = record["folder"], not is_build or record["group"] == group
                is_read = is_of_group and (is_build or not split or folder == split)
                if record["status"] != STORED:
                    if is_of_group:
                        data.left_out.add(record | {"reason": without_photographs(record["reason"])})
                elif is_read:
                    data.read.add(record)
                else:
                    data.held_back[folder] += 1


def _read_report(data: StreamData, path: Path) -> None:
    """Read what the sets say of themselves; a run of another day has no such file."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    reports = list(report.get("sets", {}).values()) or [report]
    reports = [one for one in reports if one.get("about", {}).get("name") in data.read.datasets]
    groups = [group for one in reports for group in one.get("identical", ())]
    data.identical = len(groups), sum(len(group.get("labels", ())) > 1 for group in groups)
    data.abouts = [
        one["about"] | {"notes": [without_photographs(note) for note in one["about"].get("notes", ())]}
        for one in reports
    ]
    data.options = {key: value for key, value in report.get("options", {}).items() if not isinstance(value, dict)}


def _read_kept(data: StreamData, path: Path) -> None:
    if not path.is_file():
        return
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row.get("status") == STORED and row.get("set") in data.read.datasets:
                data.kept[row["set"], row.get("test_set") or "not recorded"] += 1
