"""Augmentation of the fine-tuning protocol: timm's, up to uint8."""

from typing import Protocol

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torchvision.transforms import Compose


class Transform(Protocol):
    """From a decoded photograph to [3, size, size] uint8."""

    def __call__(self, image: UInt8[np.ndarray, "height width 3"]) -> UInt8[Tensor, "3 size size"]:
        """Transform one photograph."""
        ...


def train_transform(size: int, *, min_crop: float, rand_augment: str, mean: tuple[float, ...]) -> Transform:
    """Build RETFound's training augmentation but for normalisation and erasing, which follow on the device.

    Random crop, flip and RandAugment, drawn from Python's and NumPy's global generators.

    Args:
        size: Side of the result in pixels.
        min_crop: Smallest area of the random crop, as a share of the photograph.
        rand_augment: timm's description of RandAugment, or "" for none.
        mean: Colour, in units of 0 to 1, of what RandAugment moves into view.
    """
    augment = create_transform(
        (3, size, size),
        is_training=True,
        scale=(min_crop, 1.0),
        auto_augment=rand_augment or None,
        color_jitter=None,  # pyright: ignore[reportArgumentType]  timm's annotation is too narrow
        interpolation="bicubic",
        mean=mean,
        use_prefetcher=True,  # stop before the float tensor
    )

    assert isinstance(augment, Compose)

    def transform(image: UInt8[np.ndarray, "height width 3"]) -> UInt8[Tensor, "3 size size"]:
        return torch.as_tensor(augment(Image.fromarray(image)))

    return transform
