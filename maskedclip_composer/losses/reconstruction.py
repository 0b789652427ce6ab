"""Losses of masked image modelling."""

import torch
from jaxtyping import Float, Int
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
    return _image_mse(prediction, target, mask).mean()


def streamwise_patch_mse(
    prediction: Float[Tensor, "images patches values"],
    target: Float[Tensor, "images patches values"],
    mask: Float[Tensor, "images patches"],
    num_pairs: Int[Tensor, ""],
) -> Float[Tensor, ""]:
    """Sum of `masked_patch_mse` of the paired and of the unpaired images, each a mean over its own images.

    In the style of MMCLIP's AttMIM (arXiv 2407.19546): both streams weigh the same, whatever their share of the batch.

    Args:
        prediction: Decoded patches, paired images first.
        target: True patches, in the same order.
        mask: 1 where a patch was removed, 0 where it was visible.
        num_pairs: How many of the images are paired; 0 or all of them where a stream is absent.
    """
    errors = _image_mse(prediction, target, mask)
    paired = (torch.arange(len(errors), device=errors.device) < num_pairs).to(errors.dtype)
    sums, counts = torch.stack([errors * paired, errors * (1 - paired)]).sum(dim=1), paired.sum()
    return (sums / torch.stack([counts, len(errors) - counts]).clamp(min=1)).sum()


def _image_mse(
    prediction: Float[Tensor, "images patches values"],
    target: Float[Tensor, "images patches values"],
    mask: Float[Tensor, "images patches"],
) -> Float[Tensor, " images"]:
    error = (prediction - target).square().mean(dim=-1)
    return (error * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
