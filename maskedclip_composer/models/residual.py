"""In which type tokens go from block to block."""

from typing import Literal

from timm.layers.norm import LayerNorm
from torch import nn

from maskedclip_composer.models.decoder import Decoder
from maskedclip_composer.models.vit import ImageEncoder


def use_residual(net: nn.Module, residual: Literal["float32", "autocast"]) -> None:
    """Set the type of the tokens between the blocks of encoder, bridge, teacher and decoders.

    Autocast gives products in 16 bits, but layer norms in float32, and a sum with tokens that began in float32 stays
    there: what is moved and kept between products is then twice as large as it need be. With `autocast` tokens begin in
    autocast's type and norms keep it; inside of a norm's kernel sums are in float32. Without autocast nothing changes.
    """
    for module in net.modules():
        if isinstance(module, LayerNorm):
            module._fast_norm = residual == "autocast"  # timm's switch for norms that give the type that they get
        if isinstance(module, ImageEncoder | Decoder):
            module.residual = residual
