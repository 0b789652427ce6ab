"""Read photographs of a prepared set by the folder and position that its manifest gives."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

from maskedclip_composer.data.limits import FORMATS
from maskedclip_composer.data.pixels import is_pixels, read_pixels


def open_picture(data: bytes) -> Image.Image:
    """Open a stored photograph, whether encoded or plain pixels; raises what PIL raises, or ValueError."""
    return Image.fromarray(read_pixels(data)) if is_pixels(data) else Image.open(io.BytesIO(data), formats=FORMATS)


def open_shards(folder: Path, *, key: str) -> list[Any]:
    """Return Streaming's readers of the shards in `folder`.

    Raises:
        FileNotFoundError: There is no index.json.
        UserError: It says what it may not, a column that would be unpickled for one; see `index.parse_index`.
    """
    from streaming.base.format import reader_from_json

    from maskedclip_composer.data.index import INDEX, listed_shards, parse_index

    path = folder / INDEX
    raw = path.read_bytes()
    parse_index(raw, str(path), key=key)
    return [reader_from_json(str(folder), None, shard) for shard in listed_shards(raw)]


class Shards:
    """Photographs by folder and position. Reads one record at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._readers: dict[str, list[Any]] = {}

    def image(self, folder: str, position: int) -> bytes:
        """Return the encoded photograph; raise FileNotFoundError where the folder has no shards."""
        if folder not in self._readers:
            self._readers[folder] = open_shards(self._root / folder, key=str(self._root))
        for reader in self._readers[folder]:
            if position < len(reader):
                return reader[position]["image"]
            position -= len(reader)
        raise IndexError(f"{folder} has no record {position}")
