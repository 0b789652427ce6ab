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
    return label_guided_ce(logit_scale.to(dtype) * image_features.to(dtype) @ text_features.to(dtype).T, labels)


def integrity_clip_loss(
    image_features: Float[Tensor, "pairs dim"],
    text_features: Float[Tensor, "pairs dim"],
    labels: Int[Tensor, " pairs"],
    logit_scale: Float[Tensor, ""],
    row_scale: Float[Tensor, " pairs"],
    row_weight: Float[Tensor, " pairs"],
    share_scaled: Float[Tensor, ""],
    max_scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Contrast masked images with texts, where images whose visible patches tell little count for less.

    In the style of MLIP (arXiv 2401.01591), whose formulas were not at hand, after its authors' MaCo (arXiv
    2309.05904): the mean of two contrastive losses, one whose logits are scaled row by row by the semantic integrity
    s of the image, `CE(diag(s) S, I)` and `CE(diag(s) S^T, I)`, and one whose rows are weighed by it,
    `sum_i s_i CE_i / sum_i s_i`. As in the label-guided loss, pairs of equal labels are positives of each other; with
    distinct labels it is the identity.

    Deviation: the product of integrity and logit scale is kept at or below `max_scale`, or it would grow without end;
    a row at the limit teaches neither of the two by its scaled loss.

    Args:
        image_features: L2-normalised, one row per image.
        text_features: L2-normalised, row i describes image i.
        labels: Class of each pair; give unlabelled pairs distinct values.
        logit_scale: Inverse temperature, already exponentiated.
        row_scale: Integrity that scales the logits; it learns from the loss.
        row_weight: Integrity that weighs the rows; give it without gradient, or the loss would fall by weighing down
            what is hard.
        share_scaled: 0.5 is the mean of both losses, 1 the scaled one alone, 0 the weighed one alone.
        max_scale: See above; CLIP's limit of the logit scale is 100.

    Returns:
        Mean negative log-likelihood over both directions, in nats.
    """
    dtype = torch.promote_types(image_features.dtype, torch.float32)
    cosine, targets = image_features.to(dtype) @ text_features.to(dtype).T, label_targets(labels, dtype)
    scale = (row_scale.to(dtype) * logit_scale.to(dtype)).clamp(max=max_scale.to(dtype))[:, None]
    share_of_row = row_weight.to(dtype) / row_weight.to(dtype).sum()
    loss = cosine.new_zeros(())
    for direction in (cosine, cosine.T):
        scaled = F.cross_entropy(scale * direction, targets)
        weighed = (F.cross_entropy(logit_scale.to(dtype) * direction, targets, reduction="none") * share_of_row).sum()
        loss = loss + (share_scaled * scaled + (1 - share_scaled) * weighed) / 2
    return loss


def label_guided_ce(
    logits: Float[Tensor, "pairs pairs"],
    labels: Int[Tensor, " pairs"],
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of rows and of columns of `logits` with `label_targets`, in nats.

    Args:
        logits: Of image i and text k, scaled; computed with in float32 or better.
        labels: Class of each pair; distinct values for unlabelled pairs.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = label_targets(labels, logits.dtype)
    # Positives are symmetric, so the same targets serve both directions.
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def label_targets(labels: Int[Tensor, " pairs"], dtype: torch.dtype) -> Float[Tensor, "pairs pairs"]:
    """Return the share of each pair in the positives of each other one; rows sum to 1, and the matrix is symmetric."""
    positives = (labels[:, None] == labels[None, :]).to(dtype)
    return positives / positives.sum(dim=1, keepdim=True)


def label_guided_floor(labels: Int[Tensor, " pairs"]) -> Float[Tensor, ""]:
    """Return the least value that `label_guided_clip_loss` can take for these labels: the mean of ln |P|, in nats.

    A pair with k positives (itself included) has targets of entropy ln k, and a cross-entropy is never below the
    entropy of its targets. A loss that rests on this floor has converged.
    """
    _, group, size = torch.unique(labels, return_inverse=True, return_counts=True)
    return size[group].float().log().mean()
