"""Convert one part: the function that every engine runs, on this machine or on a cluster."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from data_prep.ledger import Outcome
from data_prep.manifest import Row
from data_prep.photograph import Photograph
from maskedclip_composer.data.records import CONTAMINATED, QUARANTINED, STORED
from maskedclip_composer.data.schema import COLUMNS, Kind

SHARD_BYTES = 1 << 26

Objection = Callable[[Photograph], str]
"""Says which photograph of a test set this one is, so that it must not be stored; empty where it may."""


def write_part(
    folder: Path,
    kind: Kind,
    rows: list[Row],
    photographs: Iterable[Photograph | str],
    objection: Objection | None = None,
) -> list[Outcome]:
    """Write the shards of a part afresh.

    Args:
        folder: For the shards; what is in it is thrown away.
        kind: Of the records.
        rows: Of the part.
        photographs: For each row the prepared photograph, or why it cannot be used; may be lazy.
        objection: Asked about every usable photograph.

    Returns:
        What became of each row. Without a stored one the folder holds an index of no shard.
    """
    from streaming import MDSWriter

    shutil.rmtree(folder, ignore_errors=True)
    outcomes = []
    with MDSWriter(columns=COLUMNS[kind], out=str(folder), hashes=["xxh64"], size_limit=SHARD_BYTES) as writer:
        for row, photograph in zip(rows, photographs, strict=True):
            if isinstance(photograph, str):
                outcomes.append(Outcome(status=QUARANTINED, reason=photograph))
                continue
            reason = objection(photograph) if objection is not None else ""
            outcomes.append(_outcome(photograph, reason))
            if not reason:
                writer.write(_sample(kind, row, photograph))
    return outcomes


def _outcome(photograph: Photograph, reason: str) -> Outcome:
    quality = photograph.quality
    return Outcome(
        status=CONTAMINATED if reason else STORED,
        reason=reason,
        sha256=photograph.sha256,
        phash=photograph.phash.hex(),
        original_width=photograph.original_size[0],
        original_height=photograph.original_size[1],
        width=photograph.width,
        height=photograph.height,
        crop_status=photograph.crop.status,
        crop_box=photograph.crop.box,
        bytes=len(photograph.data),
        verbatim=photograph.verbatim,
        sharpness=quality.sharpness,
        brightness=quality.brightness,
        clipped=quality.clipped,
        field=quality.field,
    )


def _sample(kind: Kind, row: Row, photograph: Photograph) -> dict[str, Any]:
    sample: dict[str, Any] = {
        "image": photograph.data,
        "width": photograph.width,
        "height": photograph.height,
        "dataset": row.dataset,
        "patient": row.patient,
        "eye": row.eye,
        "split": row.split,
        "source": row.image,
        "sha256": photograph.sha256,
        "crop": {"status": photograph.crop.status, "box": photograph.crop.box},
    }
    if kind == "paired":
        sample |= {"texts": list(row.texts), "labels": list(row.labels), "text_kinds": list(row.kinds)}
    elif kind == "labelled":
        sample["label"] = row.labels[0]
    elif kind == "multilabel":
        sample["labels"] = list(row.labels)
    return sample
