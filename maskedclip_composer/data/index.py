"""What a stream's index.json promises, checked before anything is built."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streaming.base.hashing import is_hash

from maskedclip_composer.data.index_claims import check_claims
from maskedclip_composer.data.schema import COLUMNS, TRAINING_COLUMNS, Kind
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
    encodings: tuple[str, ...]  # of the columns
    hash_name: str | None  # a hash that every shard file carries, if there is one


def read_index(folder: Path, *, key: str) -> Index:
    """Read `folder`/index.json.

    Args:
        folder: The shards' folder, split included.
        key: The stream's config key, for messages.

    Raises:
        UserError: There is no index.json, or see `parse_index`.
    """
    path = folder / INDEX
    if not path.is_file():
        shards = len(list(folder.glob("shard.*"))) if folder.is_dir() else 0
        found = f"{shards} shard files" if shards else "no shards" if folder.is_dir() else "no such folder"
        raise UserError(
            f"{key}: {path} does not exist ({found}); set {key}.remote to a folder of MDS shards, or {_PREPARE}"
        )
    return parse_index(path.read_bytes(), str(path), key=key)


def parse_index(raw: bytes, path: str, *, key: str) -> Index:
    """Read the text of an index.json that lies at `path`, a file or a URL.

    Raises:
        UserError: It is not the index of a set of MDS shards, or says what it may not, or it lists no sample.
    """
    try:
        shards = listed_shards(raw)
    except ValueError as error:
        start = "" if raw.lstrip().startswith(b"{") else f"; it begins with {raw[:40]!r}"
        raise UserError(
            f"{key}: {path} is not the index of a set of MDS shards ({error}{start}); "
            f"delete it if it lies in a cache, otherwise {_PREPARE}"
        ) from error
    samples = sum(shard["samples"] for shard in shards)
    if samples == 0:
        raise UserError(f"{key}: {path} lists no sample; {_PREPARE}, and look at its report for why nothing was kept")
    files = [_stored(shard) for shard in shards]
    common = [name for name in files[0]["hashes"] if is_hash(name) and all(name in file["hashes"] for file in files)]
    return Index(
        samples=samples,
        shards=len(shards),
        bytes=sum(file["bytes"] for file in files),
        sha256=hashlib.sha256(raw).hexdigest(),
        columns=tuple(shards[0]["column_names"]),
        encodings=tuple(shards[0]["column_encodings"]),
        hash_name=common[0] if common else None,
    )


def listed_shards(raw: bytes) -> list[dict[str, Any]]:
    """Return what the text of an index.json lists. Whoever gives it to Streaming's readers takes it from here.

    Raises:
        ValueError: It is not the index of MDS shards, or says what it may not; the message begins with the kind.
    """
    try:
        shards = json.loads(raw)["shards"]
        formats = {(shard["version"], shard["format"]) for shard in shards} or {(2, "mds")}
        if formats != {(2, "mds")}:
            raise ValueError(f"shards of (version, format) {sorted(formats)} instead of (2, 'mds')")
        check_claims(shards)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return shards


def check_columns(index: Index, kind: Kind, *, key: str) -> None:
    """Raise UserError where records lack a column that records of `kind` have, or hold it in another form."""
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
    for column, encoding in zip(index.columns, index.encodings, strict=True):
        expected = COLUMNS[kind].get(column, encoding)
        if column in TRAINING_COLUMNS and encoding != expected:
            raise UserError(
                f"{key}: its column {column} has encoding {encoding} instead of {expected}; {_PREPARE}, "
                "or write that column as it expects it"
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
