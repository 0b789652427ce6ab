"""A name for a network's weights, so that two results can be known to be of the same one."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from maskedclip_composer.evaluation.encoders.base import Encoder


def fingerprint(encoder: Encoder) -> str:
    """Return the SHA-256 over name, type, shape and bytes of every weight and buffer, and what its input looks like.

    A convolutional network has the same weights for every image size.
    """
    return weights_sha256(encoder.module.state_dict(), f"{encoder.image_size} {encoder.mean} {encoder.std}")


def weights_sha256(weights: Mapping[str, Tensor], facts: str) -> str:
    """Return the SHA-256 over `facts`, and name, type, shape and bytes of every weight."""
    digest = hashlib.sha256(f"{facts}\n".encode())
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        # NumPy has no bfloat16, so the bytes are taken by torch.
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
