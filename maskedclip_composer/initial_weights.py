"""A network that goes on from published or earlier weights: `image_encoder.weights` and `from_weights`.

Here, beside `build.py`, because the readers of weights belong to the evaluation, which models may not import.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timm.models import VisionTransformer
from torch import Tensor, nn

from maskedclip_composer.callbacks.redaction import redact_text
from maskedclip_composer.config import TrainConfig
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.encoders.fingerprint import fingerprint, weights_sha256
from maskedclip_composer.evaluation.encoders.load import load
from maskedclip_composer.evaluation.encoders.vit import ViTEncoder
from maskedclip_composer.export.exact import load_exactly
from maskedclip_composer.export.origin import Origin, read_origin
from maskedclip_composer.initial_parts import load_parts, read_parts, source_of_encoder
from maskedclip_composer.models.attention import use_backend
from maskedclip_composer.models.vit import ImageEncoder, build_image_encoder, build_vit


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a network starts from.

    Attributes:
        origin: The record of it.
        weights: Of the image encoder, under timm's names; None where a checkpoint is loaded afterwards, so that they
            need not be there.
        parts: Of other parts, by name.
    """

    origin: Origin
    weights: dict[str, Tensor] | None
    parts: dict[str, dict[str, Tensor]] = field(default_factory=dict)


def find_start(config: TrainConfig, checkpoint: Path) -> Start | None:
    """Read the weights that a run starts from, unless `checkpoint` of the same run is there to continue from.

    Returns:
        None where `image_encoder.weights` is not given.

    Raises:
        UserError: The weights cannot be read, or are not of the architecture that the config describes.
    """
    if config.image_encoder.weights is None:
        return None
    recorded = recorded_start(config.run_folder) if checkpoint.exists() else None
    if recorded is not None:
        return recorded
    start = read_start(config)
    if int(os.environ.get("RANK", 0)) == 0:
        print(_summary(start.origin), flush=True)
    return start


def recorded_start(run_folder: Path) -> Start | None:
    """Return the start of a run whose checkpoint is loaded afterwards; None where the run left no record of it."""
    origin = read_origin(run_folder)
    return None if origin is None else Start(origin=origin, weights=None)


def read_start(config: TrainConfig) -> Start:
    """Read `image_encoder.weights` by the evaluation's readers, with positions resampled to `data.image_size`.

    The weights must be those of a ViT with class token and a norm after the last block, of the same architecture as
    `image_encoder` describes; what names, shapes and settings show is compared. Parts that `from_weights` names come
    with them (`initial_parts.py`).

    Raises:
        UserError: As in `find_start`.
    """
    source = config.image_encoder.weights
    assert source is not None
    vit = _described(config)
    try:
        loaded = load(source_of_encoder(config), image_size=config.data.image_size)
    except UserError as error:
        raise UserError(f"image_encoder.weights={source} cannot be read.\n{error}") from error
    module = loaded.module
    if not isinstance(loaded, ViTEncoder) or type(module) is not VisionTransformer:
        raise UserError(
            f"image_encoder.weights={source} is a {type(module).__name__}, not one of timm's ViTs.\n"
            "Give a ViT in timm's, MAE's or DINOv2's layout (docs/recipes.md)."
        )
    if isinstance(module.norm, nn.Identity):
        raise UserError(
            f"image_encoder.weights={source} has its norm after the mean of the patches and none before it, as after "
            "fine-tuning: its tokens are no features.\nGive the weights from before the fine-tuning."
        )
    theirs, ours = _architecture(module), _architecture(vit)
    if theirs != ours:
        raise UserError(
            f"image_encoder.weights={source} is a ViT of {_words(theirs)};\n"
            f"image_encoder.name={config.image_encoder.name} describes one of {_words(ours)}.\n"
            "Set name, patch_size and depth of image_encoder to those of the weights, or choose other weights."
        )
    weights = module.state_dict()
    name = f"image_encoder.name={config.image_encoder.name} at {config.data.image_size} pixels"
    load_exactly(vit, weights, source=f"image_encoder.weights={source}", architecture=name)
    parts = read_parts(config, module)
    origin = Origin(
        source=redact_text(source),
        description=loaded.description,
        sha256=fingerprint(loaded),
        mean=loaded.mean,
        std=loaded.std,
        parts={name: weights_sha256(part, "") for name, part in parts.items()},
        fresh=tuple(name for name in config.parts if name not in parts),
    )
    return Start(origin=origin, weights=weights, parts=parts)


def build_started_encoder(config: TrainConfig, start: Start | None) -> ImageEncoder:
    """Build the image encoder with its first weights; its positions are trained where they come from `start`.

    Raises:
        UserError: As in `build_image_encoder`.
    """
    if start is None:
        return build_image_encoder(config.image_encoder, config.data.image_size)
    vit = _described(config)
    if start.weights is not None:
        vit.load_state_dict(start.weights)
    use_backend(vit, config.image_encoder.attention)
    return ImageEncoder(vit, start.origin.mean, start.origin.std)


def start_parts(net: nn.Module, start: Start | None) -> None:
    """Give the other parts of a `PretrainNet` their first weights.

    Raises:
        UserError: They are not exactly those of the part.
    """
    if start is not None and start.parts:
        load_parts(net, start.parts, start.origin.source)


def _described(config: TrainConfig) -> VisionTransformer:
    encoder = config.image_encoder
    return build_vit(encoder.name, config.data.image_size, encoder.patch_size, encoder.depth)


def _architecture(vit: VisionTransformer) -> dict[str, Any]:
    """Return what decides the function of the weights; much of it does not show in their shapes."""
    block: Any = vit.blocks[0]
    return {
        "width": vit.embed_dim,
        "depth": len(vit.blocks),
        "heads": block.attn.num_heads,
        "patch size": int(vit.patch_embed.patch_size[0]),
        "class tokens": int(vit.cls_token is not None),
        "registers": vit.num_reg_tokens,
        "activation": type(block.mlp.act).__name__,
        "norm": f"{type(block.norm1).__name__} with eps {block.norm1.eps}",
    }


def _summary(origin: Origin) -> str:
    fresh = f" As without weights: {', '.join(origin.fresh)}." if origin.fresh else ""
    return f"From {origin.source}: {', '.join(['image_encoder', *origin.parts])}.{fresh}"


def _words(architecture: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in architecture.items())
