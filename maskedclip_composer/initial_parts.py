"""Bridge, text encoder, teacher, heads and decoders that go on from the source of the image encoder: `from_weights`."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import VisionTransformer
from torch import Tensor

from maskedclip_composer.config import TrainConfig
from maskedclip_composer.config_file import load_config
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.encoders.pretraining import dinov2_parts, mae_parts
from maskedclip_composer.export.encoder import NEWEST
from maskedclip_composer.export.exact import load_exactly
from maskedclip_composer.export.model_weights import read_model_weights
from maskedclip_composer.export.parts import Part, parts_of_checkpoint, parts_of_network

log = logging.getLogger(__name__)

# What shapes do not show, or not in the words of a config.
_SETTINGS = ("dim", "depth", "num_heads", "embed_dim", "prototypes", "hidden_dim", "bottleneck_dim")
_POSITIONS = "image_encoder.vit.pos_embed"  # of the teacher
_READERS = {"mae": mae_parts, "retfound": mae_parts, "dinov2": dinov2_parts}


def source_of_encoder(config: TrainConfig) -> str:
    """Return what the image encoder is read from: of a run folder its newest checkpoint, where parts come with it."""
    source = cast(str, config.image_encoder.weights)
    checkpoint = _checkpoint(source)
    return source if checkpoint is None or not config.from_weights else str(checkpoint)


def read_parts(config: TrainConfig, vit: VisionTransformer) -> dict[str, dict[str, Tensor]]:
    """Read the parts that `from_weights` names, as far as can be told now of the shapes that they need.

    Args:
        config: The run.
        vit: The image encoder that was read.

    Raises:
        UserError: The source cannot be read, lacks a part, or has one of other settings.
    """
    if not config.from_weights:
        return {}
    own = config.parts
    found = _found(config)
    wanted = [name for name in own if name in found] if config.from_weights == ["all"] else config.from_weights
    absent = [name for name in wanted if name not in found]
    if absent:
        has = ", ".join(["image_encoder", *found])
        raise UserError(
            f"from_weights={absent}: image_encoder.weights={config.image_encoder.weights} holds no {absent[0]}.\n"
            f"It holds {has}; this run has {', '.join(['image_encoder', *own])}. Name what both have."
        )
    for name in wanted:
        _compare(config, name, found[name], vit)
    return {name: found[name].weights for name in wanted}


def load_parts(net: Any, parts: Mapping[str, dict[str, Tensor]], source: str) -> None:
    """Give the parts of `net` their weights; a teacher that has none of its own starts as a copy of the student.

    Raises:
        UserError: A part lacks a weight, has one too many, or one of another shape.
    """
    modules = parts_of_network(net)
    for name, weights in parts.items():
        if name == "teacher":
            weights = _resampled(weights, net.teacher.image_encoder.vit)
        load_exactly(
            modules[name],
            weights,
            source=f"{name} of image_encoder.weights={source}",
            architecture=f"this run's {name}",
        )
    if net.teacher is not None and "teacher" not in parts:
        net.teacher.load_state_dict(net.branch.state_dict())


def _checkpoint(source: str) -> Path | None:
    """Return the checkpoint that a source of our own names; None for weights of others and for an encoder's file."""
    path = Path(source)
    if path.suffix == ".pt":
        return path
    if path.name == "latest" and not path.exists():
        return path.parent / NEWEST
    newest = path / NEWEST
    return newest if newest.exists() else None


def _found(config: TrainConfig) -> dict[str, Part]:
    source = cast(str, config.image_encoder.weights)
    prefix, _, file = source.partition(":")
    if prefix in _READERS:
        parts = _READERS[prefix](file)
        if "dinov2" in parts and config.objectives.dinov2 is not None and config.bridge.depth:
            raise UserError(
                f"from_weights: the heads of {source} read the image encoder, and here the bridge lies between "
                "(bridge.depth is above 0).\nWrite bridge.depth=0, or name parts without dinov2 in from_weights."
            )
        return parts
    checkpoint = _checkpoint(source)
    return {} if checkpoint is None else _of_run(config, checkpoint)


def _of_run(config: TrainConfig, checkpoint: Path) -> dict[str, Part]:
    theirs = load_config(TrainConfig, str(checkpoint.parent.parent / "config.yaml"), [])
    parts = parts_of_checkpoint(read_model_weights(checkpoint))
    if config.text_encoder.name != theirs.text_encoder.name and "text_encoder" in parts:
        log.warning(
            "text_encoder.name=%s, and that of %s was %s: its weights fit where both have the same vocabulary alone",
            config.text_encoder.name,
            checkpoint,
            theirs.text_encoder.name,
        )
    return {name: Part(weights=weights, settings=_settings(theirs, name)) for name, weights in parts.items()}


def _settings(config: TrainConfig, name: str) -> dict[str, Any]:
    part = config.bridge if name in ("bridge", "teacher") else config.objectives.present().get(name)
    return {key: getattr(part, key) for key in _SETTINGS if hasattr(part, key)}


def _compare(config: TrainConfig, name: str, part: Part, vit: VisionTransformer) -> None:
    """Refuse a part of other settings; where a config leaves one out, it is the image encoder's."""
    block: Any = vit.blocks[0]
    encoders = {"dim": vit.embed_dim, "num_heads": block.attn.num_heads}

    def resolved(settings: Mapping[str, Any]) -> dict[str, Any]:
        return {key: encoders.get(key) if settings[key] is None else settings[key] for key in part.settings}

    theirs, ours = resolved(part.settings), resolved(_settings(config, name))
    if theirs != ours:
        key = "bridge" if name in ("bridge", "teacher") else f"objectives.{name}"
        changes = [f"{key}.{setting}={value}" for setting, value in theirs.items() if ours[setting] != value]
        raise UserError(
            f"from_weights: {name} of {config.image_encoder.weights} has {_words(theirs)};\n"
            f"this run's has {_words(ours)}.\n"
            f"Write {' '.join(changes)}, or leave {name} out of from_weights."
        )


def _resampled(weights: dict[str, Tensor], vit: VisionTransformer) -> dict[str, Tensor]:
    """Bring the teacher's positions to this run's image size, as the student's are."""
    positions, grid = weights.get(_POSITIONS), vit.patch_embed.grid_size
    if positions is None or vit.pos_embed is None or positions.shape == vit.pos_embed.shape:
        return weights
    resample: Any = resample_abs_pos_embed
    return weights | {_POSITIONS: resample(positions, new_size=list(grid), num_prefix_tokens=1)}


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())
