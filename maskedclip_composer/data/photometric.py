"""Distortions of colour and sharpness, in uint8, every draw from the sample's own generator."""

from collections.abc import Callable

import numpy as np
import torchvision.transforms.v2.functional as TF
from jaxtyping import UInt8
from torch import Tensor

# DINO's strengths (arXiv 2104.14294, after BYOL): of brightness, contrast, saturation and hue.
_JITTER = (0.4, 0.4, 0.2, 0.1)
_SIGMA = (0.1, 2.0)  # pixels, of the blur
_SOLARIZE_ABOVE = 128


def distort(
    image: UInt8[Tensor, "3 height width"],
    *,
    jitter: float,
    gray: float,
    blur: float,
    solarize: float,
    rng: np.random.Generator,
) -> UInt8[Tensor, "3 height width"]:
    """Jitter the colours, turn grey, blur and solarize, each with its chance, in this order.

    The four kinds of jitter come in random order. torchvision's own classes draw from torch's global generator, which
    would make a view depend on the loader's workers.
    """
    chances = rng.random(4)
    if chances[0] < jitter:
        image = _jitter(image, rng)
    if chances[1] < gray:
        image = TF.rgb_to_grayscale(image, num_output_channels=3)
    if chances[2] < blur:
        image = _blur(image, float(rng.uniform(*_SIGMA)))
    if chances[3] < solarize:
        image = TF.solarize(image, _SOLARIZE_ABOVE)
    return image


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Blur along one side, then the other: equal to torchvision's blur in both at once but for rounding, and faster."""
    # Three standard deviations to each side, as far as the image is large enough for the reflected border.
    size = min(2 * round(3 * _SIGMA[1]) + 1, 2 * (min(image.shape[-2:]) // 2) - 1)
    blurred = image.float()
    for kernel in ([size, 1], [1, size]):
        blurred = TF.gaussian_blur(blurred, kernel, [sigma, sigma])
    return blurred.round_().to(image.dtype)


def _jitter(image: Tensor, rng: np.random.Generator) -> Tensor:
    brightness, contrast, saturation, hue = (float(rng.uniform(-strength, strength)) for strength in _JITTER)
    steps: list[Callable[[Tensor], Tensor]] = [
        lambda x: TF.adjust_brightness(x, 1 + brightness),
        lambda x: TF.adjust_contrast(x, 1 + contrast),
        lambda x: TF.adjust_saturation(x, 1 + saturation),
        lambda x: TF.adjust_hue(x, hue),
    ]
    for step in rng.permutation(len(steps)):
        image = steps[step](image)
    return image
