"""A vision model of transformers in evaluation: its mean patch token, and a head for fine-tuning."""

import copy
import json
import re
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskedclip_composer.evaluation.encoders.drop_path import set_drop_path

# Parts of the names of tokens and positions, which do not decay.
_NO_DECAY = ("position_embedding", "cls_token", "mask_token", "distillation_token", "register_tokens", "relative_pos")


@dataclass(kw_only=True)
class HuggingFaceEncoder:
    """Fulfils `Encoder` with a vision model, or with the vision tower of a model of images and text.

    Attributes:
        num_prefix_tokens: Class, distillation and register tokens, which come before the patches.
        options: What `module` is called with beside the images.
    """

    module: nn.Module
    num_prefix_tokens: int
    options: dict[str, Any]
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    description: str
    dim: int = field(init=False)

    @property
    def architecture(self) -> dict[str, Any]:
        """See `Encoder`."""
        config: Any = self.module.config
        known = {"config": json.loads(config.to_json_string(use_diff=False)), "options": self.options}
        known |= {"num_prefix_tokens": self.num_prefix_tokens, "image_size": self.image_size}
        return {"kind": "hugging_face", **known}

    def __post_init__(self):
        self.module.eval()
        self.dim = self.features(torch.zeros(1, 3, self.image_size, self.image_size)).shape[1]
        if not _places_for_drop_path(self.module):
            self.description += ", an architecture without stochastic depth"

    @torch.no_grad()
    def features(self, images: Float[Tensor, "images 3 size size"]) -> Float[Tensor, "images dim"]:
        """Return the mean patch token of the last hidden state; class and register tokens are left out of the mean.

        Convolutional networks give their pooled output. The towers of CLIP have no norm behind the last block for
        their patches, so none is applied.
        """
        return _mean(_encode(self.module, images, self.num_prefix_tokens, self.options))

    def classifier(self, num_classes: int, drop_path: float) -> "HuggingFaceClassifier":
        """Copy the network and give it a head."""
        return HuggingFaceClassifier(self, num_classes, drop_path)


class HuggingFaceClassifier(nn.Module):
    """A copy of the encoder with a linear layer that starts near zero; a norm follows the mean of patch tokens.

    Deviation from MAE's head on timm's ViTs: the norm after the mean comes in addition to the encoder's final norm,
    whose name differs from model to model. Parameters that have no part in the feature do not learn.
    """

    def __init__(self, encoder: HuggingFaceEncoder, num_classes: int, drop_path: float):
        super().__init__()
        self.num_classes = num_classes
        self.num_prefix_tokens, self.options = encoder.num_prefix_tokens, encoder.options
        self.backbone = copy.deepcopy(encoder.module).requires_grad_(True)
        images = next(self.backbone.parameters()).new_zeros(1, 3, encoder.image_size, encoder.image_size)
        with torch.enable_grad():
            tokens = self.forward_features(images)
            tokens.sum().backward()
        for parameter in self.backbone.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None
        set_drop_path(_places_for_drop_path(self.backbone), drop_path)
        self.norm = nn.LayerNorm(encoder.dim, eps=1e-6) if tokens.ndim == 3 else nn.Identity()
        self.head = nn.Linear(encoder.dim, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=2e-5)
        nn.init.zeros_(self.head.bias)

    def forward_features(self, images: Float[Tensor, "images 3 size size"]) -> Tensor:
        """Return patch tokens [images, patches, dim], or a convolutional network's pooled output [images, dim]."""
        return _encode(self.backbone, images, self.num_prefix_tokens, self.options)

    def forward_head(self, features: Tensor) -> Float[Tensor, "images classes"]:
        """Average the patches, normalise and classify."""
        return self.head(self.norm(_mean(features)))

    def forward(self, images: Float[Tensor, "images 3 size size"]) -> Float[Tensor, "images classes"]:
        """Return logits."""
        return self.forward_head(self.forward_features(images))

    def no_weight_decay(self) -> set[str]:
        """Return the names of tokens and positions."""
        return {name for name, _ in self.named_parameters() if any(part in name for part in _NO_DECAY)}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Describe the layers: what comes before the blocks, the blocks (or stages), and what comes after them.

        As with timm's ViTs, the encoder's final norm goes with the last block.
        """
        blocks = f"backbone.{_name_of_blocks(self.backbone)}"
        before: list[str] = []
        after: list[str] = []
        side = before
        for name, _ in self.named_parameters():
            if name.startswith(f"{blocks}."):
                side = after
            elif name.startswith("backbone."):
                side.append(re.escape(name))
        matcher: dict[str, Any] = {
            "stem": rf"^(?:{'|'.join(before)})$",
            "blocks": [(rf"^{re.escape(blocks)}\.(\d+)\.", None)],
        }
        if after:
            matcher["blocks"].append((rf"^(?:{'|'.join(after)})$", (99999,)))  # timm's mark for "with the one before"
        return matcher


def _encode(module: nn.Module, images: Tensor, num_prefix_tokens: int, options: dict[str, Any]) -> Tensor:
    output = module(pixel_values=images, **options)
    hidden = output.last_hidden_state
    if hidden.ndim == 3:
        return hidden[:, num_prefix_tokens:]
    pooled = getattr(output, "pooler_output", None)  # ConvNeXt's has a norm after the mean
    return hidden.mean(dim=(2, 3)) if pooled is None else pooled.flatten(1)


def _mean(tokens: Tensor) -> Tensor:
    return tokens.mean(dim=1) if tokens.ndim == 3 else tokens


def _places_for_drop_path(module: nn.Module) -> list[nn.Module]:
    """Return the blocks that transformers built with a place for stochastic depth, in order."""
    return [block for block in module.modules() if isinstance(getattr(block, "drop_path", None), nn.Module)]


def _name_of_blocks(module: nn.Module) -> str:
    """Return the name of the list of blocks or stages: the outermost list, the longest of several."""
    lists = [
        (isinstance(child, nn.Sequential), name.count("."), -len(child), name)  # networks of timm have a Sequential
        for name, child in module.named_modules()
        if isinstance(child, nn.ModuleList | nn.Sequential) and len(child) > 0
    ]
    return min(lists)[-1]
