"""ODIR-5K (Peking University International Competition on Ocular Disease Intelligent Recognition, 2019).

One row per eye, its texts from that eye's diagnostic keywords. The columns N to O are not read: they are true of the
patient, not of the eye.
"""

import re
from pathlib import Path
from typing import Any

from data_prep.folders import ImageLookup, find_first
from data_prep.readers.command import Reading, add_reader
from data_prep.tables import cell_text, read_table
from maskedclip_composer.errors import UserError

LAYOUT = """\
  ODIR-5K_Training_Annotations*.xlsx   (Kaggle's repack: data.xlsx)
  Training Images/<ID>_<left|right>.jpg   (official: ODIR-5K_Training_Dataset/, ODIR-5K_Training_Images/)
"""
SEPARATOR = "\uff0c"  # the full-width comma, as in the sheet
_SHEETS = ("**/ODIR-5K_Training_Annotations*.xlsx", "**/data.xlsx")
# Kaggle's preprocessed_images hold the same names again, already cropped, and some of the test set.
_FOLDERS = ("**/Training Images", "**/ODIR-5K_Training_Dataset", "**/ODIR-5K_Training_Images")
_COLUMNS = ("ID", "Left-Fundus", "Right-Fundus", "Left-Diagnostic Keywords", "Right-Diagnostic Keywords")

UNUSABLE = frozenset(
    {
        "low image quality",
        "lens dust",
        "image offset",
        "no fundus image",
        "anterior segment image",
        "optic disk photographically invisible",
    }
)
"""Keywords about the photograph, not about the retina that it shows."""


def read(root: Path) -> Reading:
    """Read the training sheet below `root`.

    Raises:
        UserError: Sheet, columns or image folder are missing.
    """
    sheet, folder = find_first(root, _SHEETS), find_first(root, _FOLDERS)
    if sheet is None or folder is None:
        missing = "annotation sheet" if sheet is None else "folder of training images"
        raise UserError(f"--root {root}: no {missing} below it; ODIR-5K is expected as\n{LAYOUT}")
    table = read_table(sheet)
    absent = [column for column in _COLUMNS if column not in table.columns]
    if absent:
        raise UserError(f"sheet {sheet}: has no column {', '.join(absent)}, it has {', '.join(table.columns)}")
    images = ImageLookup(root, folder)
    rows, left_out = [], []
    for cells in table.rows:
        for eye in ("left", "right"):
            name = cell_text(cells[f"{eye.capitalize()}-Fundus"])
            keywords = split_keywords(cells[f"{eye.capitalize()}-Diagnostic Keywords"])
            texts = [keyword for keyword in keywords if keyword not in UNUSABLE]
            image = images.find(name)
            if image is None:
                left_out.append((name, "image is not on disk"))
            elif not texts:
                reason = f"keywords only say: {', '.join(keywords)}" if keywords else "no keywords"
                left_out.append((image, reason))
            else:
                text = SEPARATOR.join(texts)
                row = {"image": image, "text": text, "patient": cell_text(cells["ID"]), "eye": eye, "dataset": "odir5k"}
                rows.append(row)
    return Reading(rows=rows, left_out=left_out, options=("--separator", SEPARATOR, "--label-from-text"))


def split_keywords(cell: Any) -> list[str]:
    """Split a keyword cell at full-width commas and, where a row was typed so, ASCII ones; lower case, each once."""
    keywords = (cell_text(part).lower() for part in re.split(f"[{SEPARATOR},]", cell_text(cell)))
    return list(dict.fromkeys(keyword for keyword in keywords if keyword))


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    add_reader(subparsers, "odir5k", "ODIR-5K, one row per eye with its keywords", LAYOUT, lambda root, _: read(root))
