"""`DATA_CARD.md`: what a prepared set holds, where it came from, on what terms, and what was left out of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.contamination import Contamination
from maskedclip_composer.cards import set_sections
from maskedclip_composer.cards.markdown import plain, table
from maskedclip_composer.cards.set_sections import SHOWN, Section
from maskedclip_composer.cards.tally import Tally
from maskedclip_composer.cards.terms import Terms
from maskedclip_composer.cards.terms_section import terms_section
from maskedclip_composer.data.records import CONTAMINATED, DUPLICATE

NAME = "DATA_CARD.md"


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
    subject = "This collection as a whole, and to be safe a model that was trained on it"
    terms = Terms.of(set_sections.parts_of(tally, abouts))
    sections = [
        Section("Terms", terms_section(terms, subject)),
        set_sections.sources(tally, abouts),
        set_sections.counts(tally),
        set_sections.texts(tally),
        set_sections.quality(tally),
        set_sections.left_out(tally),
        *_contamination(tally, allowed),
        _duplicates(tally),
        _identical(identical),
        set_sections.notes(abouts),
        set_sections.preparation(options),
    ]
    said = "Made by `python -m data_prep`. Retinal photographs for research; not for use on patients."
    return f"# {plain(title)}\n\n{said}\n\n{set_sections.joined(sections, 2)}\n"


def _contamination(tally: Tally, allowed: Sequence[Contamination]) -> list[Section]:
    refused = tally.copies.get(CONTAMINATED, [])
    kept = [
        (line.set, line.image, f"is or looks like the test photograph {line.test_image} of {line.test_set}")
        for line in allowed
    ]
    sections = []
    if refused:
        sections.append(Section(f"Photographs of downstream test sets kept out: {len(refused):,}", _copies(refused)))
    if kept:
        seen = "An encoder that was trained on them has seen them: results on these test sets are no fair ones."
        title = f"Photographs of downstream test sets KEPT for pre-training: {len(kept):,}"
        sections.append(Section(title, [seen, "", *_copies(kept)]))
    return sections


def _duplicates(tally: Tally) -> Section | None:
    found = tally.copies.get(DUPLICATE, [])
    return Section(f"Duplicates left out: {len(found):,}", _copies(found)) if found else None


def _copies(copies: Sequence[tuple[str, str, str]]) -> list[str]:
    more = len(copies) - SHOWN
    note = ["", f"And {more:,} more; `manifest.parquet` names every one."] if more > 0 else []
    return [*table(("data set", "photograph", "reason"), copies[:SHOWN]), *note]


def _identical(groups: Sequence[Mapping[str, Any]]) -> Section | None:
    if not groups:
        return None
    lines = [
        (
            " = ".join(group["images"][:4]) + (" = ..." if len(group["images"]) > 4 else ""),
            ", ".join(filter(None, group["splits"])),
            " / ".join(group["labels"]) if len(group["labels"]) > 1 else "",
        )
        for group in groups[:SHOWN]
    ]
    conflicts = sum(len(group["labels"]) > 1 for group in groups)
    heading = f"Byte-identical photographs: {len(groups)} groups, {conflicts} with conflicting labels"
    return Section(heading, table(("photographs", "splits", "labels in conflict"), lines))
