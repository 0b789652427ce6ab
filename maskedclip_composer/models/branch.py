"""Bridge and image branch: B of MaskedCLIP after E_I, the unit that the teacher copies."""

from dataclasses import dataclass

from torch import Tensor, nn

from maskedclip_composer.errors import UserError
from maskedclip_composer.models.attention import AttentionBackend, use_backend
from maskedclip_composer.models.transformer import Transformer
from maskedclip_composer.models.vit import ImageEncoder


@dataclass(frozen=True, kw_only=True)
class BridgeConfig:
    """The bridge B between the masked space (E_I) and the CLIP space (B after E_I).

    Attributes:
        depth: Transformer blocks of the encoder's width; 0 leaves the bridge out (MAE+CLIP).
        num_heads: Attention heads; null takes the encoder's.
    """

    depth: int = 4
    num_heads: int | None = None

    def __post_init__(self):
        if self.depth < 0:
            raise UserError(f"bridge.depth={self.depth} is negative.\nUse 0 for no bridge; the paper's value is 4.")
        if self.num_heads is not None and self.num_heads < 1:
            raise UserError(f"bridge.num_heads={self.num_heads} is not positive.\nLeave it out for the encoder's.")


class ImageBranch(nn.Module):
    """E_I followed by B. The teacher of MaskedCLIP is a momentum copy of it."""

    def __init__(self, image_encoder: ImageEncoder, bridge: BridgeConfig, attention: AttentionBackend):
        super().__init__()
        heads = bridge.num_heads or image_encoder.num_heads
        if image_encoder.embed_dim % heads:
            raise UserError(
                f"bridge.num_heads={heads} does not divide the encoder's width {image_encoder.embed_dim}.\n"
                "Leave it out to use the encoder's number of heads."
            )
        self.image_encoder = image_encoder
        self.bridge = Transformer(image_encoder.embed_dim, bridge.depth, heads)
        use_backend(self.bridge, attention)

    def forward(self, images: Tensor) -> Tensor:
        """Return bridge tokens [images, 1 + patches, embed_dim] of whole, normalised images."""
        return self.bridge(self.image_encoder(images))
