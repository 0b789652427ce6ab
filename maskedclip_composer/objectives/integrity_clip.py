"""Masked contrastive learning with semantic integrity, in the style of MLIP."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskedclip_composer.distributed import gather, gather_with_gradient
from maskedclip_composer.losses.contrastive import integrity_clip_loss
from maskedclip_composer.models.views import Views
from maskedclip_composer.objectives.base import Objective, ObjectiveConfig, Parts
from maskedclip_composer.objectives.health import effective_rank, nearest_of_texts, variance_of_directions
from maskedclip_composer.objectives.two_tower import check_joint_space, projection, unit


@dataclass(frozen=True, kw_only=True)
class IntegrityClipConfig(ObjectiveConfig):
    """Contrast of visible patches with texts, weighed by the estimated integrity of what is visible.

    Attributes:
        mode: How the integrity of an image enters: scale multiplies its logits, weight its part in the mean, both is
            the mean of the two losses (MaCo's), none leaves it out. Only scale teaches the estimator; with weight
            alone it stays uniform.
        embed_dim: Width of the joint space.
        temperature: Initial temperature; MaCo's 0.03.
        max_logit_scale: The learnt logit scale, also times the integrity, stays at or below this.
    """

    key: ClassVar[str] = "integrity_clip"
    needs: ClassVar[frozenset[str]] = frozenset({"paired"})
    trains_bridge: ClassVar[bool] = True
    is_two_tower: ClassVar[bool] = True
    masks_at_random: ClassVar[bool] = True

    mode: Literal["none", "scale", "weight", "both"] = "both"
    embed_dim: int = 512
    temperature: float = 0.03
    max_logit_scale: float = 100.0

    def __post_init__(self):
        super().__post_init__()
        check_joint_space(
            self.key,
            embed_dim=self.embed_dim,
            temperature=self.temperature,
            max_logit_scale=self.max_logit_scale,
        )

    def build(self, parts: Parts) -> "IntegrityClip":
        """Build the projections, the logit scale and the estimator."""
        rows, columns = parts.image_encoder.grid
        return IntegrityClip(self, parts.image_encoder.embed_dim, parts.text_dim, rows * columns)


class IntegrityClip(Objective):
    """Align the mean visible patch of each masked paired image with its text's [CLS], over the pairs of all ranks.

    The semantic integrity of an image is softplus(phi . visible + b): phi has one importance for each patch position,
    shared by all images, and starts at 0, where every mask has ln 2.
    """

    loss = staticmethod(integrity_clip_loss)

    def __init__(self, config: IntegrityClipConfig, image_dim: int, text_dim: int, num_patches: int):
        super().__init__(config.weight)
        self.image_projection = projection(image_dim, config.embed_dim)
        self.text_projection = projection(text_dim, config.embed_dim)
        self.log_logit_scale = nn.Parameter(torch.tensor([math.log(1 / config.temperature)]))
        self.max_log_logit_scale = math.log(config.max_logit_scale)
        self.scales, self.weighs = config.mode in ("scale", "both"), config.mode in ("weight", "both")
        learns = self.scales  # DDP waits in every step for the gradient of every parameter
        self.phi = nn.Parameter(torch.zeros(num_patches), requires_grad=learns)
        self.bias = nn.Parameter(torch.zeros(1), requires_grad=learns)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return features [pairs, embed_dim], labels and integrities [pairs] of all ranks' pairs, and the scale."""
        views.offer_space(self.image_projection.weight, self.text_projection.weight)
        tokens = views.bridge(views.masked[: views.num_pairs])
        visible = 1 - views.mask.mask[: views.num_pairs]
        # A sum of products and no matrix product, which autocast would round to bfloat16.
        integrity = gather_with_gradient(F.softplus((visible * self.phi.float()).sum(dim=1) + self.bias.float()))
        views.show("integrity_phi", self.phi.clone())  # FSDP takes the whole parameter away after the forward pass
        uniform = torch.ones_like(integrity)
        return {
            "image_features": gather_with_gradient(self.embed_images(tokens)),
            "text_features": gather_with_gradient(unit(self.text_projection(views.text_tokens[:, 0]))),
            "labels": gather(views.labels),
            "logit_scale": self.log_logit_scale.float().exp().squeeze(),
            "row_scale": integrity if self.scales else uniform,
            "row_weight": integrity.detach() if self.weighs else uniform,
            "share_scaled": integrity.new_tensor(self.scales / (self.scales + self.weighs or 1)),
            "max_scale": integrity.new_tensor(math.exp(self.max_log_logit_scale)),
        }

    def embed_images(self, tokens: Tensor) -> Tensor:
        """Project the mean of the patches, class token excluded."""
        return unit(self.image_projection(tokens[:, 1:].mean(dim=1)))

    def embed_texts(self, tokens: Tensor, text_mask: Tensor) -> Tensor:
        """Project the [CLS] token."""
        return unit(self.text_projection(tokens[:, 0]))

    def diagnose(self, **outputs: Tensor) -> dict[str, Tensor]:
        """Return the logit scale, mean and spread of the integrity, retrieval and what `objectives.health` has."""
        labels, integrity = outputs["labels"], outputs["row_scale"] if self.scales else outputs["row_weight"]
        images = outputs["image_features"].float()
        similarity = images @ outputs["text_features"].float().T
        return {
            "logit_scale": outputs["logit_scale"],
            "integrity": integrity.mean(),
            "integrity_spread": integrity.std(correction=0),
            "retrieval_at_1": (labels[similarity.argmax(dim=1)] == labels).float().mean(),
            **nearest_of_texts(similarity, labels),
            "image_variance": variance_of_directions(images),
            "image_effective_rank": effective_rank(images),
        }
