"""Words for a category: a pack of templates and descriptions, from which one prompt is drawn at every access.

The construction is FLAIR's (Silva-Rodriguez et al., 2025): a template around the category or one of its descriptions.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np

from maskedclip_composer.data.schema import TextKind
from maskedclip_composer.errors import UserError

_CATEGORY, _ATTRIBUTE = "{category}", "{attribute}"


@dataclass(frozen=True, kw_only=True)
class Category:
    """One class in the words of a pack.

    Attributes:
        name: How it is called there.
        descriptions: What a photograph of it shows.
        synonyms: Other names; they are recognised and never drawn.
    """

    name: str
    descriptions: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PromptPack:
    """The content of a pack's file; `prompt_files.read_pack` reads and checks it.

    Attributes:
        name: Of the pack.
        version: Raised whenever a draw could come out differently.
        language: Two-letter code.
        licence: Of the wording.
        sources: Where the clinical definitions come from.
        templates: Sentences with {category} and, where wanted, {attribute}.
        attributes: Words about the photograph that take the place of {attribute}; may be "".
        categories: By the name that the records carry.
        zero_shot: Category of each published code, by data set and labelling.
        sha256: Of the file.
    """

    name: str
    version: str
    language: str
    licence: str
    sources: tuple[str, ...]
    templates: tuple[str, ...]
    attributes: tuple[str, ...]
    categories: Mapping[str, Category]
    zero_shot: Mapping[str, Mapping[str, Mapping[str, str]]]
    sha256: str

    def canonical(self, text: str) -> str:
        """Return the category that `text` names, blind to case and spacing; `text` itself in lower case for none."""
        folded = fold(text)
        return self._known.get(folded, folded)

    def prompts(self, text: str, kind: TextKind) -> list[str]:
        """Return all that may stand for `text`: templates times wordings times attributes, repetitions included.

        The wordings of a category are its name and its descriptions, those of a finding the text alone. A sentence
        stays as it is.
        """
        if kind == "sentence":
            return [text]
        category = self.categories.get(self.canonical(text)) if kind == "category" else None
        wordings = (category.name, *category.descriptions) if category else (text,)
        return [fill(*parts) for parts in product(self.templates, wordings, self.attributes)]

    def draw(self, text: str, kind: TextKind, rng: np.random.Generator) -> str:
        """Draw one of `prompts`: every template, wording and attribute equally often."""
        options = self.prompts(text, kind)
        return options[int(rng.integers(len(options)))]

    def class_prompts(self, dataset: str, target: str | None = None) -> dict[str, list[str]]:
        """Return all distinct prompts of each class, for zero-shot classification: those that training draws for it.

        Args:
            dataset: Name as `data_prep list` shows it.
            target: Which of its labellings; None takes the first.

        Raises:
            UserError: The pack has no such data set or labelling.
        """
        targets = self.zero_shot.get(dataset)
        if targets is None:
            known = ", ".join(self.zero_shot) or "none"
            raise UserError(
                f"prompts.pack = {self.name}: has no zero-shot classes of {dataset}, it has {known}; "
                "add the set to `zero_shot` in a pack of your own (docs/prompts.md)"
            )
        target = target or next(iter(targets))
        if target not in targets:
            raise UserError(
                f"prompts.pack = {self.name}: has no zero-shot classes of {dataset} by {target}; "
                f"it has {', '.join(targets)}"
            )
        return {
            code: list(dict.fromkeys(self.prompts(category, "category"))) for code, category in targets[target].items()
        }

    @cached_property
    def _known(self) -> dict[str, str]:
        return {
            fold(name): key
            for key, category in self.categories.items()
            for name in (key, category.name, *category.synonyms)
        }


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """How categories and findings become texts. Sentences are read as they are whatever is set here.

    Attributes:
        pack: Name of a pack that comes with the package, or path of a yaml.
        expert: Whether a description may stand for its category (FLAIR's expert knowledge).
        template: Takes the place of the pack's templates; "{category}" gives the words alone.
    """

    pack: str = "retina-en"
    expert: bool = True
    template: str | None = None

    def __post_init__(self) -> None:
        complaint = self.template is not None and template_complaint(self.template)
        if complaint:
            raise UserError(f"data.prompts.template = {self.template!r}: {complaint}")

    def applied_to(self, pack: PromptPack) -> PromptPack:
        """Return `pack` with what this changes of it."""
        categories = pack.categories
        if not self.expert:
            categories = {key: replace(category, descriptions=()) for key, category in categories.items()}
        templates = pack.templates if self.template is None else (self.template,)
        return replace(pack, categories=categories, templates=templates)


def fold(text: str) -> str:
    """Return `text` as names are compared: in lower case, with single spaces."""
    return " ".join(text.split()).casefold()


def fill(template: str, words: str, attribute: str) -> str:
    """Put words and attribute in their places; an empty attribute leaves no double space."""
    return " ".join(template.replace(_ATTRIBUTE, attribute).replace(_CATEGORY, words).split())


def template_complaint(template: str) -> str:
    """Return what is wrong with a template and how to mend it; empty where it is fine."""
    unknown = set(re.findall(r"\{[^{}]*\}", template)) - {_CATEGORY, _ATTRIBUTE}
    if unknown:
        return f"{sorted(unknown)[0]} is not known; write {_CATEGORY} and, where wanted, {_ATTRIBUTE}"
    if template.count(_CATEGORY) != 1:
        return f"must name {_CATEGORY} once, as in 'A fundus photograph of {_CATEGORY}'"
    return ""
