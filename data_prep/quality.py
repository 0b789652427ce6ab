from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True, kw_only=True)
class Quality:
    sharpness: float = 0.0
    brightness: float = 0.0
    clipped: float = 0.0
    field: float = 0.0


def assess(image: Image.Image) -> Quality:
    return Quality()
