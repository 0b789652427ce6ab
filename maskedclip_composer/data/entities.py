"""Where the entities of a text are: spans that carry the finding, for objectives that hide them."""

import importlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from maskedclip_composer.data.lexicon_files import read_lexicon
from maskedclip_composer.errors import UserError

# Text -> (begin, end) of each entity in characters, in order, without overlap.
Tagger = Callable[[str], list[tuple[int, int]]]

_SEPARATOR = r"[\s\-\u2010-\u2013]+"  # white space, hyphens, en dashes


@dataclass(frozen=True, kw_only=True)
class EntityConfig:
    """Entity spans of the texts.

    Attributes:
        tagger: lexicon finds the longest terms of a list, the same on every machine; scispacy is a trained tagger.
        lexicon: Of `lexicon`: retina, chest, or the path of a yaml like those.
        model: Of `scispacy`: name or folder of an installed model, such as en_core_sci_sm or en_ner_bc5cdr_md.
    """

    tagger: Literal["lexicon", "scispacy"] = "lexicon"
    lexicon: str = "retina"
    model: str = "en_core_sci_sm"

    def __post_init__(self) -> None:
        idle = "model" if self.tagger == "lexicon" else "lexicon"
        if getattr(self, idle) != getattr(EntityConfig, idle):
            raise UserError(
                f"data.entities.{idle} = {getattr(self, idle)}: is not read with data.entities.tagger = {self.tagger}; "
                "remove it or change the tagger"
            )


def build_tagger(config: EntityConfig) -> Tagger:
    """Build the tagger.

    Raises:
        UserError: The lexicon is absent or is none, or the tagger's model is not installed.
    """
    taggers: dict[str, Callable[[], Tagger]] = {
        "lexicon": lambda: LexiconTagger(read_lexicon(config.lexicon).all_terms()),
        "scispacy": lambda: ScispacyTagger(config.model),
    }
    return taggers[config.tagger]()


def describe_tagger(config: EntityConfig) -> dict[str, str | int]:
    """Return what tells one tagger from another, for a run's log."""
    if config.tagger == "scispacy":
        return {"tagger": "scispacy", "model": config.model}
    lexicon = read_lexicon(config.lexicon)
    return {"tagger": "lexicon", "lexicon": lexicon.name, "version": lexicon.version, "sha256": lexicon.sha256}


class LexiconTagger:
    """Finds the terms of a list, from left to right and at each place the longest.

    A term begins and ends where a word does. It is found in any case, with any run of spaces, line breaks and hyphens
    between its words, in the regular plural ("spots", "abscesses", "neuropathies"), and with "e" for its "ae" and "oe"
    (haemorrhage, hemorrhage). One of one or two capitals, such as MA, DR or HE, is found in capitals only, or pronouns
    and titles would be entities.

    Args:
        terms: At least one, each with a letter or digit.
    """

    def __init__(self, terms: Iterable[str]) -> None:
        # Of two alternatives the first that fits is taken: longer ones come first. An "ae" counts as its "e".
        longest_first = sorted({" ".join(_words(term)) for term in terms}, key=lambda term: (-len(_short(term)), term))
        assert longest_first  # no alternative at all would fit everywhere
        alternatives = "|".join(_pattern(term) for term in longest_first)
        self._pattern = re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)", re.IGNORECASE)

    def __call__(self, text: str) -> list[tuple[int, int]]:
        """Return the spans of terms."""
        return [match.span() for match in self._pattern.finditer(text)]


def _words(term: str) -> list[str]:
    return re.split(_SEPARATOR, term.strip())


def _short(term: str) -> str:
    return re.sub("[ao]e", "e", term)


def _pattern(term: str) -> str:
    if re.fullmatch("[A-Z]{1,2}", term):
        return f"(?-i:{term})s?"
    body = _SEPARATOR.join(re.sub("([ao])e", r"\1?e", re.escape(word)) for word in _words(term))
    return f"{body[:-1]}(?:y|ies)" if re.search("[^aeiou]y$", term, re.IGNORECASE) else f"{body}(?:e?s)?"


class ScispacyTagger:
    """Finds what a model of scispaCy takes for an entity.

    Args:
        model: Name or folder of an installed model.

    Raises:
        UserError: spaCy or the model is not installed.
    """

    def __init__(self, model: str) -> None:
        try:
            spacy: Any = importlib.import_module("spacy")
            self._model = spacy.load(model)
        except (ImportError, OSError, ValueError) as error:
            raise UserError(
                f"data.entities.model = {model}: cannot be loaded ({error}); "
                "install spaCy (pip install 'maskedclip-composer[scispacy]') and the model's file from "
                "https://allenai.github.io/scispacy (pip install --no-deps URL), or set data.entities.tagger=lexicon"
            ) from error

    def __call__(self, text: str) -> list[tuple[int, int]]:
        """Return the spans of entities."""
        return [(entity.start_char, entity.end_char) for entity in self._model(text).ents]
