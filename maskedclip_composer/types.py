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


class PairedPart(UnpairedPart):
    """Photographs with text. Equal texts of a step are encoded once: `text_ids[text_index]` is row by row."""

    label: Tensor  # [n] int64, equal exactly where two pairs are positives of each other
    text_ids: Tensor  # [unique, tokens] int64
    text_mask: Tensor  # [unique, tokens] int64, 1 = token, 0 = padding
    text_index: Tensor  # [n] int64 into the rows of text_ids


class Batch(TypedDict):
    """One step's device batch. At least one part is present, the same ones in every step."""

    paired: NotRequired[PairedPart]
    unpaired: NotRequired[UnpairedPart]
