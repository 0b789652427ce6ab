"""Photographs as files: one, those below a folder, or those that a table lists."""

import difflib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from maskedclip_composer.data.cells import cell_text
from maskedclip_composer.data.folders import path_below, require_folder, walk_images
from maskedclip_composer.data.tables import Table, read_table
from maskedclip_composer.data.transforms import decode
from maskedclip_composer.errors import UserError
from maskedclip_composer.use.one_photograph import Photograph, as_text, files_digest, shown
from maskedclip_composer.use.transform import PhotographTransform


class ImageFiles:
    """Files below one folder.

    Args:
        root: The folder.
        paths: Of the files, below it.
        fingerprint: See `Photographs`.
        names: What the files are called in the result; None takes their paths.
        columns: What is carried along.
        rows: The columns' values, a row per file.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        fingerprint: str,
        *,
        names: Sequence[str] | None = None,
        columns: tuple[str, ...] = (),
        rows: Sequence[tuple[str, ...]] = (),
    ):
        self.columns = columns
        self.fingerprint = fingerprint
        self._root, self._paths, self._rows = root, paths, rows
        self._names = names if names is not None else [shown(path) for path in paths]

    def __len__(self) -> int:
        return len(self._paths)

    def read(
        self, index: int, transform: PhotographTransform
    ) -> tuple[Photograph, UInt8[Tensor, "3 size size"] | None]:
        """Return a photograph and the model's input; see `Photographs`."""
        name, columns = self._names[index], self._columns(index)
        prepared = transform.prepare(self._root / self._paths[index])
        if isinstance(prepared, str):
            return Photograph(name=name, columns=columns, reason=prepared), None
        width, height = prepared.original_size
        photograph = Photograph(
            name=name, columns=columns, crop=prepared.crop.status, width=width, height=height, sha256=prepared.sha256
        )
        return photograph, transform.of_record(prepared.data)

    def picture(self, index: int, transform: PhotographTransform) -> UInt8[np.ndarray, "height width 3"] | str:
        """Return the prepared photograph to look at; see `Photographs`."""
        prepared = transform.prepare(self._root / self._paths[index])
        return prepared if isinstance(prepared, str) else decode(prepared.data)

    def _columns(self, index: int) -> dict[str, str]:
        return dict(zip(self.columns, self._rows[index], strict=True)) if self.columns else {}


def one_file(path: Path) -> ImageFiles:
    """Return the photograph at `path`."""
    return ImageFiles(path.parent, [path.name], files_digest(path.parent, [path.name]))


def files_of_folder(folder: Path) -> ImageFiles:
    """Return the photographs below a folder, in the order of their paths.

    Raises:
        UserError: There is none, or a folder cannot be read.
    """
    try:
        paths = list(walk_images(folder))
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}).\nMend its permissions.") from error
    if not paths:
        raise UserError(f"{folder} holds no photograph.\nGive a folder with image files, or with prepared shards.")
    return ImageFiles(folder, paths, files_digest(folder, paths))


def files_of_table(path: Path, root: Path) -> ImageFiles:
    """Return the photographs that a table lists; see `photographs.open_photographs`."""
    root = require_folder(root, "--images")
    table = read_table(path)
    key = _image_column(table)
    columns = tuple(name for name in table.columns if name != key)
    names, paths = [], []
    for number, row in zip(table.numbers, table.rows, strict=True):
        name = cell_text(row[key])
        if not name:
            raise UserError(f"{path}: row {number} names no image.\nFill the column {key}, or take the row out.")
        try:
            paths.append(path_below(root, name))
        except UserError as error:
            raise UserError(f"{path}: row {number}: {error}") from None
        names.append(name)
    if not any(os.path.lexists(root / below) for below in paths):
        raise UserError(
            f"{path}: none of its {len(paths)} images is below {root}; the first is {names[0]}.\n"
            "Give the folder that the paths start from as --images ROOT."
        )
    rows = [tuple(as_text(row[name]) for name in columns) for row in table.rows]
    fingerprint = hashlib.sha256(path.read_bytes() + files_digest(root, paths).encode()).hexdigest()
    return ImageFiles(root, paths, fingerprint, names=names, columns=columns, rows=rows)


def _image_column(table: Table) -> str:
    found = [name for name in table.columns if name.lower() == "image"]
    if len(found) > 1:
        raise UserError(f"{table.path} has the columns {' and '.join(found)}.\nRename one of them.")
    if not found:
        near = difflib.get_close_matches("image", table.columns, n=1, cutoff=0.5)
        remedy = f"Rename {near[0]} to image." if near else "Name the column of image paths image."
        raise UserError(f"{table.path} has no column image; it has {', '.join(table.columns)}.\n{remedy}")
    return found[0]
