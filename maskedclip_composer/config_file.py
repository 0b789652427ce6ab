"""The one place where a yaml becomes dataclasses; light, so that errors come at once."""

import difflib
import io
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TypeVar, get_args, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from maskedclip_composer.config_text import LOADER, MAX_DEPTH, check_depth, check_texts, check_values
from maskedclip_composer.errors import UserError

T = TypeVar("T")


def load_config(cls: type[T], path: str, overrides: list[str]) -> T:
    """Read a yaml, apply dotted overrides (`data.paired.batch_size=64`) and return the checked dataclass.

    Raises:
        UserError: The file is missing or is no yaml; a key is unknown (with the nearest known one), a value has the
            wrong type, a mandatory value is absent, or values contradict each other; see also `config_text.py`.
    """
    text = _text(Path(path))
    loaded = _parsed(text, path)
    dotted = _dotted(overrides)
    _refuse_bare_keys(loaded, cls, path, _bare_keys(text))
    try:
        merged = OmegaConf.merge(OmegaConf.structured(cls), loaded, dotted)
        result = OmegaConf.to_object(merged)
    except ConfigKeyError as error:
        raise UserError(f"{path}: {_unknown_key(error)}") from error
    except MissingMandatoryValue as error:
        raise UserError(
            f"{path}: {error.full_key or error.key} is missing and has no default.\nAdd it to the yaml "
            "or give it as key=value."
        ) from error
    except OmegaConfBaseException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        where = f"{path}: {error.full_key}" if error.full_key else path
        raise UserError(f"{where}: {str(error).splitlines()[0]}") from error
    except (TypeError, AttributeError) as error:  # of OmegaConf, when a list meets a mapping
        raise UserError(f"{path}: {error}") from error
    assert isinstance(result, cls)
    check_values(result, path)
    return result


def _text(path: Path) -> str:
    if not path.is_file():
        siblings = [str(p) for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        close = difflib.get_close_matches(str(path), siblings, n=1, cutoff=0.3)
        hint = f"Did you mean {close[0]}?" if close else "Give the path of a yaml, for example yamls/pretrain.yaml."
        raise UserError(f"{path} does not exist.\n{hint}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid yaml: {error}; save it as UTF-8.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error


def _parsed(text: str, path: str) -> DictConfig:
    check_depth(text, path)
    try:
        loaded = OmegaConf.load(io.StringIO(text))
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:  # ValueError: a date such as 2020-99-99
        raise UserError(f"{path} is not valid yaml: {error}") from error
    except OSError:  # OmegaConf's error about a text that is one number
        loaded = None
    if not isinstance(loaded, DictConfig):
        raise UserError(f"{path} must hold keys and values.")
    check_texts(OmegaConf.to_container(loaded), path)
    return loaded


def _dotted(overrides: list[str]) -> DictConfig:
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not value or "\0" in override:
            raise UserError(
                f"Override {override!r} is not of the form key=value, for example seed=3 or data.paired=null."
            )
        check_depth(value, f"Override {key}")
        if key.count(".") + key.count("[") > MAX_DEPTH:
            raise UserError(f"Override {key} nests more than {MAX_DEPTH} keys; take some levels out.")
    try:
        dotted = OmegaConf.from_dotlist(overrides)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, LookupError) as error:
        raise UserError(f"An override is not of the form key=value: {error}") from error
    check_texts(OmegaConf.to_container(dotted), "Override")
    return dotted


def _bare_keys(text: str) -> set[str]:
    """Return the dotted keys without a value, not even the word null."""

    def walk(node: yaml.Node | None, prefix: str) -> Iterator[str]:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = f"{prefix}{key.value}"
                if isinstance(value, yaml.ScalarNode) and value.value == "" and not value.style:
                    yield name
                yield from walk(value, f"{name}.")

    # The loader that OmegaConf uses: PyYAML's two differ in what they take.
    return set(walk(yaml.compose(text, Loader=LOADER), ""))


def _refuse_bare_keys(loaded: DictConfig, cls: type, path: str, bare: set[str], prefix: str = "") -> None:
    """Refuse `mim:` without a value: yaml reads it as null, which would silently mean off.

    `mim: null` is understood: a resolved config says so of what is off.
    """
    for name, hint in get_type_hints(cls).items():
        part = next((option for option in (hint, *get_args(hint)) if is_dataclass(option)), None)
        if part is None or name not in loaded:
            continue
        value = loaded._get_node(name)
        if isinstance(value, DictConfig) and not value._is_none():
            _refuse_bare_keys(value, part, path, bare, f"{prefix}{name}.")  # pyright: ignore[reportArgumentType]
        elif type(None) in get_args(hint) and f"{prefix}{name}" in bare:
            raise UserError(
                f"{path}: {prefix}{name} has no value, which yaml reads as null, that is off.\n"
                f"Write `{name}: {{}}` to switch it on with its defaults, or remove the line."
            )


def _unknown_key(error: ConfigKeyError) -> str:
    first, *_ = str(error).splitlines()
    key = error.full_key or str(error.key)
    known = [field.name for field in fields(error.parent_node._metadata.object_type)] if _is_structured(error) else []
    close = difflib.get_close_matches(key.rsplit(".", 1)[-1], known, n=1)
    if close:
        return f"unknown key {key}.\nDid you mean {close[0]}?"
    return f"unknown key {key}.\nKnown keys there: {', '.join(known)}." if known else first


def _is_structured(error: ConfigKeyError) -> bool:
    return hasattr(getattr(error.parent_node, "_metadata", None), "object_type") and hasattr(
        error.parent_node._metadata.object_type, "__dataclass_fields__"
    )
