"""Sections of a data card that are counted from the records of prepared sets."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskedclip_composer.cards.markdown import plain, table
from maskedclip_composer.cards.tally import SCORES, Tally
from maskedclip_composer.cards.terms import Part
from maskedclip_composer.data.records import STORED

SHOWN = 40
"""Lines of a table, at most."""

_MOST_LABELS, _MOST_TEXTS = 20, 10


@dataclass(frozen=True)
class Section:
    """A heading and what is below it, as lines of Markdown."""

    title: str
    lines: Sequence[str]

    def at(self, level: int) -> str:
        """Return it under a heading of that level."""
        return "\n".join([f"{'#' * level} {plain(self.title)}", "", *self.lines])


def parts_of(tally: Tally, abouts: Sequence[Mapping[str, Any]]) -> list[Part]:
    """Return the terms of every set of a tally."""
    said = {about["name"]: about.get("terms", "") for about in abouts}
    return [
        Part(name, licence, said.get(name, ""))
        for name in sorted(tally.datasets)
        for licence in sorted(tally.licences_of[name])
    ]


def sources(tally: Tally, abouts: Sequence[Mapping[str, Any]]) -> Section:
    """Say which sets the stored photographs are of, with what the sets say of themselves."""
    said = {about["name"]: about for about in abouts}
    lines = [
        (
            name,
            f"{count:,}",
            f"{len(tally.patients[name]):,}" if tally.patients[name] else "unknown",
            ", ".join(sorted(licence or "not given" for licence in tally.licences_of[name])),
            *(
                said[name].get(what) or "not given" if name in said else "not recorded"
                for what in ("terms", "citation", "source")
            ),
        )
        for name, count in sorted(tally.datasets.items())
    ]
    head = ("data set", "photographs", "patients", "licence", "terms", "cite", "source")
    total = tally.statuses[STORED]
    return Section(
        f"Sources: {total:,} photographs of {len(lines)} data set{'s' * (len(lines) != 1)}", table(head, lines)
    )


def counts(tally: Tally) -> Section:
    """Count photographs, eyes and labels of each folder."""
    lines = []
    for folder, count in tally.stored.items():
        labels = tally.labels[folder]
        shown = [f"{_label(tally, folder, label)} {number:,}" for label, number in labels.most_common(_MOST_LABELS)]
        shown += [f"and {len(labels) - _MOST_LABELS} more"] if len(labels) > _MOST_LABELS else []
        lines.append((folder or ".", f"{count:,}", listed(tally.eyes[folder]), ", ".join(shown)))
    return Section("Photographs and labels", table(("folder", "photographs", "eyes", "labels"), lines))


def _label(tally: Tally, folder: str, label: str) -> str:
    name = tally.names[folder].get(label)
    return f"{label} ({name})" if name else label


def texts(tally: Tally, *, fewest: int = 1) -> Section | None:
    """Count texts by kind and show the most frequent; None where there are none.

    Args:
        tally: Of the records.
        fewest: Photographs that a text must be of to be shown: what is written of one patient may tell who it is.
    """
    if not tally.texts:
        return None
    shown = [(text, f"{count:,}") for text, count in tally.texts.most_common(_MOST_TEXTS) if count >= fewest]
    hidden = [f"Texts of fewer than {fewest} photographs are not shown: they may tell of single patients."]
    lines = table(("the most frequent", "photographs"), shown) if shown else []
    lines += ["", *hidden] if fewest > 1 else []
    title = f"Texts: {tally.texts.total():,}, {len(tally.texts):,} distinct ({listed(tally.kinds)})"
    return Section(title, lines)


def quality(tally: Tally) -> Section | None:
    """Say how crops went, and between which values scores and sizes lie; None where nothing is stored."""
    if not tally.statuses[STORED]:
        return None
    lines = []
    for name, values in tally.measures.items():
        low, middle, high = np.percentile(np.frombuffer(values, np.float32), (5, 50, 95))
        form = ".3g" if name in SCORES else ",.0f"
        lines.append((name, f"{low:{form}}", f"{middle:{form}}", f"{high:{form}}"))
    head = ("score", "5th percentile", "median", "95th percentile")
    return Section("Quality", [f"Crop to the retina: {plain(listed(tally.crop))}.", "", *table(head, lines)])


def left_out(tally: Tally) -> Section:
    """Count what is not stored, by reason."""
    if not tally.missing:
        return Section("Not stored", ["Nothing."])
    reasons: Counter[tuple[str, str, str]] = Counter()
    for (status, dataset, reason), count in tally.missing.items():
        # The reasons of copies name a photograph each.
        reasons[status, dataset, f"a copy ({status})" if status in tally.copies else reason] += count
    shown = reasons.most_common(SHOWN)
    lines = [(status, dataset, reason, f"{count:,}") for (status, dataset, reason), count in shown]
    rest = reasons.total() - sum(count for _, count in shown)
    note = ["", f"And {rest:,} for other reasons; `manifest.parquet` names every one."] if rest else []
    head = ("status", "data set", "reason", "photographs")
    return Section(f"Not stored: {reasons.total():,}", [*table(head, lines), *note])


def notes(abouts: Sequence[Mapping[str, Any]]) -> Section | None:
    """List what the sets' readers have remarked; None where that is nothing."""
    lines = [f"- {plain(about['name'])}: {plain(note)}" for about in abouts for note in about.get("notes", ())]
    return Section("Notes", lines) if lines else None


def preparation(options: Mapping[str, Any]) -> Section:
    """Say how the photographs were prepared."""
    return Section("Preparation", table(("option", "value"), sorted(options.items())))


def listed(amounts: "Counter[str]") -> str:
    """Write counts as `name 12, other 3`."""
    return ", ".join(f"{name} {count:,}" for name, count in amounts.most_common())


def joined(sections: Iterable[Section | None], level: int) -> str:
    """Return the sections that there are, each under a heading of `level`."""
    return "\n\n".join(section.at(level) for section in sections if section is not None)
