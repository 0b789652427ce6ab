"""The pre-trained image encoder as a file: written after pre-training, read by everything downstream."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import timm
import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from timm.models import VisionTransformer
from torch import Tensor, nn

from maskedclip_composer.errors import UserError
from maskedclip_composer.export.exact import load_exactly
from maskedclip_composer.export.model_weights import read_model_weights
from maskedclip_composer.export.origin import ORIGIN_FILE, read_origin
from maskedclip_composer.models.attention import AttentionBackend, use_backend
from maskedclip_composer.models.vit import IMAGE_MEAN, IMAGE_STD, ImageEncoderConfig, build_image_encoder, build_vit

FORMAT = "maskedclip-encoder-1"
NEWEST = Path("checkpoints", "latest-rank0.pt")
STUDENT_PREFIX = "net.branch.image_encoder.vit."
# A classifier's head says nothing about the encoder, so a file may bring one; it is dropped.
HEAD_PREFIXES = ("head.", "fc_norm.")


@dataclass(frozen=True, kw_only=True)
class LoadedEncoder:
    """A ViT with its weights and what its input must look like.

    Attributes:
        vit: timm's model without a head; its final norm is `vit.norm`.
        name: timm's name of the architecture.
        image_size: Side of the square input in pixels.
        mean: Per channel, in units of 0 to 1; images are normalised with it before they enter.
        std: Likewise.
        description: Where the weights come from, for reports.
    """

    vit: VisionTransformer
    name: str
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    description: str


def save_encoder(
    path: Path | str,
    vit: VisionTransformer,
    *,
    name: str,
    image_size: int,
    patch_size: int,
    mean: tuple[float, ...] = IMAGE_MEAN,
    std: tuple[float, ...] = IMAGE_STD,
    extra: Mapping[str, str] | None = None,
) -> None:
    """Write the encoder's weights, under timm's own names, with the facts needed to build it again.

    The file is written aside and renamed, so that a crash leaves either the old file or the new one.

    Args:
        path: A `.safetensors` file; folders are created.
        vit: The encoder.
        name: timm's name of the architecture.
        image_size: Side of the square input in pixels.
        patch_size: Side of a patch in pixels.
        mean: What images were normalised with in training, per channel in units of 0 to 1.
        std: Likewise.
        extra: Further metadata, for example the run's name.
    """
    path = Path(path)
    metadata = dict(extra or {}) | {
        "format": FORMAT,
        "name": name,
        "image_size": str(image_size),
        "patch_size": str(patch_size),
        "depth": str(len(vit.blocks)),
        "mean": json.dumps(mean),
        "std": json.dumps(std),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".partial")
    save_file({key: value.detach().cpu().contiguous() for key, value in vit.state_dict().items()}, aside, metadata)
    os.replace(aside, path)


def load_encoder(source: str, *, image_size: int | None = None, attention: AttentionBackend = "auto") -> LoadedEncoder:
    """Load an encoder from one of the kinds of source below.

    Args:
        source: An encoder `.safetensors`; a run folder, or a Composer `.pt` inside one; `timm:NAME` for timm's
            published weights; `random:NAME` for the initialisation that pre-training starts from, where NAME is
            timm's, or a run folder or encoder file whose architecture is meant.
        image_size: Side of the input in pixels. None takes the source's own (224 for `random:`); another value
            resamples the positions.
        attention: Back end of the attention (`models/attention.py`).

    Raises:
        UserError: The source is absent or refused, or its weights are not exactly those of the architecture.
    """
    kind, _, name = source.partition(":")
    if kind == "random":
        encoder = _random(name, image_size)
    elif kind == "timm":
        encoder = _published(name, image_size)
    elif source.endswith(".safetensors"):
        encoder = _exported(Path(source), image_size)
    elif source.endswith(".pt"):
        encoder = _checkpoint(Path(source), image_size)
    else:
        encoder = _run_folder(Path(source), image_size)
    use_backend(encoder.vit, attention)
    return encoder


def _random(name: str, image_size: int | None) -> LoadedEncoder:
    if Path(name).exists():
        like = load_encoder(name, image_size=image_size)
        patch_size, depth = like.vit.patch_embed.patch_size[0], len(like.vit.blocks)
        config, size = ImageEncoderConfig(name=like.name, patch_size=patch_size, depth=depth), like.image_size
    else:
        config, size = ImageEncoderConfig(name=name), image_size or 224
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same encoder on every rank and in every run
        vit = build_image_encoder(config, size).vit
    description = f"random initialisation of {name}"
    return LoadedEncoder(
        vit=vit, name=config.name, image_size=size, mean=IMAGE_MEAN, std=IMAGE_STD, description=description
    )


def _published(name: str, image_size: int | None) -> LoadedEncoder:
    published = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    size = image_size or (published.input_size[-1] if published else 224)
    vit = build_vit(name, size, None, pretrained=True)
    if isinstance(vit.norm, nn.Identity):
        raise UserError(
            f"timm:{name} has no norm before its pooling, so its patch tokens are no features.\n"
            "Choose a model with a class-token head, for example vit_large_patch16_224.augreg_in21k."
        )
    assert published is not None  # else timm had no weights to load
    return LoadedEncoder(
        vit=vit,
        name=name,
        image_size=size,
        mean=published.mean,
        std=published.std,
        description=f"{name}, weights of timm ({published.tag or 'default'})",
    )


def _exported(path: Path, image_size: int | None) -> LoadedEncoder:
    if not path.is_file():
        raise UserError(
            f"No encoder file at {path}.\nPre-training writes one as <output>/<run_name>/encoder.safetensors."
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  safe_open is no mapping
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}).\nExport the encoder again.") from error
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"{path} says format={metadata.get('format')!r}, not {FORMAT!r}.\n"
            "Only files written by maskedclip_composer.export.save_encoder name their architecture."
        )
    encoder = _assemble(
        weights,
        name=metadata["name"],
        stored_size=int(metadata["image_size"]),
        patch_size=int(metadata["patch_size"]),
        depth=int(metadata["depth"]),
        image_size=image_size,
        source=path,
    )
    return replace(encoder, mean=tuple(json.loads(metadata["mean"])), std=tuple(json.loads(metadata["std"])))


def _run_folder(folder: Path, image_size: int | None) -> LoadedEncoder:
    exported, latest = folder / "encoder.safetensors", folder / NEWEST
    if exported.is_file():
        return _exported(exported, image_size)
    if latest.exists():  # a file, or a folder of shards
        return _checkpoint(latest, image_size)
    raise UserError(
        f"checkpoint={folder} is no encoder: it holds neither encoder.safetensors nor checkpoints/latest-rank0.pt.\n"
        "Give a run folder, an encoder .safetensors, a Composer .pt, timm:NAME or random:NAME."
    )


def _checkpoint(path: Path, image_size: int | None) -> LoadedEncoder:
    model = read_model_weights(path)
    weights = {
        key.removeprefix(STUDENT_PREFIX): value for key, value in model.items() if key.startswith(STUDENT_PREFIX)
    }
    if not weights:
        raise UserError(
            f"{path} holds no weights under {STUDENT_PREFIX}*, so it is no checkpoint of this project's pre-training.\n"
            "Give a checkpoint that train.py wrote."
        )
    config_file = path.parent.parent / "config.yaml"
    if not config_file.is_file():
        raise UserError(
            f"{path} does not say which architecture it is, and {config_file} is missing.\n"
            "Keep a checkpoint inside its run folder, or use the run's encoder.safetensors."
        )
    config = yaml.safe_load(config_file.read_text())
    name = config["image_encoder"]["name"]
    encoder = _assemble(
        weights,
        name=name,
        stored_size=config["data"]["image_size"],
        patch_size=config["image_encoder"].get("patch_size"),
        depth=config["image_encoder"].get("depth"),
        image_size=image_size,
        source=path,
    )
    mean, std = image_statistics(config_file.parent)
    return replace(encoder, mean=mean, std=std)


def image_statistics(run_folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and deviation that a run normalises images with, per channel in units of 0 to 1.

    Pre-training that starts from published weights normalises images as those were trained.

    Raises:
        UserError: The run started from other weights, and its record of them is missing.
    """
    config = yaml.safe_load((run_folder / "config.yaml").read_text())["image_encoder"]
    if config.get("weights"):
        origin = read_origin(run_folder)
        if origin is None:
            raise UserError(
                f"{run_folder} started from other weights, and {run_folder / ORIGIN_FILE}, which says how images are "
                "normalised for them, is missing.\nUse the run's encoder.safetensors."
            )
        return origin.mean, origin.std
    published = timm.get_pretrained_cfg(config["name"]) if config.get("pretrained") else None
    return (published.mean, published.std) if published else (IMAGE_MEAN, IMAGE_STD)


def _assemble(
    weights: Mapping[str, Tensor],
    *,
    name: str,
    stored_size: int,
    patch_size: int | None,
    depth: int | None,
    image_size: int | None,
    source: Path,
) -> LoadedEncoder:
    """Build the architecture, load exactly its weights, then change the image size if another one is wanted."""
    weights = {key: value for key, value in weights.items() if not key.startswith(HEAD_PREFIXES)}
    vit = build_vit(name, stored_size, patch_size, depth)
    load_exactly(vit, weights, source=str(source), architecture=f"{name} at {stored_size} pixels")
    description = str(source)
    if image_size is not None and image_size != stored_size:
        patch = vit.patch_embed.patch_size[0]
        if image_size % patch:
            raise UserError(f"image_size={image_size} is not divisible by the patch size {patch} of {source}.")
        vit.set_input_size(img_size=(image_size, image_size))
        description += f", positions resampled from {stored_size} to {image_size} pixels"
    return LoadedEncoder(
        vit=vit,
        name=name,
        image_size=image_size or stored_size,
        mean=IMAGE_MEAN,
        std=IMAGE_STD,
        description=description,
    )
