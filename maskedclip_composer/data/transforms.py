"""Decode a photograph and cut one view of it, in uint8; the model normalises."""

import io
import math

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from maskedclip_composer.data.limits import FORMATS, check_jpeg, check_size
from maskedclip_composer.data.pixels import is_pixels, read_pixels
from maskedclip_composer.errors import UserError

_JPEG_START = b"\xff\xd8\xff"
_LOG_RATIO = (math.log(3 / 4), math.log(4 / 3))  # torchvision's RandomResizedCrop default
_EVAL_RESIZE = 256 / 224


def decode(data: bytes, *, name: str = "image") -> UInt8[np.ndarray, "height width 3"]:
    """Decode an encoded photograph to RGB, bit by bit as PIL does, JPEG at about half of PIL's cost.

    Args:
        data: A file of one of `limits.FORMATS` with 8 bits per channel, or plain pixels (`pixels.py`), which are
            returned without a copy and so are read-only.
        name: What the error message calls the image.

    Raises:
        UserError: The bytes are no such image, are cut short, or exceed `limits.py`.
        MemoryError: The machine has too little memory; the photograph may be sound.
    """
    try:
        if is_jpeg(data):
            check_jpeg(data)
            return simplejpeg.decode_jpeg(data, colorspace="RGB")
        if is_pixels(data):
            return read_pixels(data)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            check_size(image.height, image.width)
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"mode {image.mode} has more than 8 bits per channel")
            return np.array(image.convert("RGB"))
    except MemoryError:  # of this machine, for `limits.py` bounds what a file can take
        raise
    except Exception as error:  # PIL's plug-ins raise whatever a damaged file leads them to
        raise unreadable(name, error) from error


def is_jpeg(data: bytes) -> bool:
    """Tell whether `data` begins as a JPEG does."""
    return data.startswith(_JPEG_START)


def unreadable(name: str, error: Exception) -> UserError:
    """Return the error to raise about a photograph that cannot be decoded."""
    return UserError(
        f"{name}: cannot be decoded ({error}); open the original in a viewer, remove or replace it, "
        "and prepare the set again"
    )


def crop_box(
    height: int, width: int, min_area: float, rng: np.random.Generator, *, max_area: float = 1.0
) -> tuple[int, int, int, int]:
    """Draw (top, left, height, width) as torchvision's `RandomResizedCrop.get_params` does, from `rng`.

    The area is uniform in [min_area, max_area] of the image, the aspect ratio log-uniform in [3/4, 4/3].
    """
    for _ in range(10):
        area = height * width * rng.uniform(min_area, max_area)
        ratio = math.exp(rng.uniform(*_LOG_RATIO))
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(rng.integers(height - crop_height + 1))
            left = int(rng.integers(width - crop_width + 1))
            return top, left, crop_height, crop_width
    # The image is too elongated for ten draws: the largest centre crop within the ratios, as torchvision falls back.
    ratio = min(max(width / height, math.exp(_LOG_RATIO[0])), math.exp(_LOG_RATIO[1]))
    crop_width, crop_height = min(width, round(height * ratio)), min(height, round(width / ratio))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def resize(image: UInt8[np.ndarray, "height width 3"], height: int, width: int) -> UInt8[Tensor, "3 out_h out_w"]:
    """Resize by antialiased bicubic interpolation in uint8.

    Equal to PIL's BICUBIC within one grey level, but for about one pixel in 100,000 of strong contrast that differs by
    two: both round after each of the two passes, torch with 16-bit weights.
    """
    if not image.flags.writeable or min(image.strides) < 0:  # torch takes neither without a word
        image = image.copy()
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    return F.interpolate(pixels, (height, width), mode="bicubic", antialias=True)[0]


def random_view(
    image: UInt8[np.ndarray, "height width 3"],
    size: int,
    *,
    min_crop: float,
    flip: float,
    rng: np.random.Generator,
    max_crop: float = 1.0,
) -> UInt8[Tensor, "3 size size"]:
    """Cut a crop of `min_crop` to `max_crop` of the area, resize it to `size`, and mirror it with chance `flip`."""
    box = crop_box(image.shape[0], image.shape[1], min_crop, rng, max_area=max_crop)
    return cut(image, box, size, flip=flip, rng=rng)


def cut(
    image: UInt8[np.ndarray, "height width 3"],
    box: tuple[int, int, int, int],
    size: int,
    *,
    flip: float,
    rng: np.random.Generator,
) -> UInt8[Tensor, "3 size size"]:
    """Cut `box` (top, left, height, width) out, resize it to `size`, and mirror it with chance `flip`."""
    top, left, height, width = box
    view = resize(image[top : top + height, left : left + width], size, size)
    # Mirrored when small: a reversed NumPy view of the crop would be copied pixel by pixel.
    return (view.flip(-1) if rng.random() < flip else view).contiguous()


def eval_transform(
    image: bytes | UInt8[np.ndarray, "height width 3"], size: int, *, name: str = "image"
) -> UInt8[Tensor, "3 size size"]:
    """Resize the short side to `size` * 256 / 224 and cut the centre: the view of evaluation and prediction.

    Args:
        image: An encoded photograph, or RGB pixels in uint8.
        size: Side of the result in pixels.
        name: What the error message calls the image.

    Raises:
        UserError: The photograph cannot be decoded.
    """
    pixels = decode(image, name=name) if isinstance(image, bytes) else image
    height, width = pixels.shape[:2]
    short = round(size * _EVAL_RESIZE)
    scaled_height = short if height <= width else int(short * height / width)
    scaled_width = short if width <= height else int(short * width / height)
    scaled = resize(pixels, scaled_height, scaled_width)
    top, left = round((scaled_height - size) / 2), round((scaled_width - size) / 2)
    return scaled[:, top : top + size, left : left + size].contiguous()
