"""The text encoder E_T: any encoder of transformers, its tokens and their mean."""

import inspect
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, AutoTokenizer
from transformers.modeling_utils import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from maskedclip_composer.errors import UserError

FOLDER = "text_encoder"
"""In a run's folder and in an exported one: the text encoder's config and its tokenizer."""


@dataclass(frozen=True, kw_only=True)
class TextEncoderConfig:
    """The text encoder E_T.

    Attributes:
        name: Hub id or local folder of a transformers encoder with its tokenizer.
        pretrained: Load the weights; false keeps the architecture and initialises it anew.
        layers: Hidden states that are averaged, -1 is the last; FLAIR averages [1, 2, -1].
        dropout: Dropout of the encoder. Equal texts of a step are encoded once, so they share their draw.
    """

    name: str = "emilyalsentzer/Bio_ClinicalBERT"
    pretrained: bool = True
    layers: list[int] = field(default_factory=lambda: [-1])
    dropout: float = 0.0

    def __post_init__(self):
        if -1 not in self.layers:
            # A last layer outside the loss would have no gradient, and DDP waits for one from every parameter.
            raise UserError(
                f"text_encoder.layers={list(self.layers)} leaves out the last layer.\nAdd -1, as in [1, 2, -1]."
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"text_encoder.dropout={self.dropout} is no probability.\nUse a value in [0, 1).")


class TextEncoder(nn.Module):
    """E_T of MaskedCLIP: token ids to token features, and back from features to words."""

    def __init__(self, encoder: PreTrainedModel, layers: list[int]):
        super().__init__()
        self.encoder = encoder
        self.layers = tuple(layers)
        self.embed_dim: int = encoder.config.hidden_size
        self.num_words: int = encoder.config.vocab_size
        self.max_tokens: int = getattr(encoder.config, "max_position_embeddings", sys.maxsize)

    def forward(
        self, text_ids: Tensor | None = None, text_mask: Tensor | None = None, *, words_of: Tensor | None = None
    ) -> Tensor:
        """Encode texts, or compare features with the words of the vocabulary.

        The second is a way through `forward` and no method of its own because FSDP brings the parameters together for
        `forward` alone.

        Args:
            text_ids: [texts, tokens] int64.
            text_mask: [texts, tokens], 1 on tokens and 0 on padding.
            words_of: [masked, embed_dim]; in place of the other two.

        Returns:
            Tokens [texts, tokens, embed_dim], what stands on padding is void; or the product of `words_of` with the
            word embeddings, [masked, vocabulary].
        """
        if words_of is not None:
            words = self.encoder.get_input_embeddings().weight
            assert isinstance(words, Tensor)
            return F.linear(words_of, words)
        output = self.encoder(input_ids=text_ids, attention_mask=text_mask, output_hidden_states=self.layers != (-1,))
        if self.layers == (-1,):
            return output.last_hidden_state
        return torch.stack([output.hidden_states[layer] for layer in self.layers]).mean(dim=0)


def mean_tokens(tokens: Tensor, text_mask: Tensor) -> Tensor:
    """Return the mean [texts, embed_dim] over each text's tokens, [CLS] and [SEP] included, padding excluded."""
    weights = text_mask[:, :, None].to(tokens.dtype)
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1)


def build_text_encoder(config: TextEncoderConfig) -> TextEncoder:
    """Load or initialise the encoder.

    Raises:
        UserError: Neither a local folder nor a reachable hub id, or a model that cannot be used as an encoder.
    """
    try:
        settings = AutoConfig.from_pretrained(config.name, trust_remote_code=False)
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"):
            if hasattr(settings, name):
                setattr(settings, name, config.dropout)
        # A pooler's output is not used here, so it would never receive a gradient.
        model_class = MODEL_MAPPING[type(settings)]
        has_pooler = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
        without_pooler = {"add_pooling_layer": False} if has_pooler else {}
        if config.pretrained:
            encoder = AutoModel.from_pretrained(config.name, config=settings, trust_remote_code=False, **without_pooler)
        else:
            encoder = AutoModel.from_config(settings, **without_pooler)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(_cannot_load(config.name, error)) from error
    layers = settings.num_hidden_layers
    if not all(-layers - 1 <= layer <= layers for layer in config.layers):
        raise UserError(
            f"text_encoder.layers={list(config.layers)}: {config.name} has layers 1 to {layers}, -1 the last."
        )
    return TextEncoder(encoder, list(config.layers))


def load_tokenizer(config: TextEncoderConfig) -> PreTrainedTokenizerBase:
    """Load the tokenizer that belongs to the encoder.

    Raises:
        UserError: As in `build_text_encoder`.
    """
    try:
        return AutoTokenizer.from_pretrained(config.name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(_cannot_load(config.name, error)) from error


def save_text_side(encoder: TextEncoder, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write what belongs to the weights of a text encoder: its config and its tokenizer.

    Args:
        encoder: As it is trained.
        tokenizer: Its own.
        folder: `load_tokenizer` and `build_text_encoder` without `pretrained` read it by this name.
    """
    encoder.encoder.config.save_pretrained(folder)
    tokenizer.save_pretrained(str(folder))


def _cannot_load(name: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0]
    if Path(name).exists():
        return f"text_encoder.name={name} is a folder without a usable transformers encoder and tokenizer: {reason}"
    return (
        f"text_encoder.name={name} is no local folder and could not be loaded from the hub: {reason}\n"
        "Check the name and the network, or give the folder of a downloaded encoder.\n"
        "A small one for trials is made by: python -m data_prep text-tower."
    )
