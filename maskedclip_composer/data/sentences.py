"""Where the sentences of a report begin and end."""

import re
from dataclasses import dataclass

from maskedclip_composer.errors import UserError

# A point after these ends no sentence. Single letters (initials, "e.g.") are told by their length.
_ABBREVIATIONS = {"dr", "mr", "mrs", "vs", "approx", "ca", "cf", "fig", "no", "incl", "resp", "max", "min", "est"}
_BOUNDARY = re.compile(r"[.!?;]+(?=\s|$)|\n+")


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

    A sentence ends at . ! ? ; or a line's end, not at a decimal point, an initial or a common abbreviation. What has no
    letter, such as the number of a point, joins the sentence after it, or the one before it at the text's end.
    """
    spans: list[tuple[int, int]] = []
    begin = 0
    for match in _BOUNDARY.finditer(text):
        has_letters = any(character.isalpha() for character in text[begin : match.end()])
        if has_letters and not _is_abbreviation(text, match):
            spans.append((begin, match.end()))
            begin = match.end()
    rest = text[begin:]
    if any(character.isalpha() for character in rest):
        spans.append((begin, len(text)))
    elif spans and rest.strip():
        spans[-1] = (spans[-1][0], len(text))
    return [_trim(text, *span) for span in spans]


def _is_abbreviation(text: str, match: re.Match[str]) -> bool:
    if match.group() != ".":
        return False
    before = re.search(r"[^\W\d_]+$", text[: match.start()])
    if before is None:
        return False
    word = before.group().lower()
    # A single letter is an initial or the end of "e.g."; at the text's end it ends the sentence too.
    return word in _ABBREVIATIONS or (len(word) == 1 and match.end() < len(text))


def _trim(text: str, begin: int, end: int) -> tuple[int, int]:
    piece = text[begin:end]
    return begin + len(piece) - len(piece.lstrip()), end - (len(piece) - len(piece.rstrip()))
