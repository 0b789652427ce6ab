"""Files in the layouts of facebook's MAE and DINOv2, which RETFound shares: timm's names, but for a few."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timm.layers.mlp import SwiGLUPacked
from timm.models import VisionTransformer
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.encoders.vit import ViTEncoder
from maskedclip_composer.evaluation.encoders.weights import read_weights, without
from maskedclip_composer.export.exact import load_exactly
from maskedclip_composer.models.vit import IMAGE_MEAN, IMAGE_STD

HEAD_DIM = 64  # of all their models but MAE's ViT-H
HUGE_WIDTH, HUGE_HEADS = 1280, 16
# MAE's decoder is of no use after pre-training; a fine-tuned file brings its task's head.
MAE_DROPPED = ("decoder_", "mask_token", "head.")
# DINOv2's training files also hold the heads of its two losses.
DINOV2_DROPPED = ("dino_head.", "ibot_head.", "mask_token")


def load_mae(file: str, image_size: int | None = None) -> ViTEncoder:
    """Load a file of facebook's MAE or of RETFound: weights of a ViT, under the entry `model` or bare.

    Width, depth, patch and image size follow from the weights. A file that was fine-tuned on the mean patch token has
    its norm after the mean (`fc_norm`) and none before it; its features are taken there.

    Args:
        file: What follows `mae:` or `retfound:`.
        image_size: Side of the input in pixels; another one than the file's resamples the positions.

    Raises:
        UserError: The file cannot be read safely, or its weights are not exactly those of a ViT.
    """
    path = Path(file)
    weights = without(read_weights(path, ("model",)), MAE_DROPPED)
    after_mean = "norm.weight" not in weights and "fc_norm.weight" in weights
    if not after_mean:
        weights = without(weights, ("fc_norm.",))  # of the task, beside the pre-trained norm
    return _assemble(weights, path, image_size, fc_norm=after_mean)


def load_dinov2(file: str, image_size: int | None = None) -> ViTEncoder:
    """Load a file of facebook's DINOv2, with or without registers: bare weights, or a training file's `teacher`.

    Args:
        file: What follows `dinov2:`.
        image_size: Side of the input in pixels; another one than the file's (518 for the published ones) resamples
            the positions by timm's rule, which differs from DINOv2's own in the smoothing.

    Raises:
        UserError: The file cannot be read safely, or its weights are not exactly those of such a ViT.
    """
    path = Path(file)
    weights = without(read_weights(path, ("teacher", "model")), DINOV2_DROPPED)
    if all(key.startswith("backbone.") for key in weights):
        weights = {key.removeprefix("backbone."): value for key, value in weights.items()}
        weights = without(weights, DINOV2_DROPPED)
    # Training in several processes stores blocks in chunks, blocks.CHUNK.BLOCK, where BLOCK counts through.
    weights = {re.sub(r"^blocks\.\d+\.(?=\d+\.)", "blocks.", key): value for key, value in weights.items()}
    return _assemble(weights, path, image_size, fc_norm=False)


def _assemble(weights: dict[str, Tensor], path: Path, image_size: int | None, *, fc_norm: bool) -> ViTEncoder:
    size, arguments = _architecture(weights, path)
    vit = build_vit(arguments, fc_norm=fc_norm)
    if "register_tokens" in weights or any(".mlp.w12." in key for key in weights):
        # timm's filter knows DINOv2 by its mask token.
        weights = checkpoint_filter_fn(weights | {"mask_token": weights["cls_token"]}, vit)
    load_exactly(vit, weights, source=str(path), architecture=f"the ViT that its shapes describe ({_words(arguments)})")
    description = str(path)
    if image_size is not None and image_size != size:
        patch = arguments["patch_size"]
        if image_size % patch:
            raise UserError(f"image_size={image_size} is not divisible by the patch size {patch} of {path}.")
        vit.set_input_size(img_size=(image_size, image_size))
        description += f", positions resampled from {size} to {image_size} pixels"
    return ViTEncoder(
        module=vit,
        image_size=image_size or size,
        mean=IMAGE_MEAN,
        std=IMAGE_STD,
        description=description,
        architecture={
            "kind": "facebook",
            "arguments": arguments | {"img_size": image_size or size},
            "fc_norm": fc_norm,
        },
    )


def build_vit(arguments: Mapping[str, Any], *, fc_norm: bool) -> VisionTransformer:
    """Build a ViT with fresh weights.

    Args:
        arguments: timm's; `gated` stands for DINOv2's gated linear unit.
        fc_norm: Whether its norm comes after the mean.
    """
    layers = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU} if arguments.get("gated") else {}
    plain = {key: value for key, value in arguments.items() if key != "gated"}
    vit = VisionTransformer(num_classes=0, fc_norm=fc_norm, final_norm=True, **plain, **layers)
    if fc_norm:
        vit.reset_classifier(0, global_pool="avg")
    return vit


def _architecture(weights: Mapping[str, Tensor], path: Path) -> tuple[int, dict[str, Any]]:
    """Return the image size and timm's arguments that the shapes speak of; the strict check finds what they hide."""
    if "reg_token" in weights:
        raise UserError(f"{path} has timm's names.\nUse timm:NAME@{path}.")
    needed = ("patch_embed.proj.weight", "pos_embed", "cls_token", "blocks.0.norm1.weight")
    missing = [f"missing: {key}" for key in needed if key not in weights]
    if missing:
        found = ", ".join(list(weights)[:5]) or "nothing else"
        raise UserError(f"{path} holds no ViT:\n" + "\n".join(missing) + f"\nIt holds {found} ...")
    patch_weight, positions = weights["patch_embed.proj.weight"], weights["pos_embed"]
    if patch_weight.ndim != 4 or positions.ndim != 3:
        raise UserError(
            f"{path} holds no ViT: patch_embed.proj.weight is {list(patch_weight.shape)}, "
            f"pos_embed {list(positions.shape)}; four and three dimensions were expected."
        )
    width, patch = patch_weight.shape[0], patch_weight.shape[-1]
    side = math.isqrt(positions.shape[1] - 1)  # the class token has a position, registers have none
    if width % HEAD_DIM or side * side != positions.shape[1] - 1:
        raise UserError(
            f"{path} holds no ViT of this kind: width {width} is to be a multiple of {HEAD_DIM}, and "
            f"{positions.shape[1]} positions are to be a class token and a square."
        )
    gated = weights.get("blocks.0.mlp.w12.weight")
    hidden = gated if gated is not None else weights.get("blocks.0.mlp.fc1.weight")
    arguments: dict[str, Any] = {
        "img_size": side * patch,
        "patch_size": patch,
        "embed_dim": width,
        "depth": 1 + max(int(found[1]) for key in weights if (found := re.match(r"blocks\.(\d+)\.", key))),
        "num_heads": HUGE_HEADS if width == HUGE_WIDTH else width // HEAD_DIM,
        # timm multiplies and cuts off; the half keeps the product from falling short of a whole number.
        "mlp_ratio": (len(hidden) + 0.5) / width if hidden is not None else 4.0,
        "init_values": 1.0 if "blocks.0.ls1.gamma" in weights else None,
    }
    if gated is not None:
        arguments["gated"] = True
    if "register_tokens" in weights:
        arguments |= {"reg_tokens": weights["register_tokens"].shape[1], "no_embed_class": True}
    return side * patch, arguments


def _words(arguments: Mapping[str, Any]) -> str:
    shown = ("embed_dim", "depth", "patch_size", "img_size")
    return ", ".join(f"{key} {arguments[key]}" for key in shown)
