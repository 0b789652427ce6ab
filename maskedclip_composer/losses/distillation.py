"""Losses that teach a student a teacher's features."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def masked_feature_cosine(
    prediction: Float[Tensor, "images patches dim"],
    target: Float[Tensor, "images patches dim"],
) -> Float[Tensor, ""]:
    """Negative mean cosine between predicted and teacher features, over all patches, visible and removed.

    MaskedCLIP (arXiv 2507.17239), eq. 5. Every image has the same number of patches, so the mean over all of them is
    the printed mean of means.

    Args:
        prediction: Decoded features of the masked view.
        target: The teacher's features of the unmasked view; no gradient should flow into it.

    Returns:
        A value in [-1, 1]; -1 when all directions agree.
    """
    return -F.cosine_similarity(prediction, target, dim=-1).mean()
