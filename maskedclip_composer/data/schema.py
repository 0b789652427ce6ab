"""Columns of the MDS shards: the one place that writer and reader share.

A paired record carries texts and their labels, a labelled record one class, a multilabel record every label that is
true of it, an unpaired record none of these. The photograph is stored as its own encoded bytes: Streaming's `jpeg`
encoding would compress it again at quality 75; or as plain pixels in NumPy's .npy format (`pixels.py`).
"""

import hashlib
from typing import Literal

Kind = Literal["paired", "unpaired", "labelled", "multilabel"]

EVALUATION_KINDS: tuple[Kind, ...] = ("labelled", "multilabel")
"""Kinds that downstream evaluation reads: divided into train, val and test, a folder each."""

TextKind = Literal["category", "finding", "sentence"]
"""What a text is, and so what training may do with it.

category: Name of a class, made from a label: a description of the class may take its place, in a template.
finding: A clinician's own words for a finding: they stay as they are, in a template.
sentence: Whole sentences, or any text that is to be read as it is written.
"""

IMAGE_COLUMNS = {
    "image": "bytes",  # encoded JPEG or PNG, or plain pixels, as prepared
    "width": "int32",
    "height": "int32",
    "dataset": "str",
    "patient": "str",  # empty where unknown, here and below
    "eye": "str",  # "left", "right" or empty
    "split": "str",
    "source": "str",  # path of the original below the image root, or its file name
    "sha256": "str",  # of the original file
    "crop": "json",  # {"status": ..., "box": [left, top, right, bottom] or null} in pixels of the original
}

COLUMNS: dict[Kind, dict[str, str]] = {
    "unpaired": IMAGE_COLUMNS,
    # texts: list of str, all true of the image, one is drawn per access.
    # labels: list of str of the same length, the category of each text; "" where the text has none.
    # text_kinds: list of TextKind of the same length.
    "paired": IMAGE_COLUMNS | {"texts": "json", "labels": "json", "text_kinds": "json"},
    "labelled": IMAGE_COLUMNS | {"label": "str"},
    # labels: list of str, each once; empty where none is true, which a set with a class "normal" does not have.
    "multilabel": IMAGE_COLUMNS | {"labels": "json"},
}

TRAINING_COLUMNS = frozenset({"image", "dataset", "source", "texts", "labels", "text_kinds"})
"""What training reads of a record; the others are for people, evaluation and checks."""


def label_id(category: str) -> int:
    """Map a category to an id in [0, 2**63) that is the same in every data set, process and run.

    Two records are positives of each other exactly when their ids agree, so the string is compared as written: readers
    normalise case and spelling before they write it.
    """
    return int.from_bytes(hashlib.blake2b(category.encode(), digest_size=8).digest(), "big") >> 1
