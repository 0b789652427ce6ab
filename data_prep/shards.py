"""Read photographs of a prepared set by the folder and position that its manifest gives."""

import io
import json
from pathlib import Path

from PIL import Image

from maskedclip_composer.data.limits import FORMATS
from maskedclip_composer.data.pixels import is_pixels, read_pixels


def open_picture(data: bytes) -> Image.Image:
    """Open a stored photograph, whether encoded or plain pixels; raises what PIL raises, or ValueError."""
    return Image.fromarray(read_pixels(data)) if is_pixels(data) else Image.open(io.BytesIO(data), formats=FORMATS)


class Shards:
    """Photographs by folder and position. Reads one record at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._indexes: dict[str, list[dict]] = {}

    def image(self, folder: str, position: int) -> bytes:
        """Return the encoded photograph; raise FileNotFoundError where the folder has no shards."""
        from streaming.base.format import reader_from_json

        if folder not in self._indexes:
            self._indexes[folder] = json.loads((self._root / folder / "index.json").read_bytes())["shards"]
        for shard in self._indexes[folder]:
            if position < shard["samples"]:
                return reader_from_json(str(self._root / folder), None, dict(shard))[position]["image"]
            position -= shard["samples"]
        raise IndexError(f"{folder} has no record {position}")
