"""Hits as a page with their pictures, in one file that loads nothing."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from maskedclip_composer.use.hits import Hits
from maskedclip_composer.use.image_files import one_file
from maskedclip_composer.use.one_photograph import Photographs
from maskedclip_composer.use.transform import PhotographTransform

_SIDE = 224
"""Of a thumbnail, in pixels."""


def hits_page(found: Sequence[Hits], photographs: Photographs, transform: PhotographTransform, *, title: str) -> str:
    """Return the page.

    Args:
        found: Queries with their hits.
        photographs: Those of the table, in its order.
        transform: Crops them as the model saw them.
        title: Of the page.
    """
    rows = sorted({hit.row for of_query in found for hit in of_query.hits})
    thumbnails = {row: thumbnail(photographs.picture(row, transform)) for row in rows}
    own = {
        of_query.query.file: thumbnail(one_file(of_query.query.file).picture(0, transform))
        for of_query in found
        if of_query.query.file is not None
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("hits.html").render(title=title, found=found, thumbnails=thumbnails, own=own)


def thumbnail(picture: UInt8[np.ndarray, "height width 3"] | str) -> str:
    """Return a picture as a data address of a small JPEG; empty for one that cannot be read."""
    if isinstance(picture, str):
        return ""
    image = Image.fromarray(picture)
    image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
