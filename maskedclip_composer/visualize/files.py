"""The files of a call: a picture of each kind, their numbers, and the page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskedclip_composer.callbacks.atomic import write_whole
from maskedclip_composer.callbacks.redaction import redact_text
from maskedclip_composer.visualize.drawn import Drawn
from maskedclip_composer.visualize.page import page


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was drawn.

    Attributes:
        title: Of the page.
        facts: About the model and the photographs.
        drawn: The pictures.
        left_out: Kinds that were not drawn, and why.
        unreadable: Photographs by name, and why.
    """

    title: str
    facts: Mapping[str, str]
    drawn: Sequence[Drawn]
    left_out: Mapping[str, str]
    unreadable: Sequence[tuple[str, str]] = ()


def write_files(folder: Path, result: Result, command: str) -> list[Path]:
    """Write index.html, pictures.json and KIND.png, and return them in this order; credentials are hidden.

    Args:
        folder: Where to.
        result: What to write.
        command: That made it, for the page.
    """
    facts = {name: redact_text(value) for name, value in result.facts.items()}
    content: dict[str, str | bytes] = {f"{one.name}.png": one.png for one in result.drawn}
    numbers = {
        **facts,
        "pictures": {one.name: one.numbers for one in result.drawn},
        "left_out": dict(result.left_out),
        "unreadable": dict(result.unreadable),
    }
    content["pictures.json"] = json.dumps(numbers, indent=2, ensure_ascii=False) + "\n"
    content["index.html"] = page(
        result.drawn,
        title=result.title,
        facts=facts,
        left_out=result.left_out,
        unreadable=result.unreadable,
        command=redact_text(command),
    )
    for name, value in content.items():  # the page last: it shows that all is there
        write_whole(folder / name, value)
    return [folder / name for name in ("index.html", "pictures.json", *(f"{one.name}.png" for one in result.drawn))]
