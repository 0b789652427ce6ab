"""Pictures inside a page: as data URIs, small enough for all of them together."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

_WIDTHS = (1400, 1000, 720, 500, 360)  # pixels; tried in turn
_QUALITY = 80


def data_uri(content: bytes, kind: str) -> str:
    """Return `content` as an address that needs no file; `kind` is its MIME type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def shrink_to_fit(paths: Sequence[Path], budget: int) -> Mapping[Path, bytes | None]:
    """Encode pictures as WebP so that all together have at most `budget` bytes.

    Each may take an equal share of what is left, in the largest width that keeps to it. What does not fit in the
    smallest width, or is no picture, is None.
    """
    content: dict[Path, bytes | None] = {}
    for done, path in enumerate(paths):
        share = budget // (len(paths) - done)
        try:
            content[path] = _shrink(path, share)
        except OSError:
            content[path] = None
        budget -= len(content[path] or b"")
    return content


def _shrink(path: Path, share: int) -> bytes | None:
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    for width in dict.fromkeys(min(width, picture.width) for width in _WIDTHS):
        smaller = picture.copy()
        smaller.thumbnail((width, picture.height), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        smaller.save(buffer, "WEBP", quality=_QUALITY)
        if buffer.tell() <= share:
            return buffer.getvalue()
    return None
