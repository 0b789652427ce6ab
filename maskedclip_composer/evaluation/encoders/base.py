"""What the evaluation wants of an image encoder, whoever trained it."""

from typing import Any, Protocol

from jaxtyping import Float
from torch import Tensor, nn


class Classifier(Protocol):
    """An encoder with a linear head, all of it trainable. It is an nn.Module too."""

    num_classes: int

    def forward_features(self, images: Float[Tensor, "images 3 size size"]) -> Tensor:
        """Encode normalised images; may run under autocast."""
        ...

    def forward_head(self, features: Tensor) -> Float[Tensor, "images classes"]:
        """Pool, normalise and classify; runs in float32."""
        ...

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that do not decay, beside scales and biases."""
        ...

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return timm's description of layers, which layer decay goes by."""
        ...


class Encoder(Protocol):
    """A pre-trained image encoder in evaluation.

    Attributes:
        image_size: Side of the square input in pixels.
        mean: Per channel, in units of 0 to 1; images are normalised with it before they enter.
        std: Likewise.
        dim: Width of the features.
        description: Where the weights come from, for reports.
        module: The network whose weights are evaluated, without a head.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dim: int
    description: str
    module: nn.Module

    @property
    def architecture(self) -> dict[str, Any]:
        """What `architecture.py` builds it again from, without weights: plain values, its `kind` among them."""
        ...

    def features(self, images: Float[Tensor, "images 3 size size"]) -> Float[Tensor, "images dim"]:
        """Return the frozen encoder's feature of each normalised image: for a ViT the mean patch token."""
        ...

    def classifier(self, num_classes: int, drop_path: float) -> nn.Module:
        """Copy the network and give it a head (`Classifier`); `drop_path` is the stochastic depth of the last block."""
        ...
