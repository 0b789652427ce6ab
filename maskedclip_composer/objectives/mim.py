"""Masked image modelling: reconstruct the removed patches (L_mim)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from maskedclip_composer.errors import UserError
from maskedclip_composer.losses.reconstruction import masked_patch_mse
from maskedclip_composer.models.decoder import Decoder
from maskedclip_composer.models.masking import gather_tokens
from maskedclip_composer.models.precision import at_least_float32
from maskedclip_composer.models.views import Views
from maskedclip_composer.models.vit import ImageEncoder
from maskedclip_composer.objectives.base import Objective, ObjectiveConfig, Parts

TargetNorm = Literal["none", "patch"]


@dataclass(frozen=True, kw_only=True)
class MimConfig(ObjectiveConfig):
    """L_mim and its pixel decoder D_I, a ViT-small.

    Attributes:
        dim: Width of the decoder.
        depth: Blocks of the decoder.
        num_heads: Attention heads of the decoder.
        target_norm: none reconstructs ImageNet-normalised pixels (eq. 1), patch those pixels normalised by each
            patch's mean and variance (MAE's norm_pix_loss).
    """

    key: ClassVar[str] = "mim"
    has_decoder: ClassVar[bool] = True
    uses_unpaired: ClassVar[bool] = True
    masks_at_random: ClassVar[bool] = True

    dim: int = 384
    depth: int = 12
    num_heads: int = 6
    target_norm: TargetNorm = "none"

    def __post_init__(self):
        super().__post_init__()
        if self.depth < 1:
            raise UserError(f"objectives.mim.depth={self.depth} is not positive.\nUse 1 or more.")
        check_width("mim", self.dim, self.num_heads)

    def build(self, parts: Parts) -> "MaskedImageModelling":
        """Build D_I."""
        return MaskedImageModelling(self, parts.image_encoder, masked_only=parts.compute.masked_only)


class MaskedImageModelling(Objective):
    """Reconstruct pixels of all images, paired and unpaired, from their visible patches (eq. 1)."""

    loss = staticmethod(masked_patch_mse)

    def __init__(self, config: MimConfig, encoder: ImageEncoder, *, masked_only: bool = True):
        super().__init__(config.weight)
        self.masked_only = masked_only
        self.patch_size = encoder.patch_size
        self.target_norm: TargetNorm = config.target_norm
        self.pixel_decoder = Decoder(
            embed_dim=encoder.embed_dim,
            grid=encoder.grid,
            dim=config.dim,
            depth=config.depth,
            num_heads=config.num_heads,
            out_dim=encoder.patch_size**2 * 3,
        )

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return prediction and target [images, patches, values] and mask [images, patches].

        With `masked_only` the patches are the removed ones, in the order of `views.mask.ids_removed`.
        """
        target = pixel_targets(views.images, self.patch_size, self.target_norm)
        mask = views.mask
        if not self.masked_only:
            prediction = views.in_chunks(self.pixel_decoder, views.masked, mask.ids_restore)
            return {"prediction": at_least_float32(prediction), "target": target, "mask": mask.mask}
        views.show("mim_removed", mask.ids_removed)
        prediction = views.in_chunks(self.pixel_decoder.predict_removed, views.masked, mask.ids_keep, mask.ids_removed)
        target = gather_tokens(target, mask.ids_removed)
        return {"prediction": at_least_float32(prediction), "target": target, "mask": torch.ones_like(target[:, :, 0])}


def pixel_targets(images: Tensor, patch_size: int, target_norm: TargetNorm) -> Tensor:
    """Return what a pixel decoder learns, [images, patches, values]: patches as they are, or each normalised."""
    target = patchify(images, patch_size)
    if target_norm == "none":
        return target
    variance = target.var(dim=-1, keepdim=True)
    return (target - target.mean(dim=-1, keepdim=True)) / (variance + 1e-6).sqrt()


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut [images, 3, height, width] into [images, patches, values], values ordered row, column, channel."""
    count, channels, height, width = images.shape
    grid = images.reshape(count, channels, height // patch_size, patch_size, width // patch_size, patch_size)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(count, -1, patch_size**2 * channels)


def check_width(objective: str, dim: int, num_heads: int) -> None:
    """Refuse a decoder width that its heads or its sine-cosine positions cannot have."""
    if dim < 1 or num_heads < 1 or dim % num_heads or dim % 4:
        raise UserError(
            f"objectives.{objective}.dim={dim} must be divisible by num_heads={num_heads} and by 4.\n"
            f"Use for example dim={max(1, num_heads) * 64}."
        )
