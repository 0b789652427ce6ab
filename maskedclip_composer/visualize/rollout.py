"""Attention rollout: how much each token of the input weighs in a token of the last layer, by attention alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskedclip_composer.models.attention import SelfAttention


def rollout(
    attentions: Sequence[Float[Tensor, "images tokens tokens"]], start: Float[Tensor, " tokens"]
) -> Float[Tensor, "images tokens"]:
    """Follow attention back from the last layer to the input.

    Abnar & Zuidema 2020 (arXiv 2005.00928), section 3: a layer is half its attention, averaged over heads, and half the
    identity, for the residual connection; layers are multiplied. Values, the MLP and the sizes of features are left
    out, so that this tells where information may come from, not what it does.

    Args:
        attentions: Of each layer, the first first; rows are queries and sum to 1.
        start: Weights of the last layer's tokens, which sum to 1: all on the class token, say, or spread over patches.

    Returns:
        Weights of the input's tokens; rows sum to 1.
    """
    weights = start.expand(len(attentions[0]), 1, -1)
    for attention in reversed(attentions):
        weights = 0.5 * weights @ attention + 0.5 * weights
    return weights[:, 0]


def attention_weights(attention: SelfAttention, x: Float[Tensor, "images tokens dim"]) -> Tensor:
    """Return [images, heads, tokens, tokens] of what a layer's fast kernels never write down; rows sum to 1."""
    qkv = attention.qkv(x).unflatten(-1, (3, attention.num_heads, attention.head_dim))
    query, key, _ = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    scores = (attention.q_norm(query) * attention.scale) @ attention.k_norm(key).transpose(-2, -1)
    return scores.softmax(dim=-1)


@contextmanager
def recorded(*stacks: nn.Module) -> Iterator[list[list[Tensor]]]:
    """Keep the attention of every layer of `stacks` in a forward pass, [images, tokens, tokens], mean over heads.

    Yields:
        One list for each stack, filled layer by layer while the context lasts.
    """
    kept: list[list[Tensor]] = [[] for _ in stacks]

    def keep(layers: list[Tensor], attention: SelfAttention, arguments: tuple[Any, ...]) -> None:
        layers.append(attention_weights(attention, arguments[0]).mean(dim=1))

    handles = [
        layer.register_forward_pre_hook(partial(keep, layers))
        for layers, stack in zip(kept, stacks, strict=True)
        for layer in stack.modules()
        if isinstance(layer, SelfAttention)
    ]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def start_at(tokens: int, *, class_token: bool) -> Float[Tensor, " tokens"]:
    """Return where `rollout` begins: the class token, or the mean patch, which the features of both spaces are."""
    start = torch.zeros(tokens)
    if class_token:
        start[0] = 1
    else:
        start[1:] = 1 / (tokens - 1)
    return start
