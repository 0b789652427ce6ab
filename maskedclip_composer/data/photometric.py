"""Distortions of colour and sharpness, with every draw from the generator of the access."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms.v2 import functional as F

# Largest change of brightness, contrast and saturation as a share, and of hue as a share of the colour circle.
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = 0.4, 0.4, 0.2, 0.1
_BLUR_WINDOW = 9  # pixels
_BLUR_SIGMA = (0.1, 2.0)  # pixels
_SOLARIZE_FROM = 128  # grey levels from here on are inverted


@dataclass(frozen=True, kw_only=True)
class Distortions:
    """How likely a crop's colours and sharpness are changed.

    Attributes:
        jitter: Of a change of brightness, contrast, saturation and hue.
        gray: Of a crop without colour.
        blur: Of a Gaussian blur.
        solarize: Of inverting the bright grey levels.
    """

    jitter: float
    gray: float
    blur: float
    solarize: float


def distort(
    image: UInt8[Tensor, "3 height width"], chances: Distortions, rng: np.random.Generator
) -> UInt8[Tensor, "3 height width"]:
    """Change brightness, contrast, saturation and hue in random order, then grey, blur, solarise, each by its chance.

    BYOL's distortions (arXiv 2006.07733, appendix B) in the numbers of DINO (arXiv 2104.14294). In uint8, as
    torchvision does them; torch's own generator is never asked.
    """
    if rng.random() < chances.jitter:
        image = _jitter(image, rng)
    if rng.random() < chances.gray:
        image = F.rgb_to_grayscale(image, num_output_channels=3)
    if rng.random() < chances.blur:
        sigma = float(rng.uniform(*_BLUR_SIGMA))
        image = F.gaussian_blur(image, [_BLUR_WINDOW, _BLUR_WINDOW], [sigma, sigma])
    if rng.random() < chances.solarize:
        image = F.solarize(image, _SOLARIZE_FROM)
    return image.contiguous()


def _jitter(image: Tensor, rng: np.random.Generator) -> Tensor:
    changes = (
        (F.adjust_brightness, 1 + float(rng.uniform(-_BRIGHTNESS, _BRIGHTNESS))),
        (F.adjust_contrast, 1 + float(rng.uniform(-_CONTRAST, _CONTRAST))),
        (F.adjust_saturation, 1 + float(rng.uniform(-_SATURATION, _SATURATION))),
        (F.adjust_hue, float(rng.uniform(-_HUE, _HUE))),
    )
    for number in rng.permutation(len(changes)):
        change, amount = changes[number]
        image = change(image, amount)
    return image
