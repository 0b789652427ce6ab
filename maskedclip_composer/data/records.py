"""What is known of every photograph of a set, stored or not: the columns of `manifest.parquet` beside the shards."""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow

NAME = "manifest.parquet"
STORED, QUARANTINED, LEFT_OUT = "stored", "quarantined", "left_out"
CONTAMINATED, DUPLICATE = "contaminated", "duplicate"
STATUSES = (STORED, QUARANTINED, LEFT_OUT, CONTAMINATED, DUPLICATE)

_text = pyarrow.string()
_texts = pyarrow.list_(_text)
_whole = pyarrow.int32()
_share = pyarrow.float32()

SCHEMA = pyarrow.schema(
    [
        # stored; quarantined: unusable file or repeated row; left_out: the reader took it not; contaminated: of a
        # downstream test set; duplicate: byte-identical to an earlier photograph of a build
        ("status", _text),
        ("reason", _text),  # why it is not stored, else empty
        ("row", pyarrow.int64()),  # of the table or sheet, as its reader counts; 0 where there is none
        ("folder", _text),  # subfolder of the shards, such as train; empty where they lie at the top
        ("position", pyarrow.int64()),  # of the record among those of its folder; -1 where it is not stored
        ("dataset", _text),
        ("image", _text),  # path of the original below the image root
        ("split", _text),  # official or drawn
        ("patient", _text),  # empty where unknown, here and below
        ("eye", _text),
        ("visit", _text),
        ("label", _text),  # published code of the one class; all labels of a multilabel record, see `join_labels`
        ("label_name", _text),  # its category, or theirs in the order of the labels
        ("texts", _texts),
        ("text_categories", _texts),  # of each text; empty where it has none
        ("text_kinds", _texts),  # of each text: category, finding or sentence
        ("licence", _text),
        ("sha256", _text),  # of the original file; empty where it could not be read, and so on
        ("phash", pyarrow.binary()),  # 32 bytes, of the retina
        ("original_width", _whole),  # pixels, upright
        ("original_height", _whole),
        ("width", _whole),  # as stored
        ("height", _whole),
        ("crop_status", _text),
        ("crop_box", pyarrow.list_(_whole)),  # left, top, right, bottom in pixels of the original; null: not cropped
        ("bytes", pyarrow.int64()),  # as stored
        ("verbatim", pyarrow.bool_()),
        ("sharpness", _share),  # see `quality.py`
        ("brightness", _share),
        ("clipped", _share),
        ("field", _share),
    ]
)

BETWEEN = "|"
"""Stands between several labels that are one text; no label holds it."""


def join_labels(labels: Iterable[str]) -> str:
    """Write labels as one text, the same for every order of them."""
    return BETWEEN.join(sorted(set(labels)))


def split_labels(text: str) -> tuple[str, ...]:
    """Undo `join_labels`."""
    return tuple(label for label in text.split(BETWEEN) if label)


def labels_of(record: Mapping[str, Any]) -> list[str]:
    """Return what a record of `SCHEMA` is counted under: the categories of its texts, or its labels."""
    return [label for label in record["text_categories"] if label] or list(split_labels(record["label"]))


BUILD_SCHEMA = pyarrow.schema([("group", _text), ("set", _text), *SCHEMA])
"""Of the one manifest of a build; `folder` starts at its root, such as downstream/idrid/train."""
