"""What of each tower's forward pass is kept for the backward pass."""

from torch import nn

from maskedclip_composer.compute import ActivationConfig
from maskedclip_composer.errors import UserError
from maskedclip_composer.models.block import TokenBlock
from maskedclip_composer.models.cross_decoder import CrossDecoder
from maskedclip_composer.models.pretrain import PretrainNet


def set_activation(net: PretrainNet, activation: ActivationConfig) -> None:
    """Let the blocks of each tower that is set to `full` be computed again in the backward pass.

    The result is the same bit for bit on one device: the same operations run on the same numbers.

    Raises:
        UserError: The text encoder has no checkpointing of its own.
    """
    for modules, value in ((net.branch, activation.image), (net.objectives, activation.decoders)):
        recompute(modules, value == "full")
    if net.text_encoder is not None and activation.text == "full":
        encoder = net.text_encoder.encoder
        if not encoder.supports_gradient_checkpointing:
            raise UserError(
                f"compute.activation.text=full: {type(encoder).__name__} of transformers cannot compute "
                "its activations again.\nUse compute.activation.text=none."
            )
        encoder.gradient_checkpointing_enable({"use_reentrant": False})


def recompute(modules: nn.Module, value: bool) -> None:
    """Set the switch of every block below `modules`."""
    for module in modules.modules():
        if isinstance(module, TokenBlock | CrossDecoder):
            module.recomputed = value
