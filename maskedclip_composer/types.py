"""What the loader hands to the model.

Nested mappings, because Composer moves only mappings and sequences to the device.
"""

from typing import NotRequired, TypedDict

from torch import Tensor


class UnpairedPart(TypedDict):
    """Photographs without text; `n` is this rank's share of the step."""

    image: Tensor  # [n, 3, size, size] uint8, augmented, not normalised
    noise: Tensor  # [n, patches] float32 in [0, 1): patches with the smallest noise stay visible
    sample_id: Tensor  # [n] int64, index in the joint data set
    # With data.crops, of which `image` is the first global one:
    global_crops: NotRequired[Tensor]  # [n, global_count - 1, 3, size, size] uint8
    local_crops: NotRequired[Tensor]  # [n, local_count, 3, local_size, local_size] uint8
    block_mask: NotRequired[Tensor]  # [n, global_count, patches] bool, True = the student sees the mask token


class PairedPart(UnpairedPart):
    """Photographs with text. Equal texts of a step have one row: `text_ids[text_index]` is pair by pair."""

    label: Tensor  # [n] int64, equal exactly where two pairs are positives of each other
    text_ids: Tensor  # [unique, tokens] int64
    text_mask: Tensor  # [unique, tokens] int64, 1 = token, 0 = padding
    text_index: Tensor  # [n] int64 into the rows of text_ids
    # With data.entities; -1 on special tokens, on padding and, of entities, outside of spans:
    text_word: NotRequired[Tensor]  # [unique, tokens] int64, number of the word that a token belongs to
    text_entity: NotRequired[Tensor]  # [unique, tokens] int64, number of the entity span
    text_noise: NotRequired[Tensor]  # [n, tokens] float32 in [0, 1): draws of text masking
    # With data.sentences; -1 on special tokens and padding:
    text_sentence: NotRequired[Tensor]  # [unique, tokens] int64, number of the sentence


class Batch(TypedDict):
    """One step's device batch. At least one part is present, the same ones in every step."""

    paired: NotRequired[PairedPart]
    unpaired: NotRequired[UnpairedPart]
