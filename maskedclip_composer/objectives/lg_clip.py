"""Label-guided CLIP on the paired images (L_lg_clip)."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskedclip_composer.distributed import gather, gather_with_gradient
from maskedclip_composer.errors import UserError
from maskedclip_composer.losses.contrastive import label_guided_clip_loss
from maskedclip_composer.models.views import Views
from maskedclip_composer.objectives.base import Objective, check_weight


@dataclass(frozen=True, kw_only=True)
class LgClipConfig:
    """L_lg_clip and its projection heads W_I and W_T.

    Attributes:
        weight: Factor in the total loss, lambda of eq. 6.
        embed_dim: Width of the joint space.
        temperature: Initial temperature; its inverse is the initial logit scale.
        max_logit_scale: The learnt logit scale stays between 1 and this.
    """

    weight: float = 0.01
    embed_dim: int = 512
    temperature: float = 0.07
    max_logit_scale: float = 100.0

    def __post_init__(self):
        check_weight("lg_clip", self.weight)
        if self.embed_dim < 1:
            raise UserError(f"objectives.lg_clip.embed_dim={self.embed_dim} is not positive.\nThe default is 512.")
        if not self.max_logit_scale > 1:
            raise UserError(
                f"objectives.lg_clip.max_logit_scale={self.max_logit_scale} is not above 1.\nCLIP's is 100."
            )
        if not 1 / self.max_logit_scale <= self.temperature <= 1:
            raise UserError(
                f"objectives.lg_clip.temperature={self.temperature} is outside [{1 / self.max_logit_scale:.3g}, 1]: "
                "its inverse is the initial logit scale.\nThe default is 0.07."
            )


class LabelGuidedClip(Objective):
    """Align mean bridge features of paired images with mean text features, over the pairs of all ranks (eq. 2-4)."""

    loss = staticmethod(label_guided_clip_loss)

    def __init__(self, config: LgClipConfig, image_dim: int, text_dim: int):
        super().__init__(config.weight)
        self.image_projection = nn.Linear(image_dim, config.embed_dim, bias=False)
        self.text_projection = nn.Linear(text_dim, config.embed_dim, bias=False)
        for projection in (self.image_projection, self.text_projection):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)
        # One element rather than none: FSDP2 cannot shard a scalar.
        self.log_logit_scale = nn.Parameter(torch.tensor([math.log(1 / config.temperature)]))
        self.max_log_logit_scale = math.log(config.max_logit_scale)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return L2-normalised features [pairs, embed_dim], labels [pairs] of all ranks' pairs, and the logit scale."""
        # The class token is context only: no objective but this one would train it.
        image = self.image_projection(views.image[:, 1:].mean(dim=1))
        text = self.text_projection(views.text)
        return {
            "image_features": gather_with_gradient(F.normalize(image.float(), dim=-1)),
            "text_features": gather_with_gradient(F.normalize(text.float(), dim=-1)),
            "labels": gather(views.labels),
            "logit_scale": self.log_logit_scale.float().exp().squeeze(),
        }
