"""Draw a text of a record, and encode the texts of a step once each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from maskedclip_composer.data.prompts import PromptPack
from maskedclip_composer.data.schema import TextKind, label_id
from maskedclip_composer.data.tokenisation import Tokenisation
from maskedclip_composer.errors import UserError


@dataclass(frozen=True, slots=True)
class DrawnText:
    """The text that stands for an image in one step."""

    text: str
    tokens: np.ndarray  # [length] int32, with the tokenizer's start and end
    label: int  # equal to another's exactly where the two are positives of each other
    units: Mapping[str, np.ndarray] = field(default_factory=dict)  # see `tokenisation.Tokens`
    noise: np.ndarray | None = None  # [max_tokens] float32 in [0, 1), with entities


class TextSampler:
    """Draws one of a record's texts, in the words of a pack, with its label id.

    Args:
        tokenise: Of the texts; a pack makes finitely many of each category.
        prompts: The pack.
        label: category gives equal ids to texts of one category, unique gives each image its own.
        join_texts: Take all texts of a record, in their order, as the sentences of one report.
        noise_length: Draws for each text, one a token; 0 draws none.
    """

    def __init__(
        self,
        tokenise: Tokenisation,
        prompts: PromptPack,
        *,
        label: Literal["category", "unique"],
        join_texts: bool = False,
        noise_length: int = 0,
    ) -> None:
        self._tokenise = tokenise
        self._prompts = prompts
        self._label = label
        self._join_texts = join_texts
        self._noise_length = noise_length

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
        if self._join_texts:
            wordings = (self._prompts.draw(*pair, rng).rstrip() for pair in zip(texts, kinds, strict=True))
            text = " ".join(wording if wording.endswith((".", "!", "?")) else f"{wording}." for wording in wordings)
            category = ""
        else:
            choice = int(rng.integers(len(texts)))
            category = labels[choice] if self._label == "category" else ""
            text = self._prompts.draw(texts[choice], kinds[choice], rng)
        label = label_id(category) if category else -1 - sample_id
        tokens = self._tokenise(text)
        noise = rng.random(self._noise_length, dtype=np.float32) if self._noise_length else None
        return DrawnText(text=text, tokens=tokens.ids, label=label, units=tokens.units, noise=noise)


def collate_texts(
    drawn: Sequence[DrawnText], *, max_tokens: int, pad_id: int, distinct: bool = True
) -> dict[str, Tensor]:
    """Stack the distinct texts of a device batch, in order of first use.

    Args:
        drawn: One text a pair.
        max_tokens: The text encoder's positions end there.
        pad_id: What stands behind shorter texts.
        distinct: One row for each distinct text; false gives each pair a row of its own, padded to `max_tokens`.

    Returns:
        `label` [n] int64, `text_index` [n] int64, `text_ids` and `text_mask` [unique, tokens] int64; where the texts
        have units `text_<unit>` [unique, tokens] int64, -1 for none, and where they have noise `text_noise` [n, tokens]
        float32. `tokens` is the longest length rounded up to a multiple of 8 (few compiled shapes), at most
        `max_tokens`.
    """
    rows: dict[str | int, int] = {}
    index = [rows.setdefault(item.text if distinct else number, len(rows)) for number, item in enumerate(drawn)]
    texts = list(dict(zip(index, drawn, strict=True)).values())
    longest = max(len(item.tokens) for item in texts)
    length = min(-(-longest // 8) * 8, max_tokens) if distinct else max_tokens

    def padded(values: Sequence[np.ndarray], fill: int) -> Tensor:
        result = torch.full((len(rows), length), fill, dtype=torch.int64)
        for row, value in enumerate(values):
            result[row, : len(value)] = torch.from_numpy(value).long()
        return result

    batch = {
        "label": torch.tensor([item.label for item in drawn]),
        "text_ids": padded([item.tokens for item in texts], pad_id),
        "text_mask": padded([np.ones_like(item.tokens) for item in texts], 0),
        "text_index": torch.tensor(index),
    }
    batch |= {f"text_{unit}": padded([item.units[unit] for item in texts], -1) for unit in texts[0].units}
    noise = [item.noise[:length] for item in drawn if item.noise is not None]
    return batch | {"text_noise": torch.from_numpy(np.stack(noise))} if noise else batch
