"""Losses of masked language modelling."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def masked_token_ce(
    logits: Float[Tensor, "masked vocabulary"],
    targets: Int[Tensor, " masked"],
    denominator: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Negative log-likelihood of the removed tokens, their sum over `denominator`; 0 where nothing was removed.

    In the style of MMCLIP's EntMLM (arXiv 2407.19546): the mean over the removed tokens S, -1/|S| sum log p(t | rest).

    Args:
        logits: Scores of the vocabulary at the removed tokens alone.
        targets: What stood there.
        denominator: |S|, or its mean over ranks where each has its own share of the batch; positive.

    Returns:
        A mean in nats.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(logits.to(dtype), targets, reduction="sum") / denominator.to(dtype)
