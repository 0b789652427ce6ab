"""Label-guided CLIP on the paired images (L_lg_clip); with distinct labels it is CLIP."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from maskedclip_composer.distributed import gather, gather_table_with_gradient, gather_with_gradient
from maskedclip_composer.losses.contrastive import label_guided_clip_loss, label_guided_floor
from maskedclip_composer.losses.distinct_texts import distinct_text_clip_loss
from maskedclip_composer.models.precision import at_least_float32
from maskedclip_composer.models.text import mean_tokens
from maskedclip_composer.models.views import Views
from maskedclip_composer.objectives.base import Objective, ObjectiveConfig, Parts
from maskedclip_composer.objectives.health import effective_rank, nearest_of_texts, variance_of_directions
from maskedclip_composer.objectives.two_tower import check_joint_space, projection, unit


@dataclass(frozen=True, kw_only=True)
class LgClipConfig(ObjectiveConfig):
    """L_lg_clip and its projection heads W_I and W_T.

    Attributes:
        patches: whole encodes whole images, as MaskedCLIP and CLIP do; visible takes the patches that `mask_ratio`
            leaves, as FLIP does (arXiv 2212.00794).
        embed_dim: Width of the joint space.
        temperature: Initial temperature; its inverse is the initial logit scale.
        max_logit_scale: The learnt logit scale stays between 1 and this.
    """

    key: ClassVar[str] = "lg_clip"
    needs: ClassVar[frozenset[str]] = frozenset({"paired"})
    trains_bridge: ClassVar[bool] = True
    is_two_tower: ClassVar[bool] = True

    weight: float = 0.01
    patches: Literal["whole", "visible"] = "whole"
    embed_dim: int = 512
    temperature: float = 0.07
    max_logit_scale: float = 100.0

    @property
    def masks_at_random(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As FLIP does."""
        return self.patches == "visible"

    @property
    def reads_whole(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As MaskedCLIP does."""
        return self.patches == "whole"

    def __post_init__(self):
        super().__post_init__()
        check_joint_space(
            self.key,
            embed_dim=self.embed_dim,
            temperature=self.temperature,
            max_logit_scale=self.max_logit_scale,
        )

    def build(self, parts: Parts) -> "LabelGuidedClip":
        """Build W_I, W_T and the logit scale."""
        return LabelGuidedClip(
            self, parts.image_encoder.embed_dim, parts.text_dim, distinct_logits=parts.compute.distinct_logits
        )


class LabelGuidedClip(Objective):
    """Align mean bridge features of paired images with mean text features, over the pairs of all ranks (eq. 2-4).

    Args:
        config: See there.
        image_dim: Width of the bridge.
        text_dim: Width of the text encoder.
        distinct_logits: Compare this rank's images with the distinct texts of all ranks; false compares the pairs of
            all ranks with each other on every rank. The gradient that DDP averages is the same.
    """

    def __init__(self, config: LgClipConfig, image_dim: int, text_dim: int, *, distinct_logits: bool = True):
        super().__init__(config.weight)
        self.loss = distinct_text_clip_loss if distinct_logits else label_guided_clip_loss
        self.distinct_logits = distinct_logits
        self.patches = config.patches
        self.image_projection = projection(image_dim, config.embed_dim)
        self.text_projection = projection(text_dim, config.embed_dim)
        # One element rather than none: FSDP2 cannot shard a scalar.
        self.log_logit_scale = nn.Parameter(torch.tensor([math.log(1 / config.temperature)]))
        self.max_log_logit_scale = math.log(config.max_logit_scale)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return the arguments of the loss: L2-normalised features, labels, which text is whose, and the logit scale.

        Features have one row an image and, for `distinct_text_clip_loss`, one row a distinct text.
        """
        views.offer_space(self.image_projection.weight, self.text_projection.weight)
        image = self.embed_images(
            views.image if self.patches == "whole" else views.bridge(views.masked[: views.num_pairs])
        )
        logit_scale = at_least_float32(self.log_logit_scale).exp().squeeze()
        text = unit(self.text_projection(views.distinct_text))
        index, labels = views.paired["text_index"], views.labels
        if not self.distinct_logits:
            return {
                "image_features": gather_with_gradient(image),
                "text_features": gather_with_gradient(text[index]),
                "labels": gather(labels),
                "logit_scale": logit_scale,
            }
        all_text, all_index = gather_table_with_gradient(text, index)
        return {
            "image_features": image,
            "text_features": text,
            "text_index": index,
            "labels": labels,
            "all_image_features": gather_with_gradient(image),
            "all_text_features": all_text,
            "all_text_index": all_index,
            "all_labels": gather(labels),
            "logit_scale": logit_scale,
        }

    def embed_images(self, tokens: Tensor) -> Tensor:
        """Project the mean of the patches; the class token is context only, no objective but this would train it."""
        return unit(self.image_projection(tokens[:, 1:].mean(dim=1)))

    def embed_texts(self, tokens: Tensor, text_mask: Tensor) -> Tensor:
        """Project the mean of the tokens."""
        return unit(self.text_projection(mean_tokens(tokens, text_mask)))

    def diagnose(self, **outputs: Tensor) -> dict[str, Tensor]:
        """Return how far it is, how well pairs find each other and how rich the images are, over all ranks' pairs.

        `above_floor` is the loss minus the least value it can have, in nats; `retrieval_at_1` the share of images whose
        nearest text has their label, where a text of several labels has that of its first pair. Others as in
        `objectives.health`.
        """
        prefix = "all_" if self.distinct_logits else ""
        images, texts, labels = (outputs[prefix + name] for name in ("image_features", "text_features", "labels"))
        index = outputs["all_text_index"] if self.distinct_logits else torch.arange(len(labels), device=labels.device)
        pairs = images, texts, index, labels
        loss = distinct_text_clip_loss(*pairs, *pairs, outputs["logit_scale"])
        no_pair = len(labels)
        first_pair = index.new_full((len(texts),), no_pair)
        first_pair.scatter_reduce_(0, index, torch.arange(no_pair, device=index.device), "amin")
        similarity = (images.float() @ texts.float().T).masked_fill(first_pair == no_pair, -math.inf)
        return {
            "above_floor": loss - label_guided_floor(labels),
            "logit_scale": outputs["logit_scale"],
            "retrieval_at_1": (labels[first_pair[similarity.argmax(dim=1)]] == labels).float().mean(),
            **nearest_of_texts(similarity, labels, index),
            "image_variance": variance_of_directions(images),
            "image_effective_rank": effective_rank(images),
        }
