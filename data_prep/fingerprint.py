"""A perceptual hash of a retina: near for copies that were resized, encoded again or re-lit, far for another eye."""

import cv2
import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

BYTES = 32
NEAR = 32
"""Bits of 256 up to which two photographs count as copies; `benchmarks/near_duplicates.py` prints what it misses."""


def perceptual_hash(image: Image.Image) -> bytes:
    """Hash an RGB photograph, cropped to the retina: 256 signs of its lowest frequencies (imagehash's `phash`).

    Retinas are all discs with the same large shape, which would fill most of the bits alike. Dividing by the local
    brightness first leaves vessels, disc and lesions.
    """
    small = cv2.resize(np.asarray(image), (128, 128), interpolation=cv2.INTER_AREA)
    green = small[..., 1].astype(np.float32)
    local = cv2.blur(cv2.blur(green, (33, 33)), (33, 33))
    even = np.clip(128 + 64 * (green - local) / (local + 8), 0, 255).astype(np.uint8)
    bits = imagehash.phash(Image.fromarray(even), hash_size=16).hash
    return np.packbits(bits.ravel()).tobytes()


def distances(hashes: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Count the bits in which each row of `hashes` [photographs, 32] differs from `other` [32]."""
    words = np.ascontiguousarray(hashes).view(np.uint64) ^ np.ascontiguousarray(other).view(np.uint64)
    return np.bitwise_count(words).sum(axis=1, dtype=np.uint64)
