"""A name for an encoder, so that two results can be known to be of the same one."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from maskedclip_composer.evaluation.encoders.base import Encoder


def fingerprint(encoder: Encoder) -> str:
    """Return the SHA-256 over name, type, shape and bytes of every weight and buffer, and what its input looks like.

    A convolutional network has the same weights for every image size.
    """
    return hash_weights(encoder.module.state_dict(), f"{encoder.image_size} {encoder.mean} {encoder.std}\n")


def hash_weights(weights: Mapping[str, Tensor], beginning: str = "") -> str:
    """Return the SHA-256 over `beginning` and name, type, shape and bytes of every weight."""
    digest = hashlib.sha256(beginning.encode())
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        # NumPy has no bfloat16, so the bytes are taken by torch.
        content: Any = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(content)
    return digest.hexdigest()
