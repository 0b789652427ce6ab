"""A trained model in three lines: `model, transform, tokenizer = maskedclip_composer.load("runs/maskedclip")`."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from maskedclip_composer.data.photograph import Recipe
from maskedclip_composer.errors import UserError
from maskedclip_composer.export.encoder import NEWEST, image_statistics, load_encoder
from maskedclip_composer.export.exact import load_exactly
from maskedclip_composer.export.model_weights import read_model_weights
from maskedclip_composer.export.sharded import LAYOUT
from maskedclip_composer.models.attention import use_backend
from maskedclip_composer.models.branch import ImageBranch
from maskedclip_composer.models.text import FOLDER, TextEncoderConfig, build_text_encoder, load_tokenizer
from maskedclip_composer.models.vit import ImageEncoder, build_vit
from maskedclip_composer.objectives.base import Parts
from maskedclip_composer.use.architecture import (
    Architecture,
    architecture_of_plain,
    architecture_of_run,
    objective_config,
    recipe_of_run,
)
from maskedclip_composer.use.dual_tower import DualTower
from maskedclip_composer.use.tokenizer import Tokenizer
from maskedclip_composer.use.transform import PhotographTransform

WEIGHTS = "model.safetensors"
TEXT_FOLDER = FOLDER


class Loaded(NamedTuple):
    """What `load` returns: it unpacks into its first three.

    Attributes:
        model: In evaluation mode.
        transform: From a photograph to the model's input.
        tokenizer: From texts to the model's input; None where it was trained without texts.
    """

    model: DualTower
    transform: PhotographTransform
    tokenizer: Tokenizer | None


def load(source: str | Path, *, device: str | torch.device = "cpu") -> Loaded:
    """Load a model that this project trained.

    Args:
        source: A run folder (its newest checkpoint), a checkpoint inside one (a `.pt`, or a folder of shards), a folder
            that `python -m maskedclip_composer export` wrote with `--to hf` or `safetensors`, or an
            `encoder.safetensors` (the encoder alone).
        device: Where the model goes.

    Raises:
        UserError: The source is absent, damaged or of another kind, or its weights are not exactly the model's.
    """
    path = Path(source)
    architecture, weights = read_model(path)
    model = build_dual_tower(architecture)
    load_exactly(model, weights, source=str(path), architecture="the model that its config describes")
    return Loaded(
        model.to(device).eval().requires_grad_(False),
        PhotographTransform(architecture.recipe, architecture.image_size),
        load_text_side(architecture),
    )


def load_text_side(architecture: Architecture) -> Tokenizer | None:
    """Return the tokenizer of a model; None where it was trained without texts."""
    texts = architecture.texts
    if texts is None:
        return None
    return Tokenizer(load_tokenizer(TextEncoderConfig(name=texts.source)), texts.max_tokens)


def build_dual_tower(architecture: Architecture) -> DualTower:
    """Build a model with fresh weights.

    Raises:
        UserError: The text encoder's config is neither in a local folder nor on a reachable hub.
    """
    vit = build_vit(architecture.image_encoder, architecture.image_size, architecture.patch_size, architecture.depth)
    use_backend(vit, "auto")
    encoder = ImageEncoder(vit, architecture.mean, architecture.std)
    branch = ImageBranch(encoder, architecture.bridge, "auto")
    texts = architecture.texts
    if texts is None:
        return DualTower(branch, None, None)
    text_encoder = build_text_encoder(TextEncoderConfig(name=texts.source, pretrained=False, layers=list(texts.layers)))
    space = objective_config(texts).build(Parts(image_encoder=encoder, text_encoder=text_encoder))
    return DualTower(branch, text_encoder, space)


def read_model(path: Path) -> tuple[Architecture, dict[str, Tensor]]:
    """Read a model without building it; see `load`."""
    if path.suffix == ".safetensors":
        return _encoder_alone(path)
    if path.suffix == ".pt":
        return _checkpoint(path)
    if (path / WEIGHTS).is_file():
        return _exported(path)
    if (path / LAYOUT).is_file():
        return _checkpoint(path)
    if (path / "config.yaml").is_file() and (path / NEWEST).exists():  # a file, or a folder of shards
        return _checkpoint(path / NEWEST)
    if (path / "encoder.safetensors").is_file():
        return _encoder_alone(path / "encoder.safetensors")
    raise UserError(
        f"{path} holds no model.\nGive a run folder of train.py, a checkpoint .pt in one, an encoder.safetensors, or a "
        "folder that `python -m maskedclip_composer export` wrote with --to hf or --to safetensors."
    )


def _exported(folder: Path) -> tuple[Architecture, dict[str, Tensor]]:
    config = folder / "config.json"
    try:
        plain = json.loads(config.read_text())
        weights = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder} is no whole model ({error}).\nExport it again.") from error
    return architecture_of_plain(plain, str(config), str(folder / TEXT_FOLDER)), weights


def _checkpoint(path: Path) -> tuple[Architecture, dict[str, Tensor]]:
    folder = path.parent.parent
    if not (folder / "config.yaml").is_file():
        raise UserError(
            f"{path} does not say what model it is of, and {folder / 'config.yaml'} is missing.\n"
            "Keep a checkpoint inside its run folder."
        )
    mean, std = image_statistics(folder)
    architecture = architecture_of_run(folder, mean=mean, std=std)
    return architecture, weights_of_net(read_model_weights(path), architecture)


def weights_of_net(state: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Return the weights of a `DualTower` out of those of a `MaskedCLIP`."""
    prefixes = {"net.branch.": "branch."}
    if architecture.texts is not None:
        key = next(iter(architecture.texts.objective))
        prefixes |= {"net.text_encoder.": "text_encoder.", f"net.objectives.{key}.": "joint_space."}
    return {
        new + key.removeprefix(old): value
        for old, new in prefixes.items()
        for key, value in state.items()
        if key.startswith(old)
    }


def _encoder_alone(path: Path) -> tuple[Architecture, dict[str, Tensor]]:
    loaded = load_encoder(str(path))
    architecture = Architecture(
        image_encoder=loaded.name,
        image_size=loaded.image_size,
        patch_size=int(loaded.vit.patch_embed.patch_size[0]),
        depth=len(loaded.vit.blocks),
        mean=loaded.mean,
        std=loaded.std,
    )
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    if "recipe" in metadata:  # an exported file; training writes its own into the run folder
        known = metadata.get("recipe_known") == "true"
        architecture = replace(architecture, recipe=Recipe(**json.loads(metadata["recipe"])), recipe_known=known)
    elif (path.parent / "config.yaml").is_file():
        recipe, known = recipe_of_run(path.parent)
        architecture = replace(architecture, recipe=recipe, recipe_known=known)
    return architecture, {f"branch.image_encoder.vit.{key}": value for key, value in loaded.vit.state_dict().items()}
