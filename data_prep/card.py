"""`DATA_CARD.md`: what a prepared set holds, where it came from, on what terms, and what was left out of it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from data_prep.records import STORED
from data_prep.tally import SCORES, Tally

NAME = "DATA_CARD.md"

# What a licence asks of whoever passes the photographs, or a model trained on them, on. Matched by the words in it.
_OBLIGATIONS = (
    ("by", "CC BY", "credit the authors"),
    ("share alike", "-SA", "share what is made of it under the same licence"),
    ("non-commercial", "-NC", "no commercial use"),
    ("no derivatives", "-ND", "do not share anything made of it"),
    ("competition rules", "competition rules", "use as the competition's rules allow, do not pass on"),
    ("challenge terms", "challenge terms", "use as the challenge's terms allow, do not pass on"),
    ("agreement", "agreement", "use as the agreement allows, do not pass on"),
    ("credentialed", "Credentialed", "only for people with the credentials, do not pass on"),
    ("research use", "research use", "research use only"),
    ("unstated", "none stated", "no licence is known: ask the owners before anything is passed on"),
    ("unclear", "unclear", "the licence is unclear: ask the owners before anything is passed on"),
    ("to be checked", "check at the source", "check the terms at the source"),
)


def card(title: str, tally: Tally, abouts: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> str:
    """Write the card in Markdown. All numbers are counted from the records.

    Args:
        title: Its heading.
        tally: Of all records.
        abouts: What data sets say of themselves: `prepare.about`.
        options: How the photographs were prepared.
    """
    identical = [group for about in abouts for group in about.get("identical", ())]
    notes = [f"- {about['name']}: {note}" for about in abouts for note in about.get("notes", ())]
    sections = [
        [f"# {title}", "", "Made by `python -m data_prep`. Retinal photographs for research; not for use on patients."],
        _sources(tally, abouts),
        _terms(tally),
        _counts(tally),
        _texts(tally),
        _quality(tally),
        _left_out(tally),
        _identical(identical),
        ["## Notes", "", *notes] if notes else [],
        ["## Preparation", "", *_table(("option", "value"), sorted(options.items()))],
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _sources(tally: Tally, abouts: Sequence[Mapping[str, Any]]) -> list[str]:
    said = {about["name"]: about for about in abouts}
    lines = [
        (
            name,
            f"{count:,}",
            len(tally.patients[name]) or "unknown",
            ", ".join(sorted(licence or "not given" for licence in tally.licences_of[name])),
            said.get(name, {}).get("terms", ""),
            said.get(name, {}).get("citation", ""),
            said.get(name, {}).get("source", ""),
        )
        for name, count in sorted(tally.datasets.items())
    ]
    head = ("data set", "photographs", "patients", "licence", "terms", "cite", "source")
    total = tally.statuses[STORED]
    return [f"## Sources: {total:,} photographs of {len(lines)} data sets", "", *_table(head, lines)]


def _terms(tally: Tally) -> list[str]:
    lines = []
    for name, words, meaning in _OBLIGATIONS:
        because = [licence for licence in sorted(tally.licences) if words.lower() in licence.lower()]
        if because:
            lines.append((name, meaning, "; ".join(because)))
    if "" in tally.licences:
        lines.append(("not given", "no terms were given when the set was prepared", ""))
    return [
        "## Terms that hold for the whole",
        "",
        "Whoever passes the shards on, or a model that was trained on them, owes what every part asks. This table is",
        "made from the names of the licences and is no legal advice.",
        "",
        *_table(("term", "what it asks", "because of"), lines),
    ]


def _counts(tally: Tally) -> list[str]:
    lines = []
    for folder, count in tally.stored.items():
        labels = tally.labels[folder]
        shown = ", ".join(f"{_label(tally, folder, label)} {number:,}" for label, number in labels.most_common(20))
        more = f", and {len(labels) - 20} more" if len(labels) > 20 else ""
        lines.append((folder or ".", f"{count:,}", _listed(tally.eyes[folder]), shown + more))
    return ["## Photographs and labels", "", *_table(("folder", "photographs", "eyes", "labels"), lines)]


def _label(tally: Tally, folder: str, label: str) -> str:
    name = tally.names[folder].get(label)
    return f"{label} ({name})" if name else label


def _texts(tally: Tally) -> list[str]:
    if not tally.texts:
        return []
    heading = f"## Texts: {tally.texts.total():,}, {len(tally.texts):,} distinct ({_listed(tally.kinds)})"
    lines = [(text, f"{count:,}") for text, count in tally.texts.most_common(10)]
    return [heading, "", *_table(("the most frequent", "photographs"), lines)]


def _quality(tally: Tally) -> list[str]:
    if not tally.statuses[STORED]:
        return []
    lines = []
    for name, values in tally.measures.items():
        low, middle, high = np.percentile(np.frombuffer(values, np.float32), (5, 50, 95))
        form = ".3g" if name in SCORES else ",.0f"
        lines.append((name, f"{low:{form}}", f"{middle:{form}}", f"{high:{form}}"))
    head = ("score", "5th percentile", "median", "95th percentile")
    return ["## Quality", "", f"Crop to the retina: {_listed(tally.crop)}.", "", *_table(head, lines)]


def _left_out(tally: Tally) -> list[str]:
    if not tally.missing:
        return ["## Not stored", "", "Nothing."]
    shown = tally.missing.most_common(40)
    lines = [(status, dataset, reason, f"{count:,}") for (status, dataset, reason), count in shown]
    rest = tally.missing.total() - sum(count for _, count in shown)
    note = ["", f"And {rest:,} for other reasons; `manifest.parquet` names every one."] if rest else []
    head = ("status", "data set", "reason", "photographs")
    return [f"## Not stored: {tally.missing.total():,}", "", *_table(head, lines), *note]


def _identical(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    if not groups:
        return []
    lines = [
        (
            " = ".join(group["images"][:4]) + (" = ..." if len(group["images"]) > 4 else ""),
            ", ".join(filter(None, group["splits"])),
            " / ".join(group["labels"]) if len(group["labels"]) > 1 else "",
        )
        for group in groups[:40]
    ]
    conflicts = sum(len(group["labels"]) > 1 for group in groups)
    heading = f"## Byte-identical photographs: {len(groups)} groups, {conflicts} with conflicting labels"
    return [heading, "", *_table(("photographs", "splits", "labels in conflict"), lines)]


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common())


def _table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> list[str]:
    rows = [head, ["---"] * len(head), *lines]
    return ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").replace("<", "&lt;").split())
