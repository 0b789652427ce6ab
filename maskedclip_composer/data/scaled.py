"""Views of large JPEGs that are decoded at a half, a quarter or an eighth of their size: `data.decode: scaled`."""

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from torch import Tensor

from maskedclip_composer.data.limits import check_jpeg
from maskedclip_composer.data.transforms import crop_box, cut, decode, is_jpeg, random_view, unreadable

# libjpeg has fast inverse transforms for these; its other eighths cost more than decoding the whole.
_FACTORS = (8, 4, 2)


def scaled_view(
    data: bytes, size: int, *, min_crop: float, flip: float, rng: np.random.Generator, name: str = "image"
) -> UInt8[Tensor, "3 size size"]:
    """Cut the view that `random_view` cuts of `decode(data)`, of a large JPEG by libjpeg's scaled decoding.

    The crop is drawn first, with the same draws. The photograph is then decoded as small as leaves the crop at least
    `size` pixels high and wide: libjpeg leaves high frequencies out. Two things differ from `random_view`. The crop's
    edges are rounded to the small photograph's grid, which moves them by half a pixel of the view at most. And the
    low-pass is not the bicubic one: over the same region the views of original photographs differ by 0.4 of 255 grey
    levels on average, and by less than 60 at any pixel, which is on a sharp edge (tests/data/test_scaled.py). What is
    no JPEG, or too small for its crop to be halved, is treated exactly as `random_view` treats it.

    Args:
        data: As of `decode`.
        size: Side of the view in pixels.
        min_crop: Smallest area of the crop, as a share of the photograph.
        flip: Chance of a left-right flip.
        rng: Draws the crop and the flip.
        name: What the error message calls the photograph.

    Raises:
        UserError: The photograph cannot be decoded.
    """
    if not is_jpeg(data):
        return random_view(decode(data, name=name), size, min_crop=min_crop, flip=flip, rng=rng)
    try:
        height, width = check_jpeg(data)
        box = crop_box(height, width, min_crop, rng)
        factor = next((factor for factor in _FACTORS if min(box[2:]) >= factor * size), 1)
        # Rounded up as libjpeg does; a smaller eighth would not do.
        pixels = simplejpeg.decode_jpeg(
            data, colorspace="RGB", min_height=-(-height // factor), min_width=-(-width // factor)
        )
    except ValueError as error:
        raise unreadable(name, error) from error
    return cut(pixels, _shrunk(box, factor), size, flip=flip, rng=rng)


def _shrunk(box: tuple[int, int, int, int], factor: int) -> tuple[int, int, int, int]:
    """Round the edges of a box (top, left, height, width) to the grid of a photograph `factor` times smaller."""
    # Halves upwards: a box of `factor` times n pixels is at least n wide wherever it lies, as it is not by `round`.
    top, left, bottom, right = (
        (edge + factor // 2) // factor for edge in (box[0], box[1], box[0] + box[2], box[1] + box[3])
    )
    return top, left, bottom - top, right - left
