"""Self-attention with a choice of kernels behind timm's parameter names."""

import importlib.util
from typing import Literal

import torch.nn.functional as F
from timm.layers.attention import Attention
from torch import Tensor, nn

from maskedclip_composer.errors import UserError

AttentionBackend = Literal["auto", "xformers", "sdpa", "explicit"]


class SelfAttention(Attention):
    """timm's attention with the same weights and names, computed by one of three kernels.

    `backend` is `sdpa` (torch's scaled_dot_product_attention), `xformers` (memory-efficient attention, CUDA only),
    `explicit` (the plain formula, for tests and comparisons) or `auto`: xformers for CUDA tensors where it is
    installed, sdpa elsewhere. All give the same numbers up to rounding.
    """

    backend: AttentionBackend = "auto"

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Attend over `x` [batch, tokens, dim]; masks are not supported because no encoder here uses them."""
        if attn_mask is not None or is_causal:
            raise NotImplementedError("SelfAttention attends to all tokens")
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim)
        if self._use_xformers(x):
            from xformers.ops import memory_efficient_attention

            query, key, value = qkv.unbind(2)
            query, key = self.q_norm(query).to(value.dtype), self.k_norm(key).to(value.dtype)
            out = memory_efficient_attention(query, key, value)
        else:
            query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            query, key = self.q_norm(query).to(value.dtype), self.k_norm(key).to(value.dtype)
            if self.backend == "explicit":
                out = ((query * self.scale) @ key.transpose(-2, -1)).softmax(dim=-1) @ value
            else:
                out = F.scaled_dot_product_attention(query, key, value)
            out = out.transpose(1, 2)
        return self.proj(self.norm(out.reshape(batch, tokens, self.attn_dim)))

    def _use_xformers(self, x: Tensor) -> bool:
        return self.backend == "xformers" or (self.backend == "auto" and x.is_cuda and _xformers_installed)


def use_backend(module: nn.Module, backend: AttentionBackend) -> None:
    """Set the kernel of every `SelfAttention` below `module`.

    Raises:
        UserError: xformers was asked for and is not installed.
    """
    if backend == "xformers" and not _xformers_installed:
        raise UserError(
            "image_encoder.attention=xformers, but xformers is not installed.\nInstall it or choose auto or sdpa."
        )
    for child in module.modules():
        if isinstance(child, SelfAttention):
            child.backend = backend


_xformers_installed = importlib.util.find_spec("xformers") is not None
