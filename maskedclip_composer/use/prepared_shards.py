"""Photographs as records of MDS shards, which are prepared already."""

import hashlib
import sys
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from streaming import LocalDataset
from torch import Tensor

from maskedclip_composer.data.index import INDEX, listed_shards, read_index
from maskedclip_composer.data.photograph import Recipe
from maskedclip_composer.data.transforms import decode
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.preparation import recorded_recipe
from maskedclip_composer.use.one_photograph import Photograph, Photographs, as_text, files_digest
from maskedclip_composer.use.transform import PhotographTransform

_CARRIED = ("dataset", "patient", "eye", "split", "label", "labels", "texts")


class PreparedShards:
    """Records of one or more folders of shards, one folder after the other.

    Args:
        folders: Each with an index.json; kept as `folders`.
        columns: Those of the records that are carried along.
        fingerprint: Of the indices and the shards; see `Photographs`.
    """

    def __init__(self, folders: list[Path], columns: tuple[str, ...], fingerprint: str):
        self.columns = columns
        self.fingerprint = fingerprint
        self.folders = folders
        self._folders = [LocalDataset(str(folder)) for folder in folders]
        self._ends = list(accumulate(len(folder) for folder in self._folders))

    def __len__(self) -> int:
        return self._ends[-1]

    def read(
        self, index: int, transform: PhotographTransform
    ) -> tuple[Photograph, UInt8[Tensor, "3 size size"] | None]:
        """Return a record and the model's input; see `Photographs`."""
        try:
            record = self._record(index)
        except (OSError, ValueError, IndexError) as error:  # of a shard that is cut short, whatever its decoders raise
            return Photograph(name=f"record {index}", columns={}, reason=f"cannot be read: {error}"), None
        crop = record.get("crop")
        photograph = {
            "name": as_text(record.get("source") or f"record {index}"),
            "columns": {name: as_text(record[name]) for name in self.columns},
            "sha256": record.get("sha256", ""),
        }
        try:
            image = transform.of_record(record["image"])
        except UserError as error:
            return Photograph(**photograph, reason=str(error).splitlines()[0]), None
        status = str(crop.get("status", "")) if isinstance(crop, Mapping) else ""
        return Photograph(**photograph, crop=status), image

    def picture(self, index: int, transform: PhotographTransform) -> UInt8[np.ndarray, "height width 3"] | str:
        """Return the stored photograph to look at; see `Photographs`."""
        try:
            return decode(self._record(index)["image"])
        except (UserError, OSError, IndexError) as error:
            return str(error).splitlines()[0]

    def _record(self, index: int) -> dict[str, Any]:
        folder = bisect_right(self._ends, index)
        return self._folders[folder][index - (self._ends[folder - 1] if folder else 0)]


def open_prepared(folders: list[Path]) -> PreparedShards:
    """Open the shards in `folders`, none of which is read yet.

    Raises:
        UserError: An index is damaged or says what it may not, a shard is missing or compressed, or the records hold no
            photographs.
    """
    digest = hashlib.sha256()
    found: set[str] = set()
    for folder in folders:
        index = read_index(folder, key=str(folder))  # before Streaming, which would unpickle
        encodings = dict(zip(index.columns, index.encodings, strict=True))
        if encodings.get("image") != "bytes":
            has = ", ".join(index.columns)
            raise UserError(f"{folder}: its records hold no column image of bytes; they have {has}.\nPrepare it again.")
        shards = _checked_shards(folder)
        digest.update(f"{index.sha256} {files_digest(folder, shards)}\n".encode())
        found = found & set(index.columns) if found else set(index.columns)
    return PreparedShards(folders, tuple(name for name in _CARRIED if name in found), digest.hexdigest())


def prepared_with(photographs: Photographs, recipe: Recipe | None, reader: str = "the model") -> Recipe | None:
    """Return how photographs were prepared that a model sees: by its own recipe, or as their shards were.

    Warns of shards that were prepared otherwise.

    Args:
        photographs: What `open_photographs` returned.
        recipe: Of the model's own photographs; None where they were not prepared.
        reader: The model, for the warning.

    Returns:
        None where the shards do not say, or were prepared in several ways.
    """
    if not isinstance(photographs, PreparedShards):
        return recipe
    found = {folder: recorded_recipe(folder) for folder in photographs.folders}
    for folder, own in found.items():
        if own is not None and recipe is not None and own != recipe:
            print(
                f"Warning: {folder} was prepared with {own.options()}, what {reader} was trained on with "
                f"{recipe.options()}.",
                file=sys.stderr,
            )
    return next(iter(found.values())) if len(set(found.values())) == 1 else None


def _checked_shards(folder: Path) -> list[str]:
    """Return the names of a folder's shards."""
    names = []
    for shard in listed_shards((folder / INDEX).read_bytes()):
        file = folder / shard["raw_data"]["basename"]
        if not file.is_file():
            what = "is stored compressed" if shard["zip_data"] else "is missing"
            raise UserError(f"{file} {what}.\nPrepare the set again, without compression, or copy it whole.")
        names.append(shard["raw_data"]["basename"])
    return names
