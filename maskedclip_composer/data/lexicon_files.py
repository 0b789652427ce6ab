"""Read a lexicon, the terms that count as entities, from its yaml."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskedclip_composer.data.content_files import as_mapping, as_text, as_texts, check_keys, find_file, load_content
from maskedclip_composer.errors import UserError

LEXICONS = Path(__file__).with_name("lexicons")
_TEXTS = ("name", "version", "language", "licence")


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """Terms of a field.

    Attributes:
        name: What it is called.
        version: Changes with the terms.
        language: Of the terms, such as `en`.
        licence: Of the list.
        sources: What the terms were collected from.
        terms: By group; groups are for readers only.
        sha256: Of the file.
    """

    name: str
    version: str
    language: str
    licence: str
    sources: tuple[str, ...]
    terms: dict[str, tuple[str, ...]]
    sha256: str

    def all_terms(self) -> list[str]:
        """Return the terms of all groups."""
        return [term for group in self.terms.values() for term in group]


def read_lexicon(lexicon: str) -> Lexicon:
    """Read the lexicon of that name that comes with the package, or the file of that path.

    Raises:
        UserError: There is no such lexicon, or its content is not what `docs/text.md` says; names what is wrong.
    """
    path = find_file(lexicon, LEXICONS, key="data.entities.lexicon", noun="lexicon", docs="docs/text.md")
    content, sha256 = load_content(path)
    check_keys(content, str(path), (*_TEXTS, "sources", "terms"), ())
    texts = {key: as_text(content[key], f"{path}: {key}") for key in _TEXTS}
    sources = as_texts(content["sources"], f"{path}: sources")
    groups = as_mapping(content["terms"], f"{path}: terms")
    terms = {group: tuple(_terms(value, f"{path}: terms.{group}")) for group, value in groups.items()}
    if not any(terms.values()):
        raise UserError(f"{path}: terms holds no term, so no text would have an entity; write some")
    return Lexicon(**texts, sources=sources, terms=terms, sha256=sha256)


def _terms(content: Any, where: str) -> Iterator[str]:
    """Yield the terms of a list; lists in it are rows of terms."""
    if not isinstance(content, list):
        raise UserError(f"{where}: must be a list of terms, found {content!r}; write `- ` before each")
    for item in content:
        if isinstance(item, list):
            yield from _terms(item, where)
            continue
        term = as_text(item, where)
        if not any(character.isalnum() for character in term):
            raise UserError(f"{where}: {term!r} has neither letter nor digit; take it out")
        yield term
