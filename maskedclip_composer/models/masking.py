"""Which patches of an image stay visible."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Mask(NamedTuple):
    """One mask per image."""

    ids_keep: Int[Tensor, "images kept"]  # positions of the visible patches, in the order they are encoded
    ids_restore: Int[Tensor, "images patches"]  # position of each patch in [visible, removed]
    mask: Float[Tensor, "images patches"]  # 0 keep, 1 remove
    ids_removed: Int[Tensor, "images removed"]  # positions of the others; ids_restore sorts [ids_keep, ids_removed]


def random_masking(noise: Float[Tensor, "images patches"], mask_ratio: float) -> Mask:
    """Keep the patches of smallest noise, `int(patches * (1 - mask_ratio))` of them in every image, as MAE does.

    The noise comes with the sample (`types.UnpairedPart.noise`): the same sample in the same step has the same mask
    on any number of ranks and workers, and after a resume.
    """
    num_patches = noise.shape[1]
    num_kept = num_visible(num_patches, mask_ratio)
    ids_shuffle = noise.argsort(dim=1)
    ids_restore = ids_shuffle.argsort(dim=1)
    kept, removed = ids_shuffle.tensor_split([num_kept], dim=1)
    return Mask(kept, ids_restore, (ids_restore >= num_kept).to(noise.dtype), removed)


def num_visible(num_patches: int, mask_ratio: float) -> int:
    """Return how many patches stay visible; half a millionth is added so that 0.9 of 10 leaves 1, not 0."""
    return int(num_patches * (1 - mask_ratio) + 5e-7)


def gather_tokens(tokens: Float[Tensor, "images patches dim"], ids: Int[Tensor, "images chosen"]) -> Tensor:
    """Return the rows of `tokens` at `ids`, [images, chosen, dim]."""
    return torch.take_along_dim(tokens, ids[:, :, None], dim=1)
