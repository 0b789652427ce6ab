"""Read the yamls that hold content, packs of prompts and lexicons. Whatever is wrong is named with file and remedy."""

import difflib
import hashlib
import os
import reprlib
from pathlib import Path
from typing import Any

import yaml

from maskedclip_composer.errors import UserError


def find_file(name: str, shipped_in: Path, *, key: str, noun: str, docs: str) -> Path:
    """Return the path of the file of that name that comes with the package, or `name` itself where it is a path.

    Args:
        name: A name without ending, or a path that ends in .yaml or .yml.
        shipped_in: Folder of those that come with the package.
        key: Of the config, for messages.
        noun: What the file is, for messages.
        docs: Page that explains it, for messages.

    Raises:
        UserError: There is no such file.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(os.path.expanduser(name))
        if not path.is_file():
            raise UserError(f"{key} = {name}: no such file; give the path of a yaml ({docs})")
        return path
    shipped = {path.stem: path for path in sorted(shipped_in.glob("*.yaml"))}
    if name not in shipped:
        near = difflib.get_close_matches(name, shipped, n=1)
        guess = f"do you mean {near[0]}? " if near else ""
        raise UserError(
            f"{key} = {name}: not known; {guess}{', '.join(shipped)} come with the package, "
            f"a {noun} of your own is the path of a .yaml"
        )
    return shipped[name]


def load_content(path: Path) -> tuple[dict[str, Any], str]:
    """Return the keys and values of a yaml and the sha256 of its bytes.

    Raises:
        UserError: It is no yaml, gives a key twice, or holds something else than keys and values.
    """
    raw = path.read_bytes()
    try:
        loaded = yaml.load(raw, _UniqueKeys)
    except (yaml.YAMLError, ValueError, AttributeError) as error:  # the last two: of dates that are none
        raise UserError(f"{path}: is not valid yaml: {error}") from error
    except RecursionError as error:
        raise UserError(f"{path}: nests too deeply; take some levels out") from error
    return as_mapping(loaded, str(path)), hashlib.sha256(raw).hexdigest()


def check_keys(content: dict[str, Any], where: str, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    """Raise UserError at the first key that is unknown, or else missing."""
    known = (*required, *optional)
    unknown = [key for key in content if key not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        guess = f"do you mean {near[0]}?" if near else f"known keys there: {', '.join(known)}"
        raise UserError(f"{where}: unknown key {unknown[0]}; {guess}")
    missing = [key for key in required if key not in content]
    if missing:
        raise UserError(f"{where}: has no key {missing[0]}; add it")


def as_mapping(value: Any, where: str) -> dict[str, Any]:
    """Return `value`, which must have texts as keys."""
    if not isinstance(value, dict):
        # Shortened: of aliases of aliases the whole would fill the memory.
        raise UserError(f"{where}: must hold keys and values, found {reprlib.repr(value)}")
    for key in value:
        as_text(key, f"{where}: key {key!r}")
    return value


def as_texts(value: Any, where: str, *, may_be_empty: bool = False) -> tuple[str, ...]:
    """Return the texts of a list, which may be empty; `may_be_empty` is about each text."""
    if not isinstance(value, list):
        raise UserError(f"{where}: must be a list of texts, found {reprlib.repr(value)}; write `- ` before each")
    return tuple(as_text(item, where, may_be_empty=may_be_empty) for item in value)


def as_text(value: Any, where: str, *, may_be_empty: bool = False) -> str:
    """Return `value`, which must be a text."""
    if not isinstance(value, str):
        raise UserError(f"{where}: {reprlib.repr(value)} is no text; write it in quotes")
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
