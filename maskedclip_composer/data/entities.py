"""Where the entities of a text are: spans that carry the finding, for objectives that hide them."""

import difflib
import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from maskedclip_composer.errors import UserError

# Text -> (begin, end) of each entity in characters, in order, without overlap.
Tagger = Callable[[str], list[tuple[int, int]]]

LEXICONS = Path(__file__).with_name("lexicons")
_TEXTS = ("name", "version", "language", "licence")


@dataclass(frozen=True, kw_only=True)
class EntityConfig:
    """Entity spans of the texts.

    Attributes:
        tagger: lexicon finds the longest terms of a list, the same on every machine; scispacy is a trained tagger.
        lexicon: Of `lexicon`: retina, chest, or the path of a yaml like those.
        model: Of `scispacy`: name of an installed model, such as en_core_sci_sm or en_ner_bc5cdr_md.
    """

    tagger: Literal["lexicon", "scispacy"] = "lexicon"
    lexicon: str = "retina"
    model: str = "en_core_sci_sm"


def build_tagger(config: EntityConfig) -> Tagger:
    """Build the tagger.

    Raises:
        UserError: The lexicon is absent or is none, or the tagger's model is not installed.
    """
    taggers: dict[str, Callable[[], Tagger]] = {
        "lexicon": lambda: LexiconTagger(read_lexicon(config.lexicon)),
        "scispacy": lambda: ScispacyTagger(config.model),
    }
    return taggers[config.tagger]()


class LexiconTagger:
    """Finds the terms of a list: at each place the longest, blind to case, to spaces or hyphens, and to plurals.

    "ae" and "oe" of a term also stand for "e" (haemorrhage, hemorrhage). A term begins and ends where a word does.
    """

    def __init__(self, terms: list[str]) -> None:
        # Of two alternatives the first that fits is taken: longer ones come first.
        longest_first = sorted(
            {" ".join(term.split()).casefold() for term in terms}, key=lambda term: (-len(term), term)
        )
        alternatives = "|".join(_pattern(term) for term in longest_first)
        self._pattern = re.compile(rf"(?<!\w)(?:{alternatives})(?:e?s)?(?!\w)", re.IGNORECASE)

    def __call__(self, text: str) -> list[tuple[int, int]]:
        """Return the spans of terms."""
        return [match.span() for match in self._pattern.finditer(text)]


def _pattern(term: str) -> str:
    words = (re.sub("([ao])e", r"\1?e", re.escape(word)) for word in re.split(r"[\s-]+", term))
    return r"[\s-]+".join(words)


class ScispacyTagger:
    """Finds what a model of scispaCy takes for an entity.

    Args:
        model: Name of an installed model.

    Raises:
        UserError: spaCy or the model is not installed.
    """

    def __init__(self, model: str) -> None:
        try:
            spacy: Any = importlib.import_module("spacy")
            self._model = spacy.load(model)
        except (ImportError, OSError) as error:
            raise UserError(
                f"data.entities.model = {model}: cannot be loaded ({error}); install it as scispaCy's page says "
                "(pip install scispacy and the model's file), or set data.entities.tagger=lexicon"
            ) from error

    def __call__(self, text: str) -> list[tuple[int, int]]:
        """Return the spans of entities."""
        return [(entity.start_char, entity.end_char) for entity in self._model(text).ents]


def read_lexicon(lexicon: str) -> list[str]:
    """Read the terms of the lexicon of that name that comes with the package, or of the file of that path.

    Raises:
        UserError: There is no such lexicon, or the file is none; names what is wrong.
    """
    path = _find(lexicon)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not valid yaml: {error}") from error
    known = {*_TEXTS, "terms"}
    if not isinstance(content, dict) or set(content) != known:
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{path}: must have the keys {', '.join(sorted(known))}; found {found}")
    terms = list(_terms(content["terms"], f"{path}: terms"))
    if not terms:
        raise UserError(f"{path}: terms is empty; without a term every text falls back to random words")
    return terms


def _find(lexicon: str) -> Path:
    if lexicon.endswith((".yaml", ".yml")):
        path = Path(lexicon).expanduser()
        if not path.is_file():
            raise UserError(f"data.entities.lexicon = {lexicon}: no such file; give the path of a yaml (docs/data.md)")
        return path
    shipped = {path.stem: path for path in sorted(LEXICONS.glob("*.yaml"))}
    if lexicon not in shipped:
        near = difflib.get_close_matches(lexicon, shipped, n=1)
        guess = f"do you mean {near[0]}? " if near else ""
        raise UserError(
            f"data.entities.lexicon = {lexicon}: not known; {guess}{', '.join(shipped)} come with the package, "
            "a lexicon of your own is the path of a .yaml"
        )
    return shipped[lexicon]


def _terms(content: Any, where: str) -> Iterator[str]:
    """Yield the strings of nested groups and lists."""
    if isinstance(content, dict):
        for group, value in content.items():
            yield from _terms(value, f"{where}.{group}")
    elif isinstance(content, list):
        for value in content:
            yield from _terms(value, where)
    elif isinstance(content, str) and content.strip():
        yield content
    else:
        raise UserError(f"{where}: {content!r} is no term; write words, in quotes where yaml would read them otherwise")
