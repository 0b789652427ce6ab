"""Photographs stored as plain pixels, in NumPy's .npy format: larger than JPEG, and nothing to decode."""

import io
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8

_START = b"\x93NUMPY"
_VERSION = b"\x01\x00"


def encode_pixels(image: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """Return RGB pixels as the bytes of an .npy file, which `np.load` reads as well."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(image), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def is_pixels(data: bytes) -> bool:
    """Tell whether `data` begins as an .npy file does."""
    return data.startswith(_START)


def read_pixels(data: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """Return the pixels of `encode_pixels` without copying them; they are read-only.

    Raises:
        ValueError: The bytes are cut short, or hold something else, pickled objects included.
    """
    if data[6:8] != _VERSION:
        raise ValueError("not version 1.0 of the .npy format")
    start = 10 + int.from_bytes(data[8:10], "little")
    shape = _shape(data[:start])
    expected = shape[0] * shape[1] * shape[2]
    if len(data) - start != expected:
        raise ValueError(f"holds {len(data) - start} bytes of pixels, its header says {expected}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


# NumPy parses the header as Python, which takes longer than all the rest; a set has few sizes.
@lru_cache(maxsize=1024)
def _shape(header: bytes) -> tuple[int, int, int]:
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(io.BytesIO(header[8:]))
    if dtype != np.uint8 or fortran_order or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ValueError(f"holds {dtype} of shape {shape}, not uint8 [height, width, 3]")
    return shape
