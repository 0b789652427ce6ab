"""Read a pack of prompts from its yaml. Whatever is wrong is named with file, key and remedy."""

import difflib
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

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
    path = _find(pack)
    raw = path.read_bytes()
    try:
        loaded = yaml.load(raw, _UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not valid yaml: {error}") from error
    content = _mapping(loaded, str(path))
    _check_keys(content, str(path), (*_TEXTS, *_LISTS, "categories"), ("zero_shot",))
    texts = {key: _text(content[key], f"{path}: {key}") for key in _TEXTS}
    sources, templates = (_list(content[key], f"{path}: {key}") for key in ("sources", "templates"))
    for template in templates:
        complaint = template_complaint(template)
        if complaint:
            raise UserError(f"{path}: templates: {template!r} {complaint}")
    if not templates:
        raise UserError(f"{path}: templates is empty; write one, such as 'A fundus photograph of {{category}}'")
    attributes = _list(content["attributes"], f"{path}: attributes", may_be_empty=True) or ("",)
    categories = {
        key: _category(key, value, f"{path}: categories.{key}")
        for key, value in _mapping(content["categories"], f"{path}: categories").items()
    }
    _refuse_repeated(categories, path)
    zero_shot = {
        dataset: {
            target: _classes(classes, categories, f"{path}: zero_shot.{dataset}.{target}")
            for target, classes in _mapping(targets, f"{path}: zero_shot.{dataset}").items()
        }
        for dataset, targets in _mapping(content.get("zero_shot", {}), f"{path}: zero_shot").items()
    }
    return PromptPack(
        **texts,
        sources=sources,
        templates=templates,
        attributes=attributes,
        categories=categories,
        zero_shot=zero_shot,
        sha256=hashlib.sha256(raw).hexdigest(),
    )


def _find(pack: str) -> Path:
    if pack.endswith((".yaml", ".yml")):
        path = Path(pack).expanduser()
        if not path.is_file():
            raise UserError(f"prompts.pack = {pack}: no such file; give the path of a yaml (docs/prompts.md)")
        return path
    shipped = {path.stem: path for path in sorted(PACKS.glob("*.yaml"))}
    if pack not in shipped:
        near = difflib.get_close_matches(pack, shipped, n=1)
        guess = f"do you mean {near[0]}? " if near else ""
        raise UserError(
            f"prompts.pack = {pack}: not known; {guess}{', '.join(shipped)} come with the package, "
            "a pack of your own is the path of a .yaml"
        )
    return shipped[pack]


def _category(key: str, value: Any, where: str) -> Category:
    content = _mapping(value, where)
    _check_keys(content, where, (), ("name", "descriptions", "synonyms"))
    return Category(
        name=_text(content.get("name", key), f"{where}.name"),
        descriptions=_list(content.get("descriptions", []), f"{where}.descriptions"),
        synonyms=_list(content.get("synonyms", []), f"{where}.synonyms"),
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
    classes = {code: _text(category, f"{where}.{code}") for code, category in _mapping(value, where).items()}
    known = set(categories)
    for code, category in classes.items():
        if category not in known:
            near = difflib.get_close_matches(category, known, n=1)
            guess = f"do you mean {near[0]!r}? " if near else ""
            raise UserError(f"{where}.{code}: {category!r} is not one of `categories`; {guess}or add it there")
    return classes


def _check_keys(content: dict[str, Any], where: str, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    known = (*required, *optional)
    unknown = [key for key in content if key not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        guess = f"do you mean {near[0]}?" if near else f"known keys there: {', '.join(known)}"
        raise UserError(f"{where}: unknown key {unknown[0]}; {guess}")
    missing = [key for key in required if key not in content]
    if missing:
        raise UserError(f"{where}: has no key {missing[0]}; add it")


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where}: must hold keys and values, found {value!r}")
    for key in value:
        _text(key, f"{where}: key {key!r}")
    return value


def _list(value: Any, where: str, *, may_be_empty: bool = False) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise UserError(f"{where}: must be a list of texts, found {value!r}; write `- ` before each")
    return tuple(_text(item, where, may_be_empty=may_be_empty) for item in value)


def _text(value: Any, where: str, *, may_be_empty: bool = False) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: {value!r} is no text; write it in quotes")
    if not value.strip() and not may_be_empty:
        raise UserError(f"{where}: is empty; write something, or take it out")
    return value


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML lets the last of two equal keys win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = [key for number, key in enumerate(keys) if key in keys[:number]]
        if repeated:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {repeated[0]!r} is given twice; take one of them out", node.start_mark
            )
        return super().construct_mapping(node, deep)
