"""Losses of masked image modelling."""

from jaxtyping import Float
from torch import Tensor


def masked_patch_mse(
    prediction: Float[Tensor, "images patches values"],
    target: Float[Tensor, "images patches values"],
    mask: Float[Tensor, "images patches"],
) -> Float[Tensor, ""]:
    """Mean squared error over the removed patches of each image, then over the images.

    MaskedCLIP (arXiv 2507.17239), eq. 1. Visible patches have no influence, an image without a removed patch
    contributes nothing.

    Deviation: the squared norm is the mean over a patch's values, as in MAE, not the sum (`docs/objectives.md`).

    Args:
        prediction: Decoded patches.
        target: True patches, in the same order.
        mask: 1 where a patch was removed, 0 where it was visible.

    Returns:
        The mean over images, in squared units of `target`.
    """
    error = (prediction - target).square().mean(dim=-1)
    return ((error * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()
