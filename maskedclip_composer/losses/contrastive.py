"""Contrastive losses between images and texts."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def label_guided_clip_loss(
    image_features: Float[Tensor, "pairs dim"],
    text_features: Float[Tensor, "pairs dim"],
    labels: Int[Tensor, " pairs"],
    logit_scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Pull every image towards every text that carries the same label, and every text towards every such image.

    MaskedCLIP (arXiv 2507.17239), eq. 2-4. With all labels distinct it is the CLIP loss. It cannot fall below
    `label_guided_floor(labels)`. Logits are computed in float32 or better: with a scale of 100 the rounding of bfloat16
    logits would be a quarter of a nat.

    Deviation: eq. 2 and 3 are printed without the minus sign; this returns the value to minimise.

    Args:
        image_features: L2-normalised, one row per image.
        text_features: L2-normalised, row i describes image i.
        labels: Class of each pair; give unlabelled pairs distinct values.
        logit_scale: Inverse temperature, already exponentiated.

    Returns:
        Mean negative log-likelihood over both directions, in nats.
    """
    dtype = torch.promote_types(image_features.dtype, torch.float32)
    logits = logit_scale.to(dtype) * image_features.to(dtype) @ text_features.to(dtype).T
    positives = (labels[:, None] == labels[None, :]).to(dtype)
    targets = positives / positives.sum(dim=1, keepdim=True)
    # Positives are symmetric, so the same targets serve both directions.
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def label_guided_floor(labels: Int[Tensor, " pairs"]) -> Float[Tensor, ""]:
    """Return the least value that `label_guided_clip_loss` can take for these labels: the mean of ln |P|, in nats.

    A pair with k positives (itself included) has targets of entropy ln k, and a cross-entropy is never below the
    entropy of its targets. A loss that rests on this floor has converged.
    """
    _, group, size = torch.unique(labels, return_inverse=True, return_counts=True)
    return size[group].float().log().mean()
