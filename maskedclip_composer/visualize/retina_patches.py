"""Which patches show the retina, and which the camera's black mask around it."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, UInt8
from torch import Tensor

_DARK = 12  # of 255: JPEG noise of a black mask stays below
_SHARE_OF_BRIGHT = 0.12  # of the photograph's own brightness: what is darker is mask, in dim photographs too


def retina_patches(images: UInt8[Tensor, "images 3 size size"], patch_size: int) -> Bool[Tensor, "images patches"]:
    """Return True for patches at least half of whose pixels are brighter than a camera's mask, row by row."""
    brightness = images.amax(dim=1).float()
    bright = torch.quantile(brightness.flatten(1), 0.95, dim=1)
    level = torch.clamp(_SHARE_OF_BRIGHT * bright, min=_DARK)
    share = F.avg_pool2d((brightness > level[:, None, None]).float()[:, None], patch_size)
    return share.flatten(1) >= 0.5
