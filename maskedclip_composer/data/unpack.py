"""Unpack a compressed shard to the size that its index lists, and not a byte more.

What arrives may claim any size: a small file that unpacks to terabytes would take the machine down.
"""

import bz2
import zlib
from typing import cast

import brotli
import snappy
import zstd


def unpack(compression: str, data: bytes, size: int) -> bytes:
    """Return the raw shard.

    Args:
        compression: As in the index: a name, perhaps with a level, for example `zstd:7`.
        data: The compressed file.
        size: Bytes that the index lists for the raw file.

    Raises:
        ValueError: It does not unpack to exactly that size, or the name is unknown.
    """
    name = compression.split(":")[0]
    if name == "zstd":
        _expect(_zstd_size(data), size)
        raw = zstd.decompress(data)
    elif name == "snappy":
        _expect(_snappy_size(data), size)
        raw = cast(bytes, snappy.decompress(data))
    elif name == "gz":
        raw = zlib.decompressobj(wbits=31).decompress(data, size + 1)
    elif name == "bz2":
        raw = bz2.BZ2Decompressor().decompress(data, size + 1)
    elif name == "br":
        raw = brotli.Decompressor().process(data, output_buffer_limit=size + 1)
    else:
        raise ValueError(f"compression {compression} is unknown")
    _expect(len(raw), size)
    return raw


def _expect(found: int, size: int) -> None:
    if found != size:
        raise ValueError(f"unpacks to {found} bytes or more, its index lists {size}")


def _zstd_size(data: bytes) -> int:
    """Read the size of the content from a frame's header (RFC 8878, 3.1.1.1); -1 where it is not stated.

    zstd 1.5.7 for Python has no limit, and allocates what the header says.
    """
    if len(data) < 6 or data[:4] != b"\x28\xb5\x2f\xfd":
        raise ValueError("is no zstd frame")
    descriptor = data[4]
    single, flag = descriptor >> 5 & 1, descriptor >> 6
    width = (single, 2, 4, 8)[flag]
    at = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
    if not width:
        return -1
    return int.from_bytes(data[at : at + width], "little") + (256 if width == 2 else 0)


def _snappy_size(data: bytes) -> int:
    """Read the size of the content, a varint of at most 32 bits in front."""
    size = 0
    for shift, byte in enumerate(data[:5]):
        size |= (byte & 127) << 7 * shift
        if byte < 128:
            return size
    raise ValueError("is no snappy data")
