"""Draw a text of a record, and encode the texts of a step once each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from maskedclip_composer.data.prompts import PromptPack
from maskedclip_composer.data.schema import TextKind, label_id
from maskedclip_composer.errors import UserError

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class DrawnText:
    """The text that stands for an image in one step."""

    text: str
    tokens: np.ndarray  # [length] int32, with the tokenizer's start and end
    label: int  # equal to another's exactly where the two are positives of each other


class TextSampler:
    """Draws one of a record's texts, in the words of a pack, with its label id.

    Each distinct text is tokenised once per loader process: a pack makes finitely many of each category.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        prompts: PromptPack,
        *,
        label: Literal["category", "unique"],
        max_tokens: int,
    ) -> None:
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._label = label
        self._max_tokens = max_tokens
        self._tokens: dict[str, np.ndarray] = {}

    def __call__(self, record: Mapping[str, Any], sample_id: int, rng: np.random.Generator, *, name: str) -> DrawnText:
        """Draw uniformly from `record["texts"]`, then its wording.

        The id is the one of the text's category, whatever the wording. A text without a category, and every text in
        mode `unique`, gets the id -1 - `sample_id`: category ids are never negative, so it meets only the same image
        again.

        Raises:
            UserError: The record has no text, or not one label and one kind per text; `name` says which record.
        """
        texts, labels, kinds = record["texts"], record["labels"], record["text_kinds"]
        if not texts or not len(texts) == len(labels) == len(kinds) or not set(kinds) <= set(get_args(TextKind)):
            raise UserError(
                f"{name}: {len(texts)} texts, {len(labels)} labels and the kinds {kinds}; a paired record needs at "
                f'least one text, and one label ("" for none) and one kind ({", ".join(get_args(TextKind))}) per text; '
                "prepare the set again"
            )
        choice = int(rng.integers(len(texts)))
        category = labels[choice] if self._label == "category" else ""
        label = label_id(category) if category else -1 - sample_id
        text = self._prompts.draw(texts[choice], kinds[choice], rng)
        return DrawnText(text=text, tokens=self._tokenise(text), label=label)

    def _tokenise(self, text: str) -> np.ndarray:
        if text not in self._tokens:
            ids = self._tokenizer(text, truncation=True, max_length=self._max_tokens)["input_ids"]
            self._tokens[text] = np.asarray(ids, dtype=np.int32)
        return self._tokens[text]


def collate_texts(drawn: Sequence[DrawnText], *, max_tokens: int, pad_id: int) -> dict[str, Tensor]:
    """Stack the distinct texts of a device batch, in order of first use.

    Returns:
        `label` [n] int64, `text_index` [n] int64, `text_ids` and `text_mask` [unique, tokens] int64. `tokens` is the
        longest length rounded up to a multiple of 8 (few compiled shapes), at most `max_tokens` (the text encoder's
        positions end there).
    """
    rows: dict[str, int] = {}
    index = [rows.setdefault(item.text, len(rows)) for item in drawn]
    tokens = {item.text: item.tokens for item in drawn}
    length = min(-(-max(map(len, tokens.values())) // 8) * 8, max_tokens)
    text_ids = torch.full((len(rows), length), pad_id, dtype=torch.int64)
    text_mask = torch.zeros_like(text_ids)
    for text, row in rows.items():
        text_ids[row, : len(tokens[text])] = torch.from_numpy(tokens[text]).long()
        text_mask[row, : len(tokens[text])] = 1
    return {
        "label": torch.tensor([item.label for item in drawn]),
        "text_ids": text_ids,
        "text_mask": text_mask,
        "text_index": torch.tensor(index),
    }
