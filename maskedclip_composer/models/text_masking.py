"""Which words of a text are hidden."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class MaskedText(NamedTuple):
    """Texts with hidden tokens."""

    text_ids: Int[Tensor, "pairs tokens"]  # with the mask token where something was hidden
    hidden: Bool[Tensor, "pairs tokens"]


def mask_entities(
    text_ids: Int[Tensor, "pairs tokens"],
    text_word: Int[Tensor, "pairs tokens"],
    text_entity: Int[Tensor, "pairs tokens"],
    text_noise: Float[Tensor, "pairs tokens"],
    *,
    mask_token_id: int,
    entity_ratio: float,
    word_ratio: float,
) -> MaskedText:
    """Hide whole entity spans; in a text without one, whole words.

    In the style of MMCLIP's EntMLM (arXiv 2407.19546), whose rate and fall-back are not stated. Special tokens and
    padding belong to no word and to no span, so they stay.

    Args:
        text_ids: Tokens.
        text_word: Number of each token's word, -1 for none.
        text_entity: Number of each token's entity span, -1 for none.
        text_noise: In [0, 1), of the sample; a span's draw is the one at its first token.
        mask_token_id: What hidden tokens become.
        entity_ratio: Chance that a span is hidden.
        word_ratio: Chance that a word is hidden, in a text without spans.
    """
    has_entity = (text_entity >= 0).any(dim=1, keepdim=True)
    spans = torch.where(has_entity, text_entity, text_word)
    draws = text_noise.gather(1, _first_token(spans))
    ratio = torch.where(has_entity, entity_ratio, word_ratio)
    hidden = (spans >= 0) & (draws < ratio)
    return MaskedText(text_ids.masked_fill(hidden, mask_token_id), hidden)


def _first_token(spans: Int[Tensor, "pairs tokens"]) -> Int[Tensor, "pairs tokens"]:
    """Return, for each token, the position of the first token of its span.

    Numbers are compared and never used as positions: in a text that is cut at its start they begin anywhere.
    """
    same = spans[:, :, None] == spans[:, None, :]
    return same.to(torch.uint8).argmax(dim=2)  # of equal values argmax takes the first
