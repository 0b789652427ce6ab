"""What objectives that align images with texts in one space have in common."""

from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor, nn

from maskedclip_composer.errors import UserError
from maskedclip_composer.models.precision import at_least_float32


@runtime_checkable
class TwoTower(Protocol):
    """An objective with a joint space: its logit scale is clamped, and its space serves zero-shot classification."""

    log_logit_scale: nn.Parameter
    max_log_logit_scale: float

    def embed_images(self, tokens: Tensor) -> Tensor:
        """Return L2-normalised features [images, embed_dim] of bridge tokens [images, 1 + patches, dim]."""
        ...

    def embed_texts(self, tokens: Tensor, text_mask: Tensor) -> Tensor:
        """Return L2-normalised features [texts, embed_dim] of E_T's tokens [texts, tokens, dim] and their mask."""
        ...


def projection(in_features: int, embed_dim: int) -> nn.Linear:
    """Make a projection head as CLIP does: without bias, normal weights whose products keep the variance."""
    head = nn.Linear(in_features, embed_dim, bias=False)
    nn.init.normal_(head.weight, std=in_features**-0.5)
    return head


def unit(features: Tensor) -> Tensor:
    """Return the rows of `features` at length 1, in float32 or better."""
    return F.normalize(at_least_float32(features), dim=-1)


def check_joint_space(key: str, *, embed_dim: int, temperature: float, max_logit_scale: float) -> None:
    """Refuse settings of objective `key` that no joint space can have."""
    if embed_dim < 1:
        raise UserError(f"objectives.{key}.embed_dim={embed_dim} is not positive.\nThe default is 512.")
    if not max_logit_scale > 1:
        raise UserError(f"objectives.{key}.max_logit_scale={max_logit_scale} is not above 1.\nCLIP's is 100.")
    if not 1 / max_logit_scale <= temperature <= 1:
        raise UserError(
            f"objectives.{key}.temperature={temperature} is outside [{1 / max_logit_scale:.3g}, 1]: "
            "its inverse is the initial logit scale.\nThe default is 0.07."
        )
