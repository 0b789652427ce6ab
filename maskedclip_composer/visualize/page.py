"""`index.html`: all pictures in one file that needs no other, each with how to read it and what it does not show."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from maskedclip_composer.report.embed import data_uri
from maskedclip_composer.visualize.drawn import Drawn

_STYLE = Path(__file__).parents[1] / "report"  # page.css, the look of the evaluation's report
_WIDTH = 1600  # pixels that a picture may have in the page
_QUALITY = 88


def page(
    drawn: Sequence[Drawn],
    *,
    title: str,
    facts: Mapping[str, str],
    left_out: Mapping[str, str],
    unreadable: Sequence[tuple[str, str]],
    command: str,
) -> str:
    """Return the page; every text is escaped.

    Args:
        drawn: The pictures.
        title: Of the page.
        facts: About the model and the photographs.
        left_out: Kinds of pictures that were not drawn, and why.
        unreadable: Photographs by name, and why.
        command: That made it.
    """
    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, _STYLE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = [
        {"drawn": one, "uri": _embedded(one.png), "numbers": json.dumps(one.numbers, indent=1)} for one in drawn
    ]
    return environment.get_template("index.html").render(
        pictures=pictures,
        title=title,
        facts=facts,
        left_out=left_out,
        unreadable=unreadable,
        command=command,
        width=_WIDTH,
    )


def _embedded(png: bytes) -> str:
    """Return a picture as WebP, a tenth of the file's size; the PNG lies beside the page."""
    with Image.open(io.BytesIO(png)) as opened:
        picture = opened.convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=_QUALITY)
    return data_uri(buffer.getvalue(), "image/webp")
