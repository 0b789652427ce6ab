"""Masked feature distillation from the EMA teacher (L_mfd)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from maskedclip_composer.errors import UserError
from maskedclip_composer.losses.distillation import masked_feature_cosine
from maskedclip_composer.models.decoder import Decoder
from maskedclip_composer.models.precision import at_least_float32
from maskedclip_composer.models.views import Views
from maskedclip_composer.models.vit import ImageEncoder
from maskedclip_composer.objectives.base import Objective, ObjectiveConfig, Parts
from maskedclip_composer.objectives.health import effective_rank
from maskedclip_composer.objectives.mim import check_width


@dataclass(frozen=True, kw_only=True)
class MfdConfig(ObjectiveConfig):
    """L_mfd and its feature decoder D_F; `teacher` is the run's.

    Attributes:
        weight: Factor in the total loss, lambda of eq. 6.
        dim: Width of the feature decoder; null takes the encoder's.
        depth: Blocks of the feature decoder.
        num_heads: Attention heads of the feature decoder; null takes the encoder's.
    """

    key: ClassVar[str] = "mfd"
    has_decoder: ClassVar[bool] = True
    uses_unpaired: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = True
    masks_at_random: ClassVar[bool] = True

    weight: float = 0.01
    dim: int | None = None
    depth: int = 4
    num_heads: int | None = None

    def __post_init__(self):
        super().__post_init__()
        for key in ("dim", "depth", "num_heads"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise UserError(f"objectives.mfd.{key}={value} is not positive.\nUse 1 or more, or leave it out.")
        if self.dim is not None and self.num_heads is not None:
            check_width("mfd", self.dim, self.num_heads)

    def build(self, parts: Parts) -> "MaskedFeatureDistillation":
        """Build D_F."""
        return MaskedFeatureDistillation(self, parts.image_encoder)


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
        prediction = views.in_chunks(self.feature_decoder, views.masked, views.mask.ids_restore)
        return {"prediction": at_least_float32(prediction), "target": at_least_float32(views.teacher)}

    def diagnose(self, **outputs: Tensor) -> dict[str, Tensor]:
        """Return the variance of the teacher's features over an image's patches, mean of images and channels.

        Near 0 the teacher has collapsed and the objective is void; likewise with an effective rank near 1.
        """
        target = outputs["target"].float()
        return {
            "teacher_patch_variance": target.var(dim=1, correction=0).mean(),
            "teacher_effective_rank": effective_rank(target),
        }
