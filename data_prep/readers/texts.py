"""A text with its category and kind. The categories are those of the English pack of prompts, the same in every set."""

from functools import cache
from typing import NamedTuple

from maskedclip_composer.data.prompt_files import read_pack
from maskedclip_composer.data.prompts import PromptPack
from maskedclip_composer.data.schema import TextKind

PACK = "retina-en"


class Text(NamedTuple):
    """What is said of a photograph; texts of one category are positives of each other in all sets."""

    text: str
    category: str
    kind: TextKind


def class_name(name: str) -> Text:
    """Take a name that was made from a label or a column of findings."""
    return Text(name, canonical(name), "category")


def finding(words: str) -> Text:
    """Take a clinician's own words for a finding."""
    return Text(words, canonical(words), "finding")


def sentence(words: str) -> Text:
    """Take a text that is read as it is written."""
    return Text(words, canonical(words), "sentence")


def canonical(words: str) -> str:
    """Return the category that `words` name; `words` in lower case where they name none."""
    return _pack().canonical(words)


@cache
def _pack() -> PromptPack:
    return read_pack(PACK)
