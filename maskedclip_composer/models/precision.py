"""Where losses are computed in float32 whatever autocast does, and in float64 when a test asks for it."""

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Return `values` in float32, or as they are in float64."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
