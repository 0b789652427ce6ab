"""Decoder of masked tokens: D_I predicts pixels with it, D_F the teacher's features."""

from typing import Literal

import torch
from torch import Tensor, nn

from maskedclip_composer.models.masking import gather_tokens
from maskedclip_composer.models.precision import in_autocast_dtype
from maskedclip_composer.models.transformer import Transformer, initialise, sincos_positions


class Decoder(nn.Module):
    """MAE's decoder: embed the visible tokens, put mask tokens in the gaps, attend, predict every patch.

    The class token takes part as context and is dropped from the output. Mask token and positions are the decoder's
    own (T_I is not T_F).

    Args:
        embed_dim: Width of the encoder's tokens.
        grid: Rows and columns of patches.
        dim: Width of the decoder.
        depth: Number of blocks.
        num_heads: Attention heads.
        out_dim: Values predicted for each patch.
    """

    positions: Tensor
    residual: Literal["float32", "autocast"] = "float32"  # see `models/residual.py`

    def __init__(self, *, embed_dim: int, grid: tuple[int, int], dim: int, depth: int, num_heads: int, out_dim: int):
        super().__init__()
        self.embed = nn.Linear(embed_dim, dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim))
        self.register_buffer("positions", sincos_positions(grid, dim), persistent=False)
        self.transformer = Transformer(dim, depth, num_heads)
        self.predict = nn.Linear(dim, out_dim)
        initialise(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens: Tensor, ids_restore: Tensor) -> Tensor:
        """Predict all patches from the visible ones.

        Args:
            tokens: [images, 1 + kept, embed_dim], class token first.
            ids_restore: [images, patches] position of each patch in [visible, removed].

        Returns:
            [images, patches, out_dim] in the image's order.
        """
        tokens = self.embed(tokens)
        images, patches = ids_restore.shape
        gaps = self.mask_token.to(tokens.dtype).expand(images, patches + 1 - tokens.shape[1], -1)
        restored = gather_tokens(torch.cat([tokens[:, 1:], gaps], dim=1), ids_restore)
        tokens = torch.cat([tokens[:, :1], restored], dim=1) + self.positions
        return self.predict(self.transformer(self._begin(tokens))[:, 1:])

    def predict_removed(self, tokens: Tensor, ids_keep: Tensor, ids_removed: Tensor) -> Tensor:
        """Predict the removed patches alone: what `forward` gives at `ids_removed`.

        Attention does not depend on the order of tokens, so visible tokens stay where they are and the few positions
        are sorted instead; the last block and the prediction leave out what would be dropped.

        Args:
            tokens: [images, 1 + kept, embed_dim], class token first.
            ids_keep: [images, kept] positions of the patches of `tokens`.
            ids_removed: [images, removed] positions of the others.

        Returns:
            [images, removed, out_dim], in the order of `ids_removed`.
        """
        positions = self.positions.expand(len(tokens), -1, -1)
        of_visible = torch.cat([positions[:, :1], gather_tokens(positions[:, 1:], ids_keep)], dim=1)
        gaps = self.mask_token + gather_tokens(positions[:, 1:], ids_removed)
        tokens = torch.cat([self.embed(tokens) + of_visible, gaps], dim=1)
        return self.predict(self.transformer(self._begin(tokens), num_queries=ids_removed.shape[1]))

    def _begin(self, tokens: Tensor) -> Tensor:
        return in_autocast_dtype(tokens) if self.residual == "autocast" else tokens
