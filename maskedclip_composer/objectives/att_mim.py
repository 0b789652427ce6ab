"""Attention-masked image modelling (AttMIM), in the style of MMCLIP."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from maskedclip_composer.errors import UserError
from maskedclip_composer.losses.reconstruction import streamwise_patch_mse
from maskedclip_composer.models.cross_decoder import CrossDecoder
from maskedclip_composer.models.masking import Mask, gather_tokens
from maskedclip_composer.models.score_masking import (
    group_sizes,
    responsive_cosine_score,
    score_masking,
    text_to_image_score,
)
from maskedclip_composer.models.text import mean_tokens
from maskedclip_composer.models.transformer import initialise, sincos_positions
from maskedclip_composer.models.views import Views
from maskedclip_composer.models.vit import ImageEncoder
from maskedclip_composer.objectives.base import Objective, ObjectiveConfig, Parts
from maskedclip_composer.objectives.mim import TargetNorm, check_width, pixel_targets

_PLACE = "{category}"


@dataclass(frozen=True, kw_only=True)
class AttMimConfig(ObjectiveConfig):
    """Reconstruction of the patches that the text attends to, with the text's help.

    Attributes:
        score: What ranks the patches (`models/score_masking.py`).
        attention_temperature: Of text_to_image.
        mask_ratio: Share of patches that count as attended to.
        explore: Share of those that stays visible, and of the others that is hidden.
        mask_stage: feature replaces hidden patches after the encoder, as MMCLIP does: their neighbours have seen them.
            input encodes the visible patches anew, a second pass through the encoder.
        template: Sentence around a disease's name, for the images without text.
        diseases: Names that stand in the template; null takes the categories of `data.prompts`.
        dim: Width of the decoder.
        depth: Blocks of the decoder.
        num_heads: Attention heads of the decoder.
        target_norm: As in mim.
    """

    key: ClassVar[str] = "att_mim"
    has_decoder: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"paired"})
    reads_whole: ClassVar[bool] = True
    needs_joint_space: ClassVar[bool] = True
    uses_unpaired: ClassVar[bool] = True

    score: Literal["text_to_image", "responsive_cosine"] = "text_to_image"
    attention_temperature: float = 0.1
    mask_ratio: float = 0.5
    explore: float = 0.1
    mask_stage: Literal["feature", "input"] = "feature"
    template: str = "There is {category}."
    diseases: list[str] | None = None
    dim: int = 512
    depth: int = 4
    num_heads: int = 8
    target_norm: TargetNorm = "none"

    def __post_init__(self):
        super().__post_init__()
        if self.depth < 1:
            raise UserError(f"objectives.att_mim.depth={self.depth} is not positive.\nUse 1 or more.")
        check_width("att_mim", self.dim, self.num_heads)
        if not 0 < self.mask_ratio < 1:
            raise UserError(f"objectives.att_mim.mask_ratio={self.mask_ratio} is outside (0, 1).\nThe default is 0.5.")
        if not 0 <= self.explore < 1:
            raise UserError(f"objectives.att_mim.explore={self.explore} is outside [0, 1).\nThe default is 0.1.")
        if self.score != "text_to_image" and self.attention_temperature != AttMimConfig.attention_temperature:
            raise UserError(
                f"objectives.att_mim.attention_temperature={self.attention_temperature} is not read with "
                f"score={self.score}.\nRemove it, or use score=text_to_image."
            )
        if not self.attention_temperature > 0:
            raise UserError(
                f"objectives.att_mim.attention_temperature={self.attention_temperature} is not positive.\n"
                "The default is 0.1."
            )
        if self.template.count(_PLACE) != 1:
            raise UserError(f"objectives.att_mim.template={self.template!r} must name {_PLACE} once.")
        if self.diseases is not None and not self.diseases:
            raise UserError("objectives.att_mim.diseases is empty.\nName some, or leave it out for the pack's.")

    def build(self, parts: Parts) -> "AttentionMaskedImageModelling":
        """Build the maps to the common width and the decoder, and tokenise the disease prompts."""
        assert parts.tokenizer is not None
        assert parts.text_encoder is not None
        names = self.diseases or parts.categories
        prompts = parts.tokenizer(
            [self.template.replace(_PLACE, name) for name in names],
            padding=True,
            truncation=True,
            max_length=min(128, parts.tokenizer.model_max_length, parts.text_encoder.max_tokens),
            return_tensors="pt",
        )
        patches = parts.image_encoder.grid[0] * parts.image_encoder.grid[1]
        _, from_high, from_rest = group_sizes(patches, self.mask_ratio, self.explore)
        if not 0 < from_high + from_rest < patches:
            raise UserError(
                f"objectives.att_mim.mask_ratio={self.mask_ratio} of {patches} patches hides none or all of them.\n"
                "Change it, or have more patches: a larger data.image_size or a smaller patch."
            )
        return AttentionMaskedImageModelling(
            self,
            parts.image_encoder,
            parts.text_dim,
            prompt_ids=torch.as_tensor(prompts["input_ids"]),
            prompt_mask=torch.as_tensor(prompts["attention_mask"]),
            special_ids=torch.tensor(parts.tokenizer.all_special_ids),
        )


class AttentionMaskedImageModelling(Objective):
    """Hide what the text attends to in whole images, and reconstruct its pixels from the rest and the text.

    Paired images have their own text; unpaired ones have the prompts of all diseases, a token each. Both streams share
    maps and decoder.
    """

    loss = staticmethod(streamwise_patch_mse)

    prompt_ids: Tensor
    prompt_mask: Tensor
    special_ids: Tensor
    positions: Tensor

    def __init__(
        self,
        config: AttMimConfig,
        encoder: ImageEncoder,
        text_dim: int,
        *,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        special_ids: Tensor,
    ):
        super().__init__(config.weight)
        self.config = config
        self.patch_size = encoder.patch_size
        self.embed_image = nn.Linear(encoder.embed_dim, config.dim)
        self.embed_text = nn.Linear(text_dim, config.dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, config.dim))
        self.decoder = CrossDecoder(config.dim, config.depth, config.num_heads)
        self.predict = nn.Linear(config.dim, encoder.patch_size**2 * 3)
        for part in (self.embed_image, self.embed_text, self.predict):
            initialise(part)
        nn.init.normal_(self.mask_token, std=0.02)
        self.register_buffer("positions", sincos_positions(encoder.grid, config.dim)[:, 1:], persistent=False)
        self.register_buffer("prompt_ids", prompt_ids, persistent=False)
        self.register_buffer("prompt_mask", prompt_mask, persistent=False)
        self.register_buffer("special_ids", special_ids, persistent=False)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return prediction and target [images, patches, values], mask [images, patches] and the number of pairs."""
        pairs, images, noise = views.num_pairs, views.images, views.joined("noise")
        decoded: list[tuple[Tensor, Mask, Tensor]] = []
        if pairs:
            valid = (views.text_mask > 0) & ~torch.isin(views.of_texts("text_ids"), self.special_ids)
            text, whole = views.text_tokens, views.whole_paired
            decoded.append(self._decode(views, whole, images[:pairs], noise[:pairs], text, views.text_mask, valid))
        if pairs < len(images):
            prompts = mean_tokens(views.encode_text(self.prompt_ids, self.prompt_mask), self.prompt_mask)
            text = prompts[None]  # the same of all images: mapped once, then expanded
            valid = torch.ones(len(images) - pairs, len(prompts), dtype=torch.bool, device=text.device)
            if self.config.mask_stage == "feature":
                whole = views.whole_unpaired
            else:  # this pass only finds the visible patches; not the views' own, which others may want to train
                with torch.no_grad():
                    whole = views.encode_images(images[pairs:])
            decoded.append(self._decode(views, whole, images[pairs:], noise[pairs:], text, valid, valid))
        predictions, masks, scores = zip(*decoded, strict=True)
        views.show("att_mim_score", torch.cat(scores))
        return {
            "prediction": torch.cat(predictions).float(),
            "target": pixel_targets(images, self.patch_size, self.config.target_norm),
            "mask": torch.cat([mask.mask for mask in masks]),
            "num_pairs": torch.tensor(pairs, device=images.device),
        }

    def _decode(
        self,
        views: Views,
        whole: Tensor,
        images: Tensor,
        noise: Tensor,
        text_tokens: Tensor,
        text_mask: Tensor,
        text_valid: Tensor,
    ) -> tuple[Tensor, Mask, Tensor]:
        """Return prediction, mask and scores of one stream's images [images, patches, ...]."""
        config = self.config
        patches = self.embed_image(whole[:, 1:])
        text = self.embed_text(text_tokens).expand(len(images), -1, -1)
        # Patches of one image are much alike: rounded to bfloat16 many would score the same.
        # The maps above learn to reconstruct; only in the space of the contrastive loss is a patch near what it shows.
        image_part, text_part = views.in_joint_space(whole, text_tokens)
        text_part = text_part.expand(len(images), -1, -1)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            if config.score == "text_to_image":
                scores = text_to_image_score(image_part[:, 1:], text_part, text_valid, config.attention_temperature)
            else:
                scores = responsive_cosine_score(image_part[:, 1:], text_part, text_valid)
        mask = score_masking(scores, noise, config.mask_ratio, config.explore)
        if config.mask_stage == "input":
            visible = self.embed_image(views.encode_images(images, mask.ids_keep)[:, 1:])
            gaps = self.mask_token.to(visible.dtype).expand(len(images), patches.shape[1] - visible.shape[1], -1)
            tokens = gather_tokens(torch.cat([visible, gaps], dim=1), mask.ids_restore)
        else:
            tokens = torch.where(mask.mask[:, :, None] > 0, self.mask_token.to(patches.dtype), patches)
        decoded = self.decoder(tokens + self.positions, text, context_mask=text_mask)
        return self.predict(decoded), mask, scores
