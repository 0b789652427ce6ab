"""Entity-masked language modelling (EntMLM), in the style of MMCLIP."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from maskedclip_composer.distributed import mean_over_ranks
from maskedclip_composer.errors import UserError
from maskedclip_composer.losses.language import masked_token_ce
from maskedclip_composer.models.cross_decoder import CrossDecoder
from maskedclip_composer.models.text_masking import mask_entities
from maskedclip_composer.models.transformer import initialise
from maskedclip_composer.models.views import Views
from maskedclip_composer.objectives.base import Objective, ObjectiveConfig, Parts
from maskedclip_composer.objectives.mim import check_width


@dataclass(frozen=True, kw_only=True)
class EntMlmConfig(ObjectiveConfig):
    """Prediction of hidden entities from the rest of the text and the image.

    Attributes:
        entity_ratio: Chance that an entity span (`data.entities`) is hidden.
        word_ratio: Chance that a word is hidden, in a text without an entity.
        dim: Width of the decoder.
        depth: Blocks of the decoder.
        num_heads: Attention heads of the decoder.
    """

    key: ClassVar[str] = "ent_mlm"
    has_decoder: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"paired", "entities"})
    reads_whole: ClassVar[bool] = True

    entity_ratio: float = 0.5
    word_ratio: float = 0.15
    dim: int = 512
    depth: int = 2
    num_heads: int = 8

    def __post_init__(self):
        super().__post_init__()
        for name in ("entity_ratio", "word_ratio"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(f"objectives.ent_mlm.{name}={getattr(self, name)} is no chance above 0.\nUse 0.5.")
        if self.depth < 1:
            raise UserError(f"objectives.ent_mlm.depth={self.depth} is not positive.\nUse 1 or more.")
        check_width("ent_mlm", self.dim, self.num_heads)

    def build(self, parts: Parts) -> "EntityMaskedLanguageModelling":
        """Build the decoder and its head.

        Raises:
            UserError: The text encoder's tokenizer has no mask token.
        """
        assert parts.tokenizer is not None
        assert parts.text_encoder is not None
        mask_token_id = parts.tokenizer.mask_token_id
        if not isinstance(mask_token_id, int):
            raise UserError(
                "objectives.ent_mlm needs a text encoder that was trained with a mask token; the tokenizer of "
                "text_encoder.name has none.\nUse a BERT such as emilyalsentzer/Bio_ClinicalBERT, or remove ent_mlm."
            )
        return EntityMaskedLanguageModelling(
            self,
            parts.image_encoder.embed_dim,
            parts.text_dim,
            vocabulary=parts.text_encoder.num_words,
            mask_token_id=mask_token_id,
        )


class EntityMaskedLanguageModelling(Objective):
    """Encode each paired text with hidden entities, let it attend to its whole image, and predict what was hidden."""

    loss = staticmethod(masked_token_ce)

    def __init__(self, config: EntMlmConfig, image_dim: int, text_dim: int, *, vocabulary: int, mask_token_id: int):
        super().__init__(config.weight)
        self.config = config
        self.mask_token_id = mask_token_id
        self.embed_text = nn.Linear(text_dim, config.dim)
        self.embed_image = nn.Linear(image_dim, config.dim)
        self.decoder = CrossDecoder(config.dim, config.depth, config.num_heads)
        # As BERT's head: a dense layer before the words, which are E_T's own embeddings, and a bias for each word.
        self.head = nn.Sequential(nn.Linear(config.dim, text_dim), nn.GELU(), nn.LayerNorm(text_dim))
        self.word_bias = nn.Parameter(torch.zeros(vocabulary))
        for part in (self.embed_text, self.embed_image, self.head):
            initialise(part)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return logits [masked, vocabulary], targets [masked] and the mean number of masked tokens of a rank."""
        ids, text_mask = views.of_texts("text_ids"), views.text_mask
        masked = mask_entities(
            ids,
            views.of_texts("text_word"),
            views.of_texts("text_entity"),
            views.paired["text_noise"],
            mask_token_id=self.mask_token_id,
            entity_ratio=self.config.entity_ratio,
            word_ratio=self.config.word_ratio,
        )
        tokens = self.embed_text(views.encode_text(masked.text_ids, text_mask))
        image = self.embed_image(views.whole_paired[:, 1:])
        decoded = self.decoder(tokens, image, token_mask=text_mask)
        logits = views.word_logits(self.head(decoded[masked.hidden])).float() + self.word_bias
        count = mean_over_ranks(masked.hidden.sum().float())
        # Where no rank has hidden anything the loss is 0 / 1.
        denominator = torch.where(count > 0, count, torch.ones_like(count))
        return {"logits": logits, "targets": ids[masked.hidden], "denominator": denominator}

    def diagnose(self, **outputs: Tensor) -> dict[str, Tensor]:
        """Return the share of hidden tokens that are predicted, and how many were hidden; nothing where none was."""
        if not len(outputs["targets"]):
            return {}
        hit = outputs["logits"].argmax(dim=1) == outputs["targets"]
        return {"accuracy": hit.float().mean(), "hidden_tokens": torch.tensor(float(len(hit)))}
