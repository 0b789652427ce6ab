"""How good a photograph is, in four numbers that are kept for every one of them."""

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

_SIDE = 256  # pixels: all photographs are judged at the same scale
_DARK, _BLACK, _WHITE = 16, 4, 251  # grey levels


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Scores of the retina; none of them decides anything here.

    Attributes:
        sharpness: Standard deviation of the Laplacian of the green channel, divided by its mean; grows with detail and
            with noise.
        brightness: Mean of the green channel, 0 to 1.
        clipped: Share of pixels with a channel at white, or black within the retina, 0 to 1.
        field: Area of the retina in that of the smallest circle round the photograph's box, 0 to 1; low where the frame
            or the lid cuts it off.
    """

    sharpness: float
    brightness: float
    clipped: float
    field: float


def assess(image: Image.Image) -> Quality:
    """Score an RGB photograph that is cropped to the retina."""
    scale = _SIDE / min(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    pixels = cv2.resize(np.asarray(image), size, interpolation=cv2.INTER_AREA)
    red, green, blue = cv2.split(pixels)
    brightest = cv2.max(cv2.max(red, green), blue)
    retina = brightest > _DARK
    area = int(np.count_nonzero(retina))
    if area == 0:
        return Quality(sharpness=0.0, brightness=0.0, clipped=1.0, field=0.0)
    # The rim is the sharpest edge of all and says nothing of the focus.
    inside = cv2.erode(retina.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    detail = cv2.Laplacian(green, cv2.CV_16S)[inside]
    brightness = float(green[retina].mean())
    white = np.count_nonzero(brightest >= _WHITE)
    hole = cv2.morphologyEx(retina.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8)) > 0
    black = np.count_nonzero(hole & (brightest <= _BLACK))
    return Quality(
        sharpness=float(detail.std()) / max(brightness, 1.0) if detail.size else 0.0,
        brightness=brightness / 255,
        clipped=min(1.0, (white + black) / area),
        field=min(1.0, area / (np.pi / 4 * max(size) ** 2)),
    )
