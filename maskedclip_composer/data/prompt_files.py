"""Read a pack of prompts from its yaml. Whatever is wrong is named with file, key and remedy."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from maskedclip_composer.data.content_files import (
    as_mapping,
    as_text,
    as_texts,
    check_keys,
    find_file,
    load_content,
)
from maskedclip_composer.data.prompts import Category, PromptPack, fold, template_complaint
from maskedclip_composer.errors import UserError

PACKS = Path(__file__).with_name("packs")
_TEXTS = ("name", "version", "language", "licence")
_LISTS = ("sources", "templates", "attributes")


def read_pack(pack: str) -> PromptPack:
    """Read the pack of that name that comes with the package, or the file of that path.

    Raises:
        UserError: There is no such pack, or its content is not what `docs/prompts.md` says.
    """
    path = find_file(pack, PACKS, key="prompts.pack", noun="pack", docs="docs/prompts.md")
    content, sha256 = load_content(path)
    check_keys(content, str(path), (*_TEXTS, *_LISTS, "categories"), ("zero_shot",))
    texts = {key: as_text(content[key], f"{path}: {key}") for key in _TEXTS}
    sources, templates = (as_texts(content[key], f"{path}: {key}") for key in ("sources", "templates"))
    for template in templates:
        complaint = template_complaint(template)
        if complaint:
            raise UserError(f"{path}: templates: {template!r} {complaint}")
    if not templates:
        raise UserError(f"{path}: templates is empty; write one, such as 'A fundus photograph of {{category}}'")
    attributes = as_texts(content["attributes"], f"{path}: attributes", may_be_empty=True) or ("",)
    categories = {
        key: _category(key, value, f"{path}: categories.{key}")
        for key, value in as_mapping(content["categories"], f"{path}: categories").items()
    }
    _refuse_repeated(categories, path)
    zero_shot = {
        dataset: {
            target: _classes(classes, categories, f"{path}: zero_shot.{dataset}.{target}")
            for target, classes in as_mapping(targets, f"{path}: zero_shot.{dataset}").items()
        }
        for dataset, targets in as_mapping(content.get("zero_shot", {}), f"{path}: zero_shot").items()
    }
    return PromptPack(
        **texts,
        sources=sources,
        templates=templates,
        attributes=attributes,
        categories=categories,
        zero_shot=zero_shot,
        sha256=sha256,
    )


def _category(key: str, value: Any, where: str) -> Category:
    content = as_mapping(value, where)
    check_keys(content, where, (), ("name", "descriptions", "synonyms"))
    return Category(
        name=as_text(content.get("name", key), f"{where}.name"),
        descriptions=as_texts(content.get("descriptions", []), f"{where}.descriptions"),
        synonyms=as_texts(content.get("synonyms", []), f"{where}.synonyms"),
    )


def _refuse_repeated(categories: dict[str, Category], path: Path) -> None:
    """Refuse words that stand for two categories: the same text would be a positive and a negative of one image."""
    owners: dict[str, str] = {}
    for key, category in categories.items():
        names = dict.fromkeys((fold(key), fold(category.name)))
        for words in (*names, *map(fold, category.synonyms), *map(fold, category.descriptions)):
            if words in owners:
                raise UserError(
                    f"{path}: categories.{key}: {words!r} is given twice, first in categories.{owners[words]}; "
                    "take one of them out: words belong to one category"
                )
            owners[words] = key


def _classes(value: Any, categories: Iterable[str], where: str) -> dict[str, str]:
    classes = {code: as_text(category, f"{where}.{code}") for code, category in as_mapping(value, where).items()}
    known = set(categories)
    for code, category in classes.items():
        if category not in known:
            near = difflib.get_close_matches(category, known, n=1)
            guess = f"do you mean {near[0]!r}? " if near else ""
            raise UserError(f"{where}.{code}: {category!r} is not one of `categories`; {guess}or add it there")
    return classes
