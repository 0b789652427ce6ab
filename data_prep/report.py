"""What a conversion did: `report.json`, `quarantine.csv` and the summary on the terminal. The same for every run."""

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from data_prep.manifest import Rejected, Row
from maskedclip_composer.data.schema import Kind


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one row: stored, or rejected for `reason`."""

    reason: str = ""
    sha256: str = ""
    crop: str = ""
    verbatim: bool = False
    num_bytes: int = 0


Result = tuple[Row, Outcome]


def build_report(
    kind: Kind, results: list[Result], repeated: list[Rejected], options: dict[str, Any], licence: str
) -> dict[str, Any]:
    """Count what was stored, per split and category, and list byte-identical photographs."""
    stored = [(row, outcome) for row, outcome in results if not outcome.reason]
    by_split: dict[str, list[Row]] = defaultdict(list)
    for row, _ in stored:
        by_split[row.split].append(row)
    texts = [text for row, _ in stored for text in row.texts]
    num_rows = len(results) + len(repeated)
    return {
        "kind": kind,
        "licence": licence,
        "rows": num_rows,
        "stored": len(stored),
        "quarantined": num_rows - len(stored),
        "bytes": sum(outcome.num_bytes for _, outcome in stored),
        "crop": _counts(outcome.crop for _, outcome in stored),
        "verbatim": sum(outcome.verbatim for _, outcome in stored),
        "datasets": _counts(row.dataset for row, _ in stored),
        "patients": len({(row.dataset, row.patient) for row, _ in stored if row.patient}),
        "texts": len(texts),
        "distinct_texts": len(set(texts)),
        "splits": {
            split: {"stored": len(rows), "labels": _counts(label for row in rows for label in row.labels if label)}
            for split, rows in by_split.items()
        },
        "identical": _identical(stored),
        "options": options,
    }


def _counts(values: Iterable[str]) -> dict[str, int]:
    """Counts, the most frequent first, equal ones by name."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _identical(stored: list[Result]) -> list[dict[str, Any]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row, outcome in stored:
        groups[outcome.sha256].append(row)
    return [
        {
            "images": [row.image for row in rows],
            "splits": sorted({row.split for row in rows}),
            "labels": sorted({" | ".join(row.labels) for row in rows}),
            "texts": sorted({" | ".join(row.texts) for row in rows}),
        }
        for rows in groups.values()
        if len(rows) > 1
    ]


def quarantine(results: list[Result], repeated: list[Rejected]) -> list[Rejected]:
    """Collect the rows that were not stored, in the order of the table."""
    unusable = [
        Rejected(number=row.number, image=row.image, reason=outcome.reason)
        for row, outcome in results
        if outcome.reason
    ]
    return sorted([*unusable, *repeated], key=lambda rejected: rejected.number)


def quarantine_csv(rejected: list[Rejected]) -> str:
    """Write rejected rows as a table of row, image and reason."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["row", "image", "reason"])
    writer.writerows([item.number, item.image, item.reason] for item in rejected)
    return buffer.getvalue()


def summary(report: dict[str, Any], rejected: list[Rejected], out: str) -> str:
    """Say in a few lines what was written and what needs a look."""
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
    if rejected:
        lines.append(f"quarantined: {len(rejected)} (quarantine.csv)")
        lines += [f"  row {item.number}: {item.image}: {item.reason}" for item in rejected[:5]]
        lines += ["  ..."] if len(rejected) > 5 else []
    return "\n".join(lines)
