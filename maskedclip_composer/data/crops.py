"""Several crops of one photograph: global and local views, and the masks of the global ones."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from maskedclip_composer.data.block_masking import block_mask
from maskedclip_composer.data.photometric import distort
from maskedclip_composer.data.transforms import random_view
from maskedclip_composer.errors import UserError

# Of the first global view, the second one, every further one, and local ones (DINO, arXiv 2104.14294, after BYOL).
_BLUR, _SOLARIZE = (1.0, 0.1, 0.5), (0.0, 0.2, 0.0)


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """Multi-crop views, for dinov2.

    The defaults are DINOv2's (arXiv 2304.07193), with `data.min_crop: 0.32`. Global views are crops of at least
    `data.min_crop` of the area, at `data.image_size`; the first of them is the view that other objectives see, which is
    distorted as well.

    Attributes:
        global_count: Global views.
        local_count: Local views.
        local_size: Side of a local view in pixels.
        local_min_crop: Smallest area of a local crop, as a share of the image.
        local_max_crop: Largest.
        jitter: Chance that a view's colours are jittered.
        gray: Chance that a view is turned grey.
        distortion: Whether views are also blurred and solarized as in DINO; false leaves sharpness alone.
        mask_probability: Chance that a global view has hidden patches.
        mask_min: Smallest share of hidden patches.
        mask_max: Largest.
    """

    global_count: int = 2
    local_count: int = 8
    local_size: int = 96
    local_min_crop: float = 0.05
    local_max_crop: float = 0.32
    jitter: float = 0.8
    gray: float = 0.2
    distortion: bool = True
    mask_probability: float = 0.5
    mask_min: float = 0.1
    mask_max: float = 0.5

    def __post_init__(self) -> None:
        rules = (
            ("global_count", self.global_count >= 2, "at least 2: one is compared with another"),
            ("local_count", self.local_count >= 1, "at least 1"),
            ("local_size", self.local_size > 0, "a positive number of pixels"),
            ("local_min_crop", 0 < self.local_min_crop <= self.local_max_crop, "above 0, at most local_max_crop"),
            ("local_max_crop", self.local_max_crop <= 1, "at most 1, a share of the image's area"),
            ("jitter", 0 <= self.jitter <= 1, "a probability, 0 to 1"),
            ("gray", 0 <= self.gray <= 1, "a probability, 0 to 1"),
            ("mask_probability", 0 <= self.mask_probability <= 1, "a probability, 0 to 1"),
            ("mask_min", 0 < self.mask_min <= self.mask_max, "above 0, at most mask_max"),
            ("mask_max", self.mask_max < 1, "below 1, a share of the patches"),
        )
        for key, holds, remedy in rules:
            if not holds:
                raise UserError(f"data.crops.{key} = {getattr(self, key)}: must be {remedy}")


@dataclass(frozen=True, slots=True)
class Crops:
    """What one photograph gives besides its first global view."""

    global_crops: Tensor  # [global_count - 1, 3, size, size] uint8
    local_crops: Tensor  # [local_count, 3, local_size, local_size] uint8
    block_mask: Tensor  # [global_count, patches] bool


def draw_crops(
    image: UInt8[np.ndarray, "height width 3"],
    first: UInt8[Tensor, "3 size size"],
    config: CropConfig,
    *,
    min_crop: float,
    flip: float,
    grid: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[Tensor, Crops]:
    """Return the first global view, distorted, and all that belongs to it.

    In the style of DINOv2 (arXiv 2304.07193). Deviation: each global view draws for itself whether and how much of it
    is hidden, so that a sample does not depend on its batch; the released training masks exactly half of a batch's
    views, in shares that are spread evenly over the range.

    Args:
        image: The whole photograph.
        first: Its first global view, as other recipes have it.
        config: How many, and how.
        min_crop: Smallest area of a global crop.
        flip: Chance of a left-right flip of each view.
        grid: Rows and columns of patches of a global view.
        rng: Draws everything.
    """
    size = first.shape[-1]
    views = [
        first,
        *(random_view(image, size, min_crop=min_crop, flip=flip, rng=rng) for _ in range(config.global_count - 1)),
    ]
    kinds = [min(number, 2) for number in range(config.global_count)]
    global_views = [_distort(view, kind, config, rng) for view, kind in zip(views, kinds, strict=True)]
    local_views = [
        _distort(
            random_view(
                image,
                config.local_size,
                min_crop=config.local_min_crop,
                max_crop=config.local_max_crop,
                flip=flip,
                rng=rng,
            ),
            2,
            config,
            rng,
        )
        for _ in range(config.local_count)
    ]
    masks = [_draw_mask(grid, config, rng) for _ in range(config.global_count)]
    return global_views[0], Crops(
        global_crops=torch.stack(global_views[1:]),
        local_crops=torch.stack(local_views),
        block_mask=torch.from_numpy(np.stack(masks)),
    )


def _distort(view: Tensor, kind: int, config: CropConfig, rng: np.random.Generator) -> Tensor:
    blur, solarize = (_BLUR[kind], _SOLARIZE[kind]) if config.distortion else (0.0, 0.0)
    return distort(view, jitter=config.jitter, gray=config.gray, blur=blur, solarize=solarize, rng=rng).contiguous()


def _draw_mask(grid: tuple[int, int], config: CropConfig, rng: np.random.Generator) -> np.ndarray:
    share = rng.uniform(config.mask_min, config.mask_max) if rng.random() < config.mask_probability else 0.0
    return block_mask(grid, round(grid[0] * grid[1] * share), rng)
