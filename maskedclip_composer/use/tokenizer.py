"""Texts to the text encoder's input."""

import hashlib
import json
from collections.abc import Sequence

from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.tokenization_utils_fast import PreTrainedTokenizerFast

from maskedclip_composer.errors import UserError


class Tokenizer:
    """Texts to `text_ids` and `text_mask`, cut at the length that training used.

    Args:
        tokenizer: The text encoder's own.
        max_tokens: Longer texts are cut.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int):
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    @property
    def sha256(self) -> str:
        """Names what decides the tokens: the vocabulary, the steps of a fast tokenizer, the length."""
        own = self.tokenizer
        steps = json.loads(own.backend_tokenizer.to_str()) if isinstance(own, PreTrainedTokenizerFast) else {}
        steps |= {"truncation": None, "padding": None}  # which each call sets
        facts = {
            "class": "" if steps.get("model") else type(own).__name__,
            "steps": steps,
            "vocabulary": sorted(own.get_vocab().items()),
            "special": {name: str(value) for name, value in own.special_tokens_map.items()},
            "max_tokens": self.max_tokens,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def __call__(self, texts: str | Sequence[str]) -> dict[str, Tensor]:
        """Return int64 `text_ids` and `text_mask` [texts, tokens], for `DualTower.encode_text(**...)`.

        Raises:
            UserError: There is no text, or an empty one.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts or not all(text.strip() for text in texts):
            raise UserError("A text is empty.\nGive each text at least one word.")
        found = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        text_ids, text_mask = found["input_ids"], found["attention_mask"]
        assert isinstance(text_ids, Tensor)
        assert isinstance(text_mask, Tensor)
        return {"text_ids": text_ids, "text_mask": text_mask}
