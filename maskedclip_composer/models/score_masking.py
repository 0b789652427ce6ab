"""Which patches a text attends to, and a mask that hides most of them."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from maskedclip_composer.models.masking import Mask


def text_to_image_score(
    image: Float[Tensor, "images patches dim"],
    text: Float[Tensor, "images tokens dim"],
    text_valid: Bool[Tensor, "images tokens"],
    temperature: float,
) -> Float[Tensor, "images patches"]:
    """Sum over valid tokens of how each distributes its attention, a softmax of cosines, over the patches.

    In the style of MMCLIP (arXiv 2407.19546), which is known to make masks from attention scores; the form is that of
    its first author's MedIM. An image's scores sum to the number of its valid tokens.
    """
    cosine = torch.einsum("ntd,npd->ntp", F.normalize(text.float(), dim=-1), F.normalize(image.float(), dim=-1))
    return ((cosine / temperature).softmax(dim=-1) * text_valid[:, :, None]).sum(dim=1)


def responsive_cosine_score(
    image: Float[Tensor, "images patches dim"],
    text: Float[Tensor, "images tokens dim"],
    text_valid: Bool[Tensor, "images tokens"],
) -> Float[Tensor, "images patches"]:
    """Return the cosine of each patch with what it gathers from the valid tokens, softmax(V T' / sqrt d) T.

    In the style of MMCLIP (arXiv 2407.19546): the gathered text is the equation that a review of the paper quotes; that
    the score is its cosine with the patch is our reading of "features that are highly responsive to textual features".
    """
    image, text = image.float(), text.float()
    logits = torch.einsum("npd,ntd->npt", image, text) * image.shape[-1] ** -0.5
    weights = logits.masked_fill(~text_valid[:, None, :], -torch.inf).softmax(dim=-1)
    # A text without a valid token has no weights; every patch then scores 0.
    gathered = torch.einsum("npt,ntd->npd", weights.nan_to_num(0.0), text)
    return F.cosine_similarity(image, gathered, dim=-1)


@torch.no_grad()
def score_masking(
    scores: Float[Tensor, "images patches"],
    noise: Float[Tensor, "images patches"],
    mask_ratio: float,
    explore: float,
) -> Mask:
    """Hide most of the patches with high scores and a few of the others.

    Of the `mask_ratio` patches that score highest a random share of 1 - `explore` is hidden, and of the rest a random
    share of `explore`: MedIM's rule, by which no patch is always or never hidden. Both numbers are rounded to whole
    patches and are the same in every image; of equal scores the patch with less noise comes first.

    Args:
        scores: See above; they get no gradient.
        noise: In [0, 1), of the sample: the same sample in the same step has the same mask on any number of ranks.
        mask_ratio: Share of patches that count as high.
        explore: Share of them that stays, and of the rest that goes.
    """
    num_patches = scores.shape[1]
    num_high, from_high, from_rest = group_sizes(num_patches, mask_ratio, explore)
    # Two stable sorts: by noise first, so that the second orders equal scores by it.
    by_noise = noise.argsort(dim=1, stable=True)
    ranked = by_noise.gather(1, scores.gather(1, by_noise).argsort(dim=1, descending=True, stable=True))
    # Each of the two groups in the order of its noise: which of it are hidden is as random as the noise.
    high = _by(noise, ranked[:, :num_high])
    rest = _by(noise, ranked[:, num_high:])
    hidden = torch.cat([high[:, :from_high], rest[:, :from_rest]], dim=1)
    visible = torch.cat([high[:, from_high:], rest[:, from_rest:]], dim=1)
    ids_restore = torch.cat([visible, hidden], dim=1).argsort(dim=1)
    return Mask(visible, ids_restore, (ids_restore >= visible.shape[1]).to(noise.dtype), hidden)


def group_sizes(num_patches: int, mask_ratio: float, explore: float) -> tuple[int, int, int]:
    """Return how many patches count as high, how many of them are hidden, and how many of the others are."""
    num_high = round(num_patches * mask_ratio)
    return num_high, round(num_high * (1 - explore)), round((num_patches - num_high) * explore)


def _by(noise: Tensor, ids: Tensor) -> Tensor:
    return ids.gather(1, noise.gather(1, ids).argsort(dim=1, stable=True))
