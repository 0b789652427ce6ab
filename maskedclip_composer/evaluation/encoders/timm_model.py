"""Any other timm model in evaluation: a convolutional network, Swin, EVA and the like."""

from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(kw_only=True)
class TimmEncoder:
    """Fulfils `Encoder` with a timm model; its feature is what timm hands to the model's own last layer.

    Attributes:
        name: timm's name of the architecture.
        arguments: What else `build_headless` was called with.
        stochastic_depth: Whether the architecture has it; otherwise `drop_path` is without effect.
    """

    module: nn.Module
    name: str
    arguments: dict[str, Any]
    stochastic_depth: bool
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    description: str
    dim: int = field(init=False)

    @property
    def architecture(self) -> dict[str, Any]:
        """See `Encoder`."""
        known = {"name": self.name, "arguments": self.arguments, "stochastic_depth": self.stochastic_depth}
        return {"kind": "timm", **known, "image_size": self.image_size}

    def __post_init__(self):
        self.dim = int(self.module.head_hidden_size)  # pyright: ignore[reportArgumentType]
        self.module.eval()
        if not self.stochastic_depth:
            self.description += ", an architecture without stochastic depth"

    @torch.no_grad()
    def features(self, images: Float[Tensor, "images 3 size size"]) -> Float[Tensor, "images dim"]:
        """Return the pooled feature, without a projection."""
        network: Any = self.module
        return network.forward_head(network.forward_features(images), pre_logits=True)

    def classifier(self, num_classes: int, drop_path: float) -> nn.Module:
        """Build the network again with stochastic depth and a last layer that starts near zero.

        Norms and layers between pooling and the last layer are pre-trained ones, and kept.
        """
        depth = {"drop_path_rate": drop_path} if self.stochastic_depth else {}
        network: Any = build_headless(self.name, **self.arguments, **depth)
        network.load_state_dict(self.module.state_dict(), strict=True)
        network.reset_classifier(num_classes)
        for layer in _all_layers(network.get_classifier()):
            if num_classes in (getattr(layer, "out_features", 0), getattr(layer, "out_channels", 0)):
                nn.init.trunc_normal_(layer.weight, std=2e-5)
                nn.init.zeros_(layer.bias)
        if not hasattr(network, "no_weight_decay"):
            network.no_weight_decay = set  # timm's networks without such names lack the method
        return network.requires_grad_(True)


def build_headless(name: str, **arguments: Any) -> nn.Module:
    """Create a timm model, and take its classifier off."""
    return remove_head(timm.create_model(name, **arguments))


def remove_head(network: Any) -> nn.Module:
    """Take the classifier off; a class token or attention pooling gives way to the mean patch token.

    Distilled models and PiT know no other feature than their own tokens.
    """
    if getattr(network, "global_pool", None) in ("token", "map", "prr"):
        try:
            network.reset_classifier(0, global_pool="avg")
        except AssertionError:
            network.reset_classifier(0)
    else:
        network.reset_classifier(0)
    return network


def _all_layers(classifier: Any) -> list[Any]:
    """Return the layers of what may be one layer, a head of several, or several heads whose outputs are averaged."""
    heads = classifier if isinstance(classifier, tuple | list) else [classifier]
    return [layer for head in heads for layer in head.modules()]
