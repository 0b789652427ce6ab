"""Texts to token ids, and which word, entity and sentence each token belongs to."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from maskedclip_composer.data.entities import Tagger
from maskedclip_composer.data.sentences import split_sentences
from maskedclip_composer.errors import UserError

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

_CACHE_SIZE = 65_536  # texts; a few kB each


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text as an encoder reads it.

    Attributes:
        ids: [length] int32, with the tokenizer's start and end.
        units: By name (`word`, `entity`, `sentence`) the number of the unit that each token belongs to, [length] int32;
            -1 for none. Numbers rise along the text.
    """

    ids: np.ndarray
    units: dict[str, np.ndarray] = field(default_factory=dict)


class Tokenisation:
    """Tokenises each distinct text once per loader process.

    Args:
        tokenizer: The text encoder's.
        max_tokens: Longer texts are cut; their end token stays.
        tagger: Finds entities; None leaves `word` and `entity` out.
        max_sentences: Longer texts' last sentences count as one; None leaves `sentence` out.

    Raises:
        UserError: Units are asked for, and the tokenizer does not say where its tokens come from.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        max_tokens: int,
        *,
        tagger: Tagger | None = None,
        max_sentences: int | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._tagger = tagger
        self._max_sentences = max_sentences
        self._with_units = tagger is not None or max_sentences is not None
        self._known: dict[str, Tokens] = {}
        if self._with_units and not tokenizer.is_fast:
            raise UserError(
                "data.entities and data.sentences need a fast tokenizer, which knows where its tokens come from; "
                "save text_encoder.name's tokenizer as a fast one (tokenizer.json), or remove the keys"
            )

    def __call__(self, text: str) -> Tokens:
        """Return the tokens of a text."""
        if text not in self._known:
            if len(self._known) >= _CACHE_SIZE:  # joined reports may be all different
                self._known.clear()
            self._known[text] = self._tokenise(text)
        return self._known[text]

    def _tokenise(self, text: str) -> Tokens:
        encoded = self._tokenizer(
            text, truncation=True, max_length=self._max_tokens, return_offsets_mapping=self._with_units
        )
        ids = np.asarray(encoded["input_ids"], dtype=np.int32)
        if not self._with_units:
            return Tokens(ids)
        words = np.array([-1 if word is None else word for word in encoded.word_ids()], dtype=np.int32)
        begins, ends = np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2).T
        units: dict[str, np.ndarray] = {}
        if self._tagger is not None:
            units |= {"word": words, "entity": np.where(words >= 0, _spans(begins, ends, self._tagger(text)), -1)}
        if self._max_sentences is not None:
            sentences = _spans(begins, ends, split_sentences(text))
            units["sentence"] = np.where(words >= 0, _without_gaps(sentences, self._max_sentences), -1)
        return Tokens(ids, {name: values.astype(np.int32) for name, values in units.items()})


def _spans(begins: np.ndarray, ends: np.ndarray, spans: list[tuple[int, int]]) -> np.ndarray:
    """Return the number of the span that each token overlaps, -1 for none; spans are in order, without overlap."""
    if not spans:
        return np.full(len(begins), -1)
    first, last = np.array(spans).T
    candidate = np.searchsorted(last, begins, side="right").clip(max=len(spans) - 1)
    return np.where((first[candidate] < ends) & (begins < last[candidate]), candidate, -1)


def _without_gaps(sentences: np.ndarray, max_sentences: int) -> np.ndarray:
    """Number the sentences that have a token from 0; a token between two belongs to the one before it."""
    if (sentences < 0).all():  # a text without a letter is one sentence
        return np.zeros_like(sentences)
    filled = np.maximum.accumulate(sentences).clip(min=sentences[sentences >= 0].min())
    return np.unique(filled, return_inverse=True)[1].clip(max=max_sentences - 1)
