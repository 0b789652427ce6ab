"""Masked feature distillation from the EMA teacher (L_mfd)."""

from dataclasses import dataclass

from torch import Tensor

from maskedclip_composer.errors import UserError
from maskedclip_composer.losses.distillation import masked_feature_cosine
from maskedclip_composer.models.decoder import Decoder
from maskedclip_composer.models.views import Views
from maskedclip_composer.models.vit import ImageEncoder
from maskedclip_composer.objectives.base import Objective, check_weight
from maskedclip_composer.objectives.mim import check_width


@dataclass(frozen=True, kw_only=True)
class MfdConfig:
    """L_mfd, its feature decoder D_F and the teacher that it needs.

    Attributes:
        weight: Factor in the total loss, lambda of eq. 6.
        momentum: The teacher keeps this share of itself in each step.
        dim: Width of the feature decoder; null takes the encoder's.
        depth: Blocks of the feature decoder.
        num_heads: Attention heads of the feature decoder; null takes the encoder's.
    """

    weight: float = 0.01
    momentum: float = 0.999
    dim: int | None = None
    depth: int = 4
    num_heads: int | None = None

    def __post_init__(self):
        check_weight("mfd", self.weight)
        if not 0 <= self.momentum < 1:
            raise UserError(f"objectives.mfd.momentum={self.momentum} is outside [0, 1).\nThe paper's value is 0.999.")
        for key in ("dim", "depth", "num_heads"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise UserError(f"objectives.mfd.{key}={value} is not positive.\nUse 1 or more, or leave it out.")
        if self.dim is not None and self.num_heads is not None:
            check_width("mfd", self.dim, self.num_heads)


class MaskedFeatureDistillation(Objective):
    """Predict the teacher's patch features of whole images from the visible patches of all images (eq. 5)."""

    loss = staticmethod(masked_feature_cosine)

    def __init__(self, config: MfdConfig, encoder: ImageEncoder):
        super().__init__(config.weight)
        dim, num_heads = config.dim or encoder.embed_dim, config.num_heads or encoder.num_heads
        check_width("mfd", dim, num_heads)
        self.feature_decoder = Decoder(
            embed_dim=encoder.embed_dim,
            grid=encoder.grid,
            dim=dim,
            depth=config.depth,
            num_heads=num_heads,
            out_dim=encoder.embed_dim,
        )

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return prediction and target, [images, patches, embed_dim] each; the target carries no gradient."""
        prediction = self.feature_decoder(views.masked, views.mask.ids_restore)
        return {"prediction": prediction.float(), "target": views.teacher.float()}
