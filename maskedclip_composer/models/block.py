"""timm's transformer block, also for sequences of several lengths at once and for the last tokens alone."""

from collections.abc import Callable
from functools import partial

import torch
from timm.models.vision_transformer import Block
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from maskedclip_composer.models.attention import Packing, SelfAttention


class TokenBlock(Block):
    """timm's pre-norm block with the same weights and names.

    `recomputed` keeps the input alone for the backward pass and computes the block again there.
    """

    attn: SelfAttention
    recomputed: bool = False

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # no encoder here has a mask or is causal
        self, x: Tensor, packing: Packing | None = None, num_queries: int | None = None
    ) -> Tensor:
        """Compute a block.

        Args:
            x: [batch, tokens, dim], or with `packing` [rows, dim].
            packing: (sequences, tokens) of each group of sequences that stand in `x` one after the other; tokens attend
                within their sequence.
            num_queries: Return the last so many tokens alone; the others are still attended to.

        Returns:
            As `x`, or [batch, num_queries, dim].
        """
        attended = self.attn(self.norm1(x), packing, num_queries)
        x = x if num_queries is None else x[:, -num_queries:]
        x = x + self.drop_path1(self.ls1(attended))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


def run_block(block: TokenBlock, x: Tensor, packing: Packing | None = None, num_queries: int | None = None) -> Tensor:
    """Call `block`, through a checkpoint where its activations are to be computed again."""
    if block.recomputed:
        return recomputed(partial(block, packing=packing, num_queries=num_queries), x)
    return block(x, packing, num_queries)


def recomputed(encode: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
    """Return `encode(*arguments)`, of which only the arguments are kept for the backward pass, where it runs again."""
    if not torch.is_grad_enabled():
        return encode(*arguments)
    result = checkpoint(encode, *arguments, use_reentrant=False)
    assert isinstance(result, Tensor)
    return result
