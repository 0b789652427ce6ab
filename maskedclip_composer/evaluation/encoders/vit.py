"""A timm VisionTransformer in evaluation: its mean patch token, and MAE's head for fine-tuning."""

import copy
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from jaxtyping import Float
from timm.models import VisionTransformer
from torch import Tensor, nn

from maskedclip_composer.evaluation.encoders.drop_path import set_drop_path


@dataclass(kw_only=True)
class ViTEncoder:
    """Fulfils `Encoder` with a timm VisionTransformer, with or without class and register tokens."""

    module: nn.Module
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    description: str
    architecture: dict[str, Any] = field(default_factory=dict)
    dim: int = field(init=False)

    def __post_init__(self):
        self.dim = self.vit.embed_dim
        self.module.eval()

    @property
    def vit(self) -> VisionTransformer:
        """The network under its own type."""
        return cast(VisionTransformer, self.module)

    @torch.no_grad()
    def features(self, images: Float[Tensor, "images 3 size size"]) -> Float[Tensor, "images dim"]:
        """Return the mean patch token after the final norm; class and register tokens are left out of the mean.

        A model that was trained with its norm after the mean is taken with its norm there.
        """
        tokens = self.vit.forward_features(images)[:, self.vit.num_prefix_tokens :]
        return self.vit.fc_norm(tokens.mean(dim=1))

    def classifier(self, num_classes: int, drop_path: float) -> VisionTransformer:
        """Copy the network and give it MAE's head, see `build_classifier`."""
        return build_classifier(self.vit, num_classes, drop_path)


def build_classifier(vit: VisionTransformer, num_classes: int, drop_path: float) -> VisionTransformer:
    """Copy the encoder and give it MAE's fine-tuning head.

    Mean of the patch tokens without the class token, a new norm after the mean in place of the encoder's final norm,
    and a linear layer that starts near zero (truncated normal, 2e-5), so that all classes start equally likely.
    Everything learns, also the positions. Equal to timm's model with `global_pool="avg"` and the encoder's weights.

    Args:
        vit: The pre-trained encoder, left as it is.
        num_classes: Outputs of the head.
        drop_path: Stochastic depth of the last block, rising linearly from 0 in the first.
    """
    classifier = copy.deepcopy(vit)
    # A model that was pre-trained with its norm after the mean has none before it.
    norms: list[Any] = [norm for norm in (classifier.norm, classifier.fc_norm) if not isinstance(norm, nn.Identity)]
    classifier.norm = nn.Identity()
    classifier.fc_norm = type(norms[0])(vit.embed_dim, eps=norms[0].eps) if norms else nn.LayerNorm(vit.embed_dim, 1e-6)
    classifier.reset_classifier(num_classes, global_pool="avg")
    classifier.head = nn.Linear(vit.embed_dim, num_classes)
    nn.init.trunc_normal_(classifier.head.weight, std=2e-5)
    nn.init.zeros_(classifier.head.bias)
    set_drop_path(list(classifier.blocks), drop_path)
    return classifier.requires_grad_(True)
