"""What a conversion did: `manifest.parquet`, `report.json`, `quarantine.csv` and the summary on the terminal."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from data_prep.ledger import Ledger, Outcome, Rejected
from data_prep.manifest import Row
from maskedclip_composer.cards.tally import Tally, ordered
from maskedclip_composer.data.cells import inert
from maskedclip_composer.data.records import NAME, QUARANTINED, SCHEMA, STORED, join_labels
from maskedclip_composer.data.schema import Kind

_BLOCK = 4096  # records in memory at a time


def write_records(ledger: Ledger, folder: Path, *, dataset: str) -> Tally:
    """Write `manifest.parquet` to `folder`, one row for every row of the ledger, and count them.

    Args:
        ledger: With all parts finished.
        folder: Where it goes.
        dataset: Of the rows that were rejected unread.
    """
    tally = Tally()
    records = chain(_converted(ledger), (_rejected(row, dataset) for row in ledger.rejected()))
    with pyarrow.parquet.ParquetWriter(folder / NAME, SCHEMA, compression="zstd") as writer:
        block: list[dict[str, Any]] = []
        for record in records:
            tally.add(record)
            block.append(record)
            if len(block) == _BLOCK:
                writer.write_table(pyarrow.Table.from_pylist(block, SCHEMA))
                block = []
        writer.write_table(pyarrow.Table.from_pylist(block, SCHEMA))
    return tally


def _converted(ledger: Ledger) -> Iterator[dict[str, Any]]:
    positions: Counter[str] = Counter()
    for part in ledger.parts():
        for row, outcome in ledger.results(part):
            record = _record(row, outcome) | {"folder": part.folder}
            if outcome.status == STORED:
                record |= {"position": positions[part.folder]}
                positions[part.folder] += 1
            yield record


def _record(row: Row, outcome: Outcome) -> dict[str, Any]:
    paired = bool(row.texts)
    return {
        "status": outcome.status,
        "reason": outcome.reason,
        "row": row.number,
        "position": -1,
        "dataset": row.dataset,
        "image": row.image,
        "split": row.split,
        "patient": row.patient,
        "eye": row.eye,
        "visit": row.visit,
        "label": "" if paired else join_labels(row.labels),
        "label_name": row.label_name,
        "texts": row.texts,
        "text_categories": row.labels if paired else (),
        "text_kinds": row.kinds,
        "licence": row.licence,
        "sha256": outcome.sha256,
        "phash": bytes.fromhex(outcome.phash),
        "original_width": outcome.original_width,
        "original_height": outcome.original_height,
        "width": outcome.width,
        "height": outcome.height,
        "crop_status": outcome.crop_status,
        "crop_box": outcome.crop_box,
        "bytes": outcome.bytes,
        "verbatim": outcome.verbatim,
        "sharpness": outcome.sharpness,
        "brightness": outcome.brightness,
        "clipped": outcome.clipped,
        "field": outcome.field,
    }


def _rejected(rejected: Rejected, dataset: str) -> dict[str, Any]:
    row = Row(number=rejected.number, image=rejected.image, dataset=dataset)
    return _record(row, Outcome(status=rejected.status, reason=rejected.reason)) | {"folder": ""}


def build_report(kind: Kind, tally: Tally, ledger: Ledger, options: dict[str, Any], licence: str) -> dict[str, Any]:
    """Make `report.json`: counts per folder and category, and the byte-identical photographs."""
    return tally.summary() | {
        "kind": kind,
        "licence": licence,
        "licences": ordered(tally.licences),
        "rows": tally.statuses[STORED] + tally.statuses[QUARANTINED],
        "reasons": ordered(Counter(tally.reasons())),
        "bytes": tally.num_bytes,
        "crop": ordered(tally.crop),
        "verbatim": tally.verbatim,
        "datasets": ordered(tally.datasets),
        "patients": sum(map(len, tally.patients.values())),
        "texts": tally.texts.total(),
        "distinct_texts": len(tally.texts),
        "identical": [_group(rows) for rows in ledger.identical()],
        "options": options,
    }


def _group(rows: list[Row]) -> dict[str, Any]:
    return {
        "images": [row.image for row in rows],
        "splits": sorted({row.split for row in rows}),
        "labels": sorted({" | ".join(row.labels) for row in rows}),
        "texts": sorted({" | ".join(row.texts) for row in rows}),
    }


def not_stored(ledger: Ledger) -> Iterator[Rejected]:
    """Yield the rows that were not stored: those whose files were read part by part, then those rejected before."""
    for part in ledger.parts():
        for row, outcome in ledger.results(part):
            if outcome.status != STORED:
                yield Rejected(number=row.number, image=row.image, status=outcome.status, reason=outcome.reason)
    yield from ledger.rejected()


def rejected_csv(rejected: Iterable[Rejected]) -> str:
    """Write rejected rows as a table of row, image and reason, in the order of the rows.

    A cell that a spreadsheet would run as a formula gets an apostrophe in front; `manifest.parquet` has the plain name.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["row", "image", "reason"])
    ordered = sorted(rejected, key=lambda item: item.number)
    writer.writerows([item.number, inert(item.image), inert(item.reason)] for item in ordered)
    return buffer.getvalue()


def summary(report: dict[str, Any], rejected: list[Rejected], out: str) -> str:
    """Say in a few lines what was written and what needs a look; `rejected` are the first ones."""
    lines = [f"{report['stored']} of {report['rows']} {report['kind']} rows written to {out}"]
    if list(report["splits"]) != [""]:
        lines.append("splits: " + ", ".join(f"{name} {part['stored']}" for name, part in report["splits"].items()))
    crops = ", ".join(f"{name} {count}" for name, count in report["crop"].items())
    lines.append(f"{report['bytes'] / 1e6:.1f} MB; crop: {crops}; stored verbatim: {report['verbatim']}")
    if report["texts"]:
        lines.append(f"texts: {report['texts']}, {report['distinct_texts']} distinct")
    groups = report["identical"]
    if groups:
        unlike = sum(len(group["labels"]) > 1 or len(group["texts"]) > 1 for group in groups)
        across = sum(len(group["splits"]) > 1 for group in groups)
        lines.append(
            f"WARNING: {len(groups)} groups of byte-identical images, {unlike} with different labels or texts, "
            f"{across} across splits (report.json, 'identical')"
        )
    if report["quarantined"]:
        lines.append(f"quarantined: {report['quarantined']} (quarantine.csv)")
        lines += [f"  row {item.number}: {item.image}: {item.reason}" for item in rejected[:5]]
        lines += ["  ..."] if report["quarantined"] > 5 else []
    return "\n".join(lines)
