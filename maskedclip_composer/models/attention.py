"""Self-attention with a choice of kernels behind timm's parameter names."""

import importlib.util
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from timm.layers.attention import Attention
from torch import Tensor, nn

from maskedclip_composer.errors import UserError

if TYPE_CHECKING:
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask

AttentionBackend = Literal["auto", "xformers", "xformers_varlen", "sdpa", "explicit"]

# (sequences, tokens) of each group of sequences that stand one after the other in [rows, dim].
Packing = tuple[tuple[int, int], ...]


class SelfAttention(Attention):
    """timm's attention with the same weights and names, computed by one of several kernels.

    `backend` is `sdpa` (torch's scaled_dot_product_attention), `xformers` (memory-efficient attention, CUDA only),
    `xformers_varlen` (the same, with one call for packed sequences of all lengths), `explicit` (the plain formula, for
    tests and comparisons) or `auto`: xformers for CUDA tensors where it is installed, sdpa elsewhere. All give the
    same numbers up to rounding.
    """

    backend: AttentionBackend = "auto"

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # no encoder here has a mask or is causal
        self, x: Tensor, packing: Packing | None = None, num_queries: int | None = None
    ) -> Tensor:
        """Attend within each sequence; arguments and result as `TokenBlock`'s."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))
        if packing is None:
            out = self._attend(qkv, num_queries)
        elif self.backend == "xformers_varlen":
            out = self._attend_by_mask(qkv, packing)
        else:
            # Few lengths, so dense attention over each serves, and every group is a view.
            groups = qkv.split([sequences * tokens for sequences, tokens in packing])
            attended = [
                self._attend(group.unflatten(0, shape)).flatten(0, 1)
                for group, shape in zip(groups, packing, strict=True)
            ]
            out = torch.cat(attended)
        return self.proj(self.norm(out))

    def _attend(self, qkv: Tensor, num_queries: int | None = None) -> Tensor:
        """Return [batch, queries, dim] of [batch, tokens, 3, heads, head_dim]."""
        if self._use_xformers(qkv):
            from xformers.ops import memory_efficient_attention

            query, key, value = self._normalised(*qkv.unbind(2))
            return memory_efficient_attention(_last(query, 1, num_queries), key, value).flatten(2)
        query, key, value = self._normalised(*qkv.permute(2, 0, 3, 1, 4).unbind(0))
        query = _last(query, 2, num_queries)
        if self.backend == "explicit":
            out = ((query * self.scale) @ key.transpose(-2, -1)).softmax(dim=-1) @ value
        else:
            out = F.scaled_dot_product_attention(query, key, value)
        return out.transpose(1, 2).flatten(2)

    def _attend_by_mask(self, qkv: Tensor, packing: Packing) -> Tensor:
        """Return [rows, dim] of [rows, 3, heads, head_dim]."""
        from xformers.ops import memory_efficient_attention

        query, key, value = self._normalised(*qkv[None].unbind(2))
        return memory_efficient_attention(query, key, value, block_diagonal(packing)).flatten(2)[0]

    def _normalised(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.q_norm(query).to(value.dtype), self.k_norm(key).to(value.dtype), value

    def _use_xformers(self, x: Tensor) -> bool:
        return self.backend.startswith("xformers") or (self.backend == "auto" and x.is_cuda and _xformers_installed)


@lru_cache(maxsize=16)  # the sequences' starts go to the device once, not in every block of every step
def block_diagonal(packing: Packing) -> "BlockDiagonalMask":
    """Return xformers' mask for packed sequences."""
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask

    return BlockDiagonalMask.from_seqlens([tokens for sequences, tokens in packing for _ in range(sequences)])


def _last(tokens: Tensor, dim: int, count: int | None) -> Tensor:
    return tokens if count is None else tokens.narrow(dim, tokens.shape[dim] - count, count)


def use_backend(module: nn.Module, backend: AttentionBackend) -> None:
    """Set the kernel of every `SelfAttention` below `module`.

    Raises:
        UserError: xformers was asked for and is not installed.
    """
    if backend.startswith("xformers") and not _xformers_installed:
        raise UserError(
            f"image_encoder.attention={backend}, but xformers is not installed.\nInstall it or choose auto or sdpa."
        )
    for child in module.modules():
        if isinstance(child, SelfAttention):
            child.backend = backend


_xformers_installed = importlib.util.find_spec("xformers") is not None
