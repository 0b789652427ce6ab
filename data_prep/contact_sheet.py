"""A picture of many photographs of a prepared set, to see at a glance whether they were cropped as they should be."""

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.compute as pc
import pyarrow.parquet
from PIL import Image, ImageDraw, ImageFont, ImageOps

from data_prep.shards import Shards, open_picture
from maskedclip_composer.data.records import STORED

NAME = "contact_sheet.jpg"
_COLUMNS, _SIDE, _LINE = 8, 160, 16  # pixels


def write_contact_sheet(folder: Path, manifest: Path, *, regular: int = 48, failed: int = 16) -> None:
    """Write `contact_sheet.jpg` of the shards below `folder`.

    Photographs evenly spread over the set, then, framed in red, some of those in which no retina was found.

    Args:
        folder: Of the shards, with the folders that the manifest names in it.
        manifest: `manifest.parquet` of the set.
        regular: Photographs to show.
        failed: Photographs without a retina to show.
    """
    records = pyarrow.parquet.read_table(manifest, columns=["status", "folder", "position", "image", "crop_status"])
    stored = records.filter(pc.field("status") == STORED)
    without = pc.field("crop_status") == "failed"
    chosen = [(row, False) for row in _spread(stored.filter(~without), regular)]
    chosen += [(row, True) for row in _spread(stored.filter(without), failed)]
    columns = max(1, min(_COLUMNS, len(chosen)))
    rows = max(1, -(-len(chosen) // columns))
    sheet = Image.new("RGB", (columns * _SIDE, rows * (_SIDE + _LINE)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    shards = Shards(folder)
    for number, (record, is_failed) in enumerate(chosen):
        x, y = number % columns * _SIDE, number // columns * (_SIDE + _LINE)
        with open_picture(shards.image(record["folder"], record["position"])) as stored:
            # Small ones are enlarged: what matters here is where the crop lies.
            picture = ImageOps.contain(stored, (_SIDE - 6, _SIDE - 6))
        sheet.paste(picture, (x + (_SIDE - picture.width) // 2, y + (_SIDE - picture.height) // 2))
        if is_failed:
            draw.rectangle((x, y, x + _SIDE - 1, y + _SIDE - 1), outline="red", width=3)
        name = record["image"].rsplit("/", 1)[-1]
        caption = name if len(name) < 28 else f"...{name[-25:]}"
        colour = "red" if is_failed else "black"
        draw.text((x + _SIDE // 2, y + _SIDE), caption, fill=colour, font=font, anchor="ma")
    sheet.save(folder / NAME, quality=85)


def _spread(records: pyarrow.Table, count: int) -> list[dict]:
    places = np.unique(np.linspace(0, max(0, len(records) - 1), min(count, len(records))).astype(int))
    return records.select(["folder", "position", "image"]).take(places).to_pylist()
