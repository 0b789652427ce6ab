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
        UserError: A tower has no blocks, or the text encoder no checkpointing of its own.
    """
    for key, modules, value in (
        ("image", net.branch, activation.image),
        ("decoders", net.objectives, activation.decoders),
    ):
        kinds = (TokenBlock, CrossDecoder) if value == "full" else (TokenBlock,)  # the latter alone are compiled
        found = [module for module in modules.modules() if isinstance(module, kinds)]
        if value != "none" and not found:
            raise UserError(
                f"compute.activation.{key}={value}: this recipe has nothing there that could be computed so.\n"
                f"Remove compute.activation.{key}."
            )
        recompute(modules, value == "full")
    if activation.text == "full":
        if net.text_encoder is None:
            raise UserError(
                "compute.activation.text=full, but no objective reads texts.\nRemove compute.activation.text."
            )
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
