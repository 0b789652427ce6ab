"""Counts over the records of a set, filled one record at a time: what report and data card are made of."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet

from maskedclip_composer.data.records import CONTAMINATED, DUPLICATE, NAME, STATUSES, STORED, labels_of, split_labels

SCORES = ("sharpness", "brightness", "clipped", "field")
MEASURES = (*SCORES, "original_width", "original_height", "bytes")


@dataclass
class Tally:
    """The same for every run over the same records.

    Memory grows with the number of patients, of distinct texts and of copies, and by 28 bytes a photograph.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    missing: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # by status, data set and reason
    # data set, photograph and reason of those that are copies, by status
    copies: dict[str, list[tuple[str, str, str]]] = field(default_factory=lambda: defaultdict(list))
    num_bytes: int = 0
    verbatim: int = 0
    crop: Counter[str] = field(default_factory=Counter)
    datasets: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    licences_of: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # by data set, as the next
    patients: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    stored: Counter[str] = field(default_factory=Counter)  # by folder, as the next three
    labels: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    eyes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    names: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))  # of labels that are codes
    texts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    measures: "dict[str, array[float]]" = field(default_factory=lambda: {name: array("f") for name in MEASURES})

    @classmethod
    def of(cls, folders: Iterable[Path]) -> "Tally":
        """Count the records of prepared sets together."""
        tally = cls()
        for folder in folders:
            for batch in pyarrow.parquet.ParquetFile(folder / NAME).iter_batches(4096):
                for record in batch.to_pylist():
                    tally.add(record)
        return tally

    def add(self, record: dict[str, Any]) -> None:
        """Count one record of `records.SCHEMA`."""
        dataset, folder = record["dataset"], record["folder"]
        self.statuses[record["status"]] += 1
        if record["status"] != STORED:
            self.missing[record["status"], dataset, record["reason"]] += 1
            if record["status"] in (CONTAMINATED, DUPLICATE):
                self.copies[record["status"]].append((dataset, record["image"], record["reason"]))
            return
        self.num_bytes += record["bytes"]
        self.verbatim += record["verbatim"]
        self.crop[record["crop_status"]] += 1
        self.datasets[dataset] += 1
        self.licences[record["licence"]] += 1
        self.licences_of[dataset].add(record["licence"])
        if record["patient"]:
            self.patients[dataset].add(hash(record["patient"]))
        self.stored[folder] += 1
        self.eyes[folder][record["eye"] or "unknown"] += 1
        self.labels[folder].update(labels_of(record))
        self.names[folder].update(zip(split_labels(record["label"]), split_labels(record["label_name"]), strict=False))
        self.texts.update(record["texts"])
        self.kinds.update(record["text_kinds"])
        for name, values in self.measures.items():
            values.append(record[name])

    @property
    def total(self) -> int:
        """Records that are stored."""
        return self.statuses[STORED]

    def summary(self) -> dict[str, Any]:
        """Return the counts of records, in all and by folder and label, as they stand in `report.json`."""
        return {
            **{status: self.statuses[status] for status in STATUSES},
            "splits": {
                folder: {"stored": count, "labels": ordered(self.labels[folder])}
                for folder, count in self.stored.items()
            },
        }

    def reasons(self) -> dict[str, int]:
        """Count the records that are not stored by reason."""
        found: Counter[str] = Counter()
        for (_, _, reason), count in self.missing.items():
            found[reason] += count
        return dict(found)


def ordered(counts: Counter[str]) -> dict[str, int]:
    """Return counts, the most frequent first, equal ones by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
