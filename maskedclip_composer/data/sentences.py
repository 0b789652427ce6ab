"""Where the sentences of a report begin and end."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from maskedclip_composer.errors import UserError

_END = re.compile(r"[.!?;]+['\")\]]*(?=\s|$)|\n+")
_POINT = re.compile(r"(?<!\S)(\d{1,2})[.)](?=\s)")
# These points end no sentence: after a single letter ("e.g.", initials), an abbreviation, or "No." before a number.
_ABBREVIATION = re.compile(
    r"(?<![^\W_])(?:[^\W\d_]|dr|mr|mrs|prof|vs|approx|ca|cf|fig|incl|resp|max|min|est|no(?=\.\s*\d))\.", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class SentenceConfig:
    """Sentences of the texts, for objectives that match them with patches.

    Attributes:
        max_sentences: What comes after so many belongs to the last one.
    """

    max_sentences: int = 16

    def __post_init__(self) -> None:
        if self.max_sentences < 1:
            raise UserError(f"data.sentences.max_sentences = {self.max_sentences}: must be positive")


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Return (begin, end) of each sentence in characters, in order; white space between them belongs to none.

    A sentence ends at . ! ? ; or a line's end, and before a numbered point (1. 2. or 1) 2), but not at a decimal point,
    an initial or a common abbreviation. A heading, which ends in a colon, belongs to the sentence after it. What has no
    letter, such as the number of a point, joins the sentence after it, or the one before it at the text's end.
    """
    spans: list[tuple[int, int]] = []
    begin = 0
    for cut in [*_cuts(text), len(text)]:
        piece = text[begin:cut]
        if _has_letter(piece) and not (piece.rstrip().endswith(":") and _has_letter(text[cut:])):
            spans.append((begin, cut))
            begin = cut
    if spans:
        spans[-1] = (spans[-1][0], len(text))
    return [_trim(text, *span) for span in spans]


def _cuts(text: str) -> list[int]:
    """Return the places where a sentence may end, in order."""
    points = dict(_points(text))
    kept = {match.end() - 1 for match in _ABBREVIATION.finditer(text)}
    ends = {match.end() for match in _END.finditer(text) if match.start() not in kept} - set(points.values())
    return sorted(ends | points.keys())


def _points(text: str) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of the numbers of numbered points: 1 where a sentence may begin, and those that follow it."""
    last = 0
    for match in _POINT.finditer(text):
        number = int(match[1])
        before = text[: match.start()].rstrip(" \t")
        if (number == 1 and (not before or before[-1] in ".!?;:\n")) or (last and number == last + 1):
            yield match.span()
            last = number


def _has_letter(text: str) -> bool:
    return any(character.isalpha() for character in text)


def _trim(text: str, begin: int, end: int) -> tuple[int, int]:
    piece = text[begin:end]
    return begin + len(piece) - len(piece.lstrip()), end - (len(piece) - len(piece.rstrip()))
