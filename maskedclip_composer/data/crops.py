"""Several crops of each image, and what of them the student does not see: the input of dinov2."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from maskedclip_composer.data.block_masking import block_mask
from maskedclip_composer.data.photometric import Distortions, distort
from maskedclip_composer.data.transforms import random_view
from maskedclip_composer.errors import UserError


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """Global and local crops, their distortions and block masks.

    The defaults are DINOv2's (arXiv 2304.07193), whose global crops are `data.min_crop: 0.32` to 1. The first global
    crop is the `image` of all other objectives, which then see it distorted.

    Attributes:
        global_count: Crops of `data.image_size`.
        local_count: Small crops, which the student alone sees.
        local_size: Side of a local crop in pixels; a multiple of the patch size.
        local_min_crop: Smallest area of a local crop, as a share of the image.
        local_max_crop: Largest area.
        jitter: Chance of changed brightness, contrast, saturation and hue.
        gray: Chance of a crop without colour.
        blur: Chances of a Gaussian blur of the first global, of each further global and of each local crop.
        solarize: Chance of inverted bright levels in each further global crop.
        mask_probability: Chance that patches of a global crop are hidden from the student.
        mask_min: Smallest share of patches that is hidden then, rounded to whole patches, at least one.
        mask_max: Largest share.
    """

    global_count: int = 2
    local_count: int = 8
    local_size: int = 96
    local_min_crop: float = 0.05
    local_max_crop: float = 0.32
    jitter: float = 0.8
    gray: float = 0.2
    blur: list[float] = field(default_factory=lambda: [1.0, 0.1, 0.5])
    solarize: float = 0.2
    mask_probability: float = 0.5
    mask_min: float = 0.1
    mask_max: float = 0.5

    def __post_init__(self) -> None:
        chance = "a probability, 0 to 1"
        rules = (
            ("global_count", self.global_count >= 2, "2 or more: a crop is compared with the others"),
            ("local_count", self.local_count >= 1, "1 or more"),
            ("local_size", self.local_size >= 8, "8 pixels or more"),
            ("local_min_crop", 0 < self.local_min_crop <= 1, "above 0 and at most 1, a share of the image's area"),
            (
                "local_max_crop",
                self.local_min_crop <= self.local_max_crop <= 1,
                f"at least local_min_crop = {self.local_min_crop} and at most 1",
            ),
            ("jitter", 0 <= self.jitter <= 1, chance),
            ("gray", 0 <= self.gray <= 1, chance),
            (
                "blur",
                len(self.blur) == 3 and all(0 <= value <= 1 for value in self.blur),
                "three probabilities, 0 to 1: of the first global, further global and local crops",
            ),
            ("solarize", 0 <= self.solarize <= 1, chance),
            ("mask_probability", 0 <= self.mask_probability <= 1, chance),
            ("mask_min", 0 < self.mask_min < 1, "above 0 and below 1, a share of the patches"),
            ("mask_max", self.mask_min <= self.mask_max < 1, f"at least mask_min = {self.mask_min} and below 1"),
        )
        for key, holds, remedy in rules:
            if not holds:
                raise UserError(f"data.crops.{key} = {getattr(self, key)}: must be {remedy}")

    def distortions(self, kind: int) -> Distortions:
        """Return the chances of the first global (0), further global (1) and local (2) crops."""
        solarize = self.solarize if kind == 1 else 0.0
        return Distortions(jitter=self.jitter, gray=self.gray, blur=self.blur[kind], solarize=solarize)


@dataclass(frozen=True, slots=True)
class Crops:
    """What one photograph gives besides its first global crop."""

    global_crops: Tensor  # [global_count - 1, 3, size, size] uint8
    local_crops: Tensor  # [local_count, 3, local_size, local_size] uint8
    block_mask: Tensor  # [global_count, patches] bool, True = hidden from the student


def draw_crops(
    image: UInt8[np.ndarray, "height width 3"],
    first: UInt8[Tensor, "3 size size"],
    config: CropConfig,
    *,
    grid: tuple[int, int],
    min_crop: float,
    flip: float,
    rng: np.random.Generator,
) -> tuple[UInt8[Tensor, "3 size size"], Crops]:
    """Return `first` distorted, and the other crops of `image` with the block masks.

    In the style of DINOv2, whose batch has a mask in exactly half of the crops and shares spread evenly over the range.
    Deviation: here each crop draws for itself, so that a sample does not depend on its batch.

    Args:
        image: The photograph.
        first: The first global crop, as `random_view` has cut it.
        config: Numbers, sizes and chances.
        grid: Rows and columns of a global crop's patches.
        min_crop: Smallest area of a global crop.
        flip: Chance of a left-right flip.
        rng: Of this access.
    """
    size, local = first.shape[-1], config.distortions(2)
    areas = {"min_crop": config.local_min_crop, "max_crop": config.local_max_crop}
    first = distort(first, config.distortions(0), rng)
    further = [
        distort(random_view(image, size, min_crop=min_crop, flip=flip, rng=rng), config.distortions(1), rng)
        for _ in range(config.global_count - 1)
    ]
    small = [
        distort(random_view(image, config.local_size, **areas, flip=flip, rng=rng), local, rng)
        for _ in range(config.local_count)
    ]
    masks = [_hidden(config, grid, rng) for _ in range(config.global_count)]
    return first, Crops(
        global_crops=torch.stack(further),
        local_crops=torch.stack(small),
        block_mask=torch.from_numpy(np.stack(masks)),
    )


def _hidden(config: CropConfig, grid: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    patches = grid[0] * grid[1]
    if rng.random() >= config.mask_probability:
        return np.zeros(patches, bool)
    count = max(1, round(patches * rng.uniform(config.mask_min, config.mask_max)))
    return block_mask(grid, count, rng).reshape(patches)
