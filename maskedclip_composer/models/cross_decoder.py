"""Decoder that attends to a second sequence: to a text for pixels, to an image for words."""

from functools import partial

from torch import Tensor, nn

from maskedclip_composer.models.block import recomputed
from maskedclip_composer.models.transformer import initialise


class CrossDecoder(nn.Module):
    """Pre-norm blocks of self-attention, cross-attention to a context and an MLP, and a final norm.

    Args:
        dim: Width of tokens and context.
        depth: Number of blocks.
        num_heads: Attention heads.

    `recomputed` as in `TokenBlock`.
    """

    recomputed: bool = False

    def __init__(self, dim: int, depth: int, num_heads: int):
        super().__init__()
        # nn.TransformerDecoder would copy one block, so that all began with the same weights.
        self.blocks = nn.ModuleList(
            nn.TransformerDecoderLayer(
                dim, num_heads, 4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        initialise(self)
        for module in self.modules():
            if isinstance(module, nn.MultiheadAttention):
                nn.init.xavier_uniform_(module.in_proj_weight)
                nn.init.zeros_(module.in_proj_bias)

    def forward(
        self,
        tokens: Tensor,
        context: Tensor,
        *,
        token_mask: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tensor:
        """Decode.

        Args:
            tokens: [items, tokens, dim].
            context: [items, context, dim].
            token_mask: [items, tokens], 1 on tokens and 0 on padding; None without padding.
            context_mask: [items, context], likewise; at least one token of each item is 1.

        Returns:
            [items, tokens, dim]; what stands on padding is void.
        """
        padding = None if token_mask is None else token_mask == 0
        context_padding = None if context_mask is None else context_mask == 0
        for block in self.blocks:
            run = partial(block, tgt_key_padding_mask=padding, memory_key_padding_mask=context_padding)
            tokens = recomputed(run, tokens, context) if self.recomputed else run(tokens, context)
        return self.norm(tokens)
