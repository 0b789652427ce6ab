"""Pre-norm transformer stack, its initialisation and its positions: what encoder, bridge and decoders share."""

import torch
from timm.layers.norm import LayerNorm  # epsilon 1e-6, as in MAE and in timm's ViTs; torch's own default is 1e-5
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from torch import Tensor, nn

from maskedclip_composer.models.attention import SelfAttention
from maskedclip_composer.models.block import TokenBlock, run_block


class Transformer(nn.Module):
    """`depth` pre-norm blocks and a final layer norm over [batch, tokens, dim].

    With `depth=0` it is the identity, without a norm: MAE+CLIP is MaskedCLIP with such a bridge.
    """

    def __init__(self, dim: int, depth: int, num_heads: int):
        super().__init__()
        self.blocks = nn.ModuleList(
            TokenBlock(dim, num_heads, qkv_bias=True, norm_layer=LayerNorm, attn_layer=SelfAttention)
            for _ in range(depth)
        )
        self.norm = LayerNorm(dim) if depth else nn.Identity()
        initialise(self)

    def forward(self, tokens: Tensor, num_queries: int | None = None) -> Tensor:
        """Return tokens of the same shape, or of the last `num_queries` alone what depends on all."""
        for number, block in enumerate(self.blocks, start=1):
            assert isinstance(block, TokenBlock)
            tokens = run_block(block, tokens, num_queries=num_queries if number == len(self.blocks) else None)
        return self.norm(tokens)


def initialise(module: nn.Module) -> None:
    """Give linears Xavier-uniform weights and zero biases, layer norms ones and zeros, as MAE does."""
    for child in module.modules():
        if isinstance(child, nn.Linear):
            nn.init.xavier_uniform_(child.weight)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.LayerNorm):
            nn.init.ones_(child.weight)
            nn.init.zeros_(child.bias)


def sincos_positions(grid: tuple[int, int], dim: int) -> Tensor:
    """Return fixed 2-D sine-cosine positions [1, 1 + patches, dim]; the class token's is zero.

    Raises:
        ValueError: `dim` is not divisible by 4.
    """
    if dim % 4:
        raise ValueError(f"sine-cosine positions need a width divisible by 4, not {dim}")
    patches = build_sincos2d_pos_embed(list(grid), dim)
    return torch.cat([torch.zeros(1, dim), patches])[None]
