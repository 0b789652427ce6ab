"""`DATA_CARD.md`: what a prepared set holds, where it came from, on what terms, and what was left out of it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from data_prep.contamination import Contamination
from data_prep.records import CONTAMINATED, DUPLICATE, STORED
from data_prep.tally import SCORES, Tally

NAME = "DATA_CARD.md"
_SHOWN = 40  # lines of a table, at most

# What a licence or the terms of a set ask: by the words in them, what is to be done, and what that means for a whole
# that has such a part.
_OBLIGATIONS = (
    (("CC BY",), "credit the authors", "must be credited to the authors below"),
    (("-NC", "non-commercial"), "no commercial use", "may not be used commercially"),
    (("research use",), "research use only", "may be used for research only"),
    (("competition rules",), "use as the competition allows", "may be used only as the rules of competitions allow"),
    (("challenge",), "use as the challenge allows", "may be used only as the terms of challenges allow"),
    (("agreement", "credentialed"), "use by those who have signed", "may be used only by those who have signed for it"),
    (("no redistribution", "do not redistribute"), "not to be passed on", "may not be passed on"),
    (
        ("-ND", "no derivatives"),
        "pass on unchanged only",
        "may not be passed on in another form, which these shards are",
    ),
    (
        ("-SA", "share alike"),
        "pass on under the same licence",
        "must keep that licence where it may be passed on at all",
    ),
    (("on request", "ask "), "ask the owners", "may not be passed on without asking owners"),
    (("none stated", "unclear", "unknown"), "no known terms", "has parts whose terms nobody has stated"),
    (("check at the source",), "check the terms at the source", "needs its terms checked at the sources"),
)


def card(
    title: str,
    tally: Tally,
    abouts: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
    allowed: Sequence[Contamination] = (),
) -> str:
    """Write the card in Markdown. All numbers are counted from the records.

    Args:
        title: Its heading.
        tally: Of all records.
        abouts: What data sets say of themselves: `prepare.about`.
        options: How the photographs were prepared.
        allowed: Photographs of downstream test sets that were stored for pre-training all the same.
    """
    identical = [group for about in abouts for group in about.get("identical", ())]
    notes = [f"- {about['name']}: {note}" for about in abouts for note in about.get("notes", ())]
    sections = [
        [f"# {title}", "", "Made by `python -m data_prep`. Retinal photographs for research; not for use on patients."],
        _terms(tally, abouts),
        _sources(tally, abouts),
        _counts(tally),
        _texts(tally),
        _quality(tally),
        _left_out(tally),
        _contamination(tally, allowed),
        _duplicates(tally),
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


def _terms(tally: Tally, abouts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what each licence asks and, first, what that means for the whole: every part's demands hold for it."""
    said = {about["name"]: about.get("terms", "") for about in abouts}
    sets: dict[tuple[str, str], list[str]] = {}  # by licence and what is asked
    asked: set[str] = set()
    for name in sorted(tally.datasets):
        for licence in sorted(tally.licences_of[name]):
            words = f"{licence}; {said.get(name, '')}".lower()
            found = [line for line in _OBLIGATIONS if any(mark.lower() in words for mark in line[0])]
            asked |= {of_all for _, _, of_all in found}
            asks = "; ".join(each for _, each, _ in found) or ("as it says" if licence else "unknown")
            sets.setdefault((licence, asks), []).append(name)
    lines = [(licence or "not given", asks, ", ".join(names)) for (licence, asks), names in sorted(sets.items())]
    whole = list(dict.fromkeys(of_all for _, _, of_all in _OBLIGATIONS if of_all in asked))
    whole += ["has parts whose terms were not given"] * any(licence == "" for licence, _ in sets)
    return [
        "## Terms",
        "",
        "This collection as a whole, and to be safe a model that was trained on it,",
        "",
        *(f"- {of_all}" for of_all in whole or ["is bound by the terms of its parts"]),
        "",
        "because its parts ask for it. Read from the names of the licences and notes on the sets; no legal advice.",
        "",
        *_table(("licence", "asks", "data sets"), lines),
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
    reasons: Counter[tuple[str, str, str]] = Counter()
    for (status, dataset, reason), count in tally.missing.items():
        # The reasons of copies name a photograph each: they have sections of their own.
        reasons[status, dataset, "see below" if status in tally.copies else reason] += count
    shown = reasons.most_common(_SHOWN)
    lines = [(status, dataset, reason, f"{count:,}") for (status, dataset, reason), count in shown]
    rest = reasons.total() - sum(count for _, count in shown)
    note = ["", f"And {rest:,} for other reasons; `manifest.parquet` names every one."] if rest else []
    head = ("status", "data set", "reason", "photographs")
    return [f"## Not stored: {reasons.total():,}", "", *_table(head, lines), *note]


def _contamination(tally: Tally, allowed: Sequence[Contamination]) -> list[str]:
    refused = tally.copies.get(CONTAMINATED, [])
    kept = [
        (line.set, line.image, f"is or looks like the test photograph {line.test_image} of {line.test_set}")
        for line in allowed
    ]
    sections = []
    if refused:
        sections += [f"## Photographs of downstream test sets kept out: {len(refused):,}", "", *_copies(refused)]
    if kept:
        sections += [
            f"## Photographs of downstream test sets KEPT for pre-training: {len(kept):,}",
            "",
            "An encoder that was trained on them has seen them: results on these test sets are no fair ones.",
            "",
            *_copies(kept),
        ]
    return sections


def _duplicates(tally: Tally) -> list[str]:
    found = tally.copies.get(DUPLICATE, [])
    return [f"## Duplicates left out: {len(found):,}", "", *_copies(found)] if found else []


def _copies(copies: Sequence[tuple[str, str, str]]) -> list[str]:
    more = len(copies) - _SHOWN
    note = ["", f"And {more:,} more; `manifest.parquet` names every one."] if more > 0 else []
    return [*_table(("data set", "photograph", "reason"), copies[:_SHOWN]), *note]


def _identical(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    if not groups:
        return []
    lines = [
        (
            " = ".join(group["images"][:4]) + (" = ..." if len(group["images"]) > 4 else ""),
            ", ".join(filter(None, group["splits"])),
            " / ".join(group["labels"]) if len(group["labels"]) > 1 else "",
        )
        for group in groups[:_SHOWN]
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
