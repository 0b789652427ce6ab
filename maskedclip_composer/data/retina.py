"""Find the retina in a colour-fundus photograph: away with black borders, white surrounds and burnt-in text."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Status = Literal["cropped", "full", "failed", "off"]
Box = tuple[int, int, int, int]

# The retina is found on a copy of this long side: a box edge is then exact to 1/512 of the photograph.
_LONG_SIDE = 512
_WHITE = 225  # JPEG keeps a printed page above this
_DARK = 48  # a border brighter than this is not the black mask of a fundus camera
_MIN_SHARE = 0.1  # of the frame: smaller bright components are reflections or text
_MIN_FILL = 0.5  # of its box: a disc fills 0.785 of it, a truncated disc more
_SIDES = (0.4, 2.5)  # width : height of portrait and landscape frames
_UNTRIMMED = 0.98  # less than 2 % to gain is no border


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Where the retina lies.

    Attributes:
        status: `cropped`: a border was found. `full`: the photograph has none. `failed`: no retina was found, the
            photograph is to be kept whole. `off`: not searched for.
        box: (left, top, right, bottom) in pixels, right and bottom exclusive; None when failed or off.
    """

    status: Status
    box: Box | None


def find_retina(image: Image.Image) -> Crop:
    """Find the box of the largest bright component of an RGB photograph.

    A white surround is trimmed first, because scans put the black-bordered photograph on a white page.
    """
    scale = max(1.0, max(image.size) / _LONG_SIDE)
    size = (max(1, round(image.width / scale)), max(1, round(image.height / scale)))
    pixels = np.asarray(image.resize(size, Image.Resampling.BOX, reducing_gap=1.0))
    whole = (0, 0, size[0], size[1])

    page = whole
    # Channel by channel: NumPy's reduction over an axis of three takes thirty times as long.
    red, green, blue = cv2.split(pixels)
    darkest = np.asarray(cv2.min(cv2.min(red, green), blue), np.uint8)
    if _corners(darkest).min() >= _WHITE:
        page = _largest_component(darkest < _WHITE)
        if page is None:
            return Crop(status="failed", box=None)
    left, top, right, bottom = page

    brightness = np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)[top:bottom, left:right]
    level = float(np.percentile(_frame(brightness), 5))
    bright = float(np.percentile(brightness, 99))
    if bright - level < 16:
        return Crop(status="failed", box=None)
    if level < _DARK:
        inner = _largest_component(brightness > max(level + 6, level + 0.08 * (bright - level)))
        if inner is None:
            return Crop(status="failed", box=None)
        left, top, right, bottom = left + inner[0], top + inner[1], left + inner[2], top + inner[3]

    if right - left >= _UNTRIMMED * size[0] and bottom - top >= _UNTRIMMED * size[1]:
        return Crop(status="full", box=(0, 0, image.width, image.height))
    across, down = image.width / size[0], image.height / size[1]
    box = (int(left * across), int(top * down), int(np.ceil(right * across)), int(np.ceil(bottom * down)))
    return Crop(status="cropped", box=(box[0], box[1], min(box[2], image.width), min(box[3], image.height)))


def _largest_component(mask: NDArray[np.bool_]) -> Box | None:
    """Box of the largest component, None where it cannot be a retina."""
    # The opening cuts off hairlines: the rim of the mask, glare and index marks that touch the disc.
    side = max(3, min(mask.shape) // 64 | 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    count, _, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8, ltype=cv2.CV_16U)
    if count < 2:
        return None
    left, top, width, height, area = (int(value) for value in max(stats[1:], key=lambda row: row[cv2.CC_STAT_AREA]))
    plausible = (
        area >= _MIN_SHARE * mask.size
        and area >= _MIN_FILL * width * height
        and _SIDES[0] <= width / height <= _SIDES[1]
    )
    return (left, top, left + width, top + height) if plausible else None


def _corners(values: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Median of each of the four corner patches."""
    h, w = max(1, values.shape[0] // 32), max(1, values.shape[1] // 32)
    patches = values[:h, :w], values[:h, -w:], values[-h:, :w], values[-h:, -w:]
    return np.array([np.median(patch) for patch in patches])


def _frame(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The outermost two pixels all round."""
    sides = values[:2], values[-2:], values[:, :2], values[:, -2:]
    return np.concatenate([side.ravel() for side in sides])
