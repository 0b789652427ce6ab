"""What a stream's index.json promises, checked before anything is built."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskedclip_composer.data.schema import COLUMNS, Kind
from maskedclip_composer.errors import UserError

INDEX = "index.json"
_PREPARE = "prepare it with `python -m data_prep`"


@dataclass(frozen=True, kw_only=True)
class Index:
    """The facts of one index.json."""

    samples: int
    shards: int
    bytes: int  # of the shard files as stored, compressed where they are
    sha256: str  # of index.json itself
    columns: tuple[str, ...]
    hash_name: str | None  # a hash that every shard file carries, if there is one


def read_index(folder: Path, *, key: str) -> Index:
    """Read `folder`/index.json.

    Args:
        folder: The shards' folder, split included.
        key: The stream's config key, for messages.

    Raises:
        UserError: There is no index.json, or it is not the index of a set of MDS shards, or it lists no sample.
    """
    path = folder / INDEX
    if not path.is_file():
        shards = len(list(folder.glob("shard.*"))) if folder.is_dir() else 0
        found = f"{shards} shard files" if shards else "no shards" if folder.is_dir() else "no such folder"
        raise UserError(
            f"{key}: {path} does not exist ({found}); set {key}.remote to a folder of MDS shards, or {_PREPARE}"
        )
    raw = path.read_bytes()
    try:
        shards = json.loads(raw)["shards"]
        formats = {(shard["version"], shard["format"]) for shard in shards} or {(2, "mds")}
        if formats != {(2, "mds")}:
            raise ValueError(f"shards of (version, format) {sorted(formats)} instead of (2, 'mds')")
        samples = sum(shard["samples"] for shard in shards)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{key}: {path} is not the index of a set of MDS shards ({type(error).__name__}: {error}); "
            f"delete it if it lies in a cache, otherwise {_PREPARE}"
        ) from error
    if samples == 0:
        raise UserError(f"{key}: {path} lists no sample; {_PREPARE}, and look at its report for why nothing was kept")
    files = [_stored(shard) for shard in shards]
    common = [name for name in files[0]["hashes"] if all(name in file["hashes"] for file in files)]
    return Index(
        samples=samples,
        shards=len(shards),
        bytes=sum(file["bytes"] for file in files),
        sha256=hashlib.sha256(raw).hexdigest(),
        columns=tuple(shards[0]["column_names"]),
        hash_name=common[0] if common else None,
    )


def check_columns(index: Index, kind: Kind, *, key: str) -> None:
    """Raise UserError where records lack a column that records of `kind` have."""
    missing = [column for column in COLUMNS[kind] if column not in index.columns]
    if missing == ["text_kinds"]:
        raise UserError(
            f"{key}: its records have no column text_kinds, which tells categories from sentences: the set was "
            "prepared by an earlier version; prepare it again with `python -m data_prep`"
        )
    if missing:
        raise UserError(
            f"{key}: its records have no column {', '.join(missing)} (columns found: {', '.join(index.columns)}); "
            f"a {kind} set needs {', '.join(COLUMNS[kind])}; {_PREPARE} as a {kind} set, or use another folder"
        )


def check_batch_size(index: Index, batch_size: int, world_size: int, *, key: str) -> None:
    """Raise UserError where a step cannot be dealt evenly over the ranks or filled from the stream."""
    if batch_size % world_size:
        raise UserError(
            f"{key}.batch_size = {batch_size}: does not divide evenly over {world_size} ranks; set it to a multiple, "
            f"for example {-(-batch_size // world_size) * world_size}"
        )
    if index.samples < batch_size:
        raise UserError(
            f"{key}.batch_size = {batch_size}: the stream has only {index.samples} samples, fewer than one step; "
            f"lower the batch size or add data"
        )


def check_files(folder: Path, *, key: str) -> None:
    """Raise UserError where a listed shard file is missing from `folder` or has not its listed size.

    For shards read in place: Streaming validates only what it downloads.
    """
    for shard in json.loads((folder / INDEX).read_bytes())["shards"]:
        file = _stored(shard)
        path = folder / file["basename"]
        size = path.stat().st_size if path.is_file() else None
        if size != file["bytes"]:
            found = "does not exist" if size is None else f"has {size} bytes"
            raise UserError(
                f"{key}: {path} {found}, {INDEX} lists {file['bytes']} bytes; "
                "copy the file again from its source or prepare the set again"
            )


def _stored(shard: dict[str, Any]) -> dict[str, Any]:
    """Return the file record of the form that is kept: compressed where there is one."""
    return shard["zip_data"] or shard["raw_data"]
