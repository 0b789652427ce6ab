"""What an index.json may not say: it comes from outside, and what it says decides which files are written and how."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from streaming.base.compression import is_compression
from streaming.base.format.mds.encodings import is_mds_encoding, is_mds_encoding_safe

# A raw shard addresses its records with 32 bits, and begins with their count and 4 bytes for each and one more.
_LARGEST = (1 << 32) - 1
_PER_RECORD = 4


def check_claims(shards: Sequence[dict[str, Any]]) -> None:
    """Raise ValueError (KeyError, TypeError) at the first shard that says what may not be.

    A file outside its folder, a column that Streaming would unpickle, another list of columns than the first shard's,
    sizes that no shard can have, an unknown compression.
    """
    columns = _columns(shards[0]) if shards else []
    for shard in shards:
        if _columns(shard) != columns:
            raise ValueError(f"{shard['raw_data']['basename']} has other columns than the first shard")
        _check_files(shard)
    for column, encoding in columns:
        if not is_mds_encoding_safe(encoding):
            raise ValueError(
                f"column {column} has encoding {encoding}: to read it would run code that the set contains"
            )
        if not is_mds_encoding(encoding):
            raise ValueError(f"column {column} has the unknown encoding {encoding}")


def _columns(shard: dict[str, Any]) -> list[tuple[str, str]]:
    return list(zip(shard["column_names"], shard["column_encodings"], strict=True))


def _check_files(shard: dict[str, Any]) -> None:
    raw, packed, compression = shard["raw_data"], shard["zip_data"], shard["compression"]
    for file in (raw, packed) if packed else (raw,):
        name = file["basename"]
        if not is_below(name):
            raise ValueError(f"file {name!r} would lie outside the set's folder")
        if not 0 < file["bytes"] <= _LARGEST:
            raise ValueError(f"{name} has {file['bytes']} bytes, which no shard has")
        if not all(isinstance(value, str) for value in file["hashes"].values()):
            raise ValueError(f"{name} has a hash that is no text")
    if bool(packed) != bool(compression) or (compression and not is_compression(compression)):
        raise ValueError(f"{raw['basename']} has compression {compression} and packed file {packed}")
    if not 0 <= shard["samples"] <= raw["bytes"] // _PER_RECORD:
        raise ValueError(f"{raw['basename']} has {shard['samples']} samples in {raw['bytes']} bytes")


def is_below(name: str) -> bool:
    """Whether a file's name, perhaps with folders, stays below the folder that it is in."""
    path = PurePosixPath(name)
    return not (path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name) and path.name != ""
