"""What neither a config's text nor its values may hold, whatever class they are for."""

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

from maskedclip_composer.errors import UserError

MAX_DEPTH = 50
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# A reference to another key, with no reference inside it. What calls a resolver has a colon.
_REFERENCE = re.compile(r"\$\{[^${}:]*\}")


def check_depth(text: str, where: str) -> None:
    """Refuse yaml that is nested deeper than `MAX_DEPTH`: libyaml's composer overflows the stack and kills the process.

    Raises:
        UserError: It is, and `where` names it. What else is wrong with the text is left to who loads it.
    """
    depth = 0
    try:
        for event in yaml.parse(text, Loader=LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise UserError(f"{where} nests more than {MAX_DEPTH} lists and mappings; take some levels out.")
    except (yaml.YAMLError, UnicodeError):
        return


def check_texts(tree: Any, where: str) -> None:
    """Refuse texts before anything is made of them: with a NUL, or with a reference that runs something.

    The value of an environment variable, `${oc.env:HOME}`, may be a secret, and would be printed, saved and logged with
    the config. References to other keys, `${output}`, may stay.

    Raises:
        UserError: There is one; its key is named.
    """
    for key, value in _leaves(tree):
        text = value if isinstance(value, str) else ""
        if "\0" in text:
            raise UserError(f"{where}: {key} holds a NUL byte; write it as plain text.")
        while (simpler := _REFERENCE.sub("", text)) != text:
            text = simpler
        if "${" in text:
            raise UserError(
                f"{where}: {key} calls a resolver, and its result would be saved and logged with the config.\n"
                f"Write the value, or give {key}=... on the command line; credentials belong into the environment."
            )


def check_values(config: Any, where: str) -> None:
    """Refuse values that a dataclass's own checks would let pass, and texts that the saved config would not give back.

    Raises:
        UserError: A number is NaN or has more than 64 bits, or a text holds `${`.
    """
    for key, value in _leaves(dataclasses.asdict(config)):
        if isinstance(value, float) and math.isnan(value):
            raise UserError(f"{where}: {key} is not a number; write one.")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise UserError(f"{where}: {key} does not fit into 64 bits; write a smaller number.")
        if isinstance(value, str) and "${" in value:
            raise UserError(f"{where}: {key} holds the characters ${{, which the saved config would take for a key.")


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what is neither list nor mapping, with its dotted key; keys of mappings too, as values of themselves."""
    if isinstance(value, dict):
        for name, item in value.items():
            inner = f"{key}.{name}" if key else str(name)
            yield inner, name
            yield from _leaves(item, inner)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{key}[{number}]")
    else:
        yield key, value
