"""Stochastic depth for a network that was built without it."""

from collections.abc import Sequence

import torch
from timm.layers.drop import DropPath
from torch import nn

# What timm and transformers call the places where a branch of a block may be dropped.
_PLACES = ("drop_path", "drop_path1", "drop_path2")


def set_drop_path(blocks: Sequence[nn.Module], rate: float) -> bool:
    """Let whole branches drop out in training, rising linearly from 0 in the first block to `rate` in the last.

    Returns:
        Whether the blocks have places for it; without them nothing changes.
    """
    found = False
    for block, own in zip(blocks, torch.linspace(0, rate, len(blocks)).tolist(), strict=True):
        for parent in list(block.modules()):
            for place in _PLACES:
                if isinstance(getattr(parent, place, None), nn.Module):
                    setattr(parent, place, DropPath(own) if own else nn.Identity())
                    found = True
    return found
