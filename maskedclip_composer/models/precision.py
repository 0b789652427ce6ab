"""Where losses are computed in float32 whatever autocast does, and where tokens are not."""

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Return `values` in float32, or as they are in float64, which tests ask for."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def in_autocast_dtype(tokens: Tensor) -> Tensor:
    """Return `tokens` in the type that autocast computes products in, or as they are without autocast."""
    device = tokens.device.type
    return tokens.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else tokens
