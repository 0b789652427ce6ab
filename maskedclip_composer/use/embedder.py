"""From a batch of photographs to the features that are kept of each."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from maskedclip_composer.data.photograph import Recipe
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.encoders.base import Encoder
from maskedclip_composer.evaluation.encoders.fingerprint import fingerprint, weights_sha256
from maskedclip_composer.evaluation.encoders.load import LOADERS
from maskedclip_composer.evaluation.encoders.load import load as load_encoder
from maskedclip_composer.export.exact import load_exactly
from maskedclip_composer.use.dual_tower import DualTower
from maskedclip_composer.use.load import build_dual_tower, load, read_model
from maskedclip_composer.use.tokenizer import Tokenizer
from maskedclip_composer.use.transform import PhotographTransform

Space = Literal["both", "masked", "clip"]
FEATURES, IMAGE_FEATURES = "features", "image_features"
"""Columns of the masked space and of the CLIP space."""

Features = dict[str, Float[np.ndarray, "images dim"]]


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """A model that embeds photographs.

    Attributes:
        space: Which features it returns.
        transform: From a photograph to its input.
        embed: From its input, [images, 3, size, size] in uint8, to the columns of features, in float32.
        about: What is noted of it: `encoder_sha256` names what the masked space depends on, `model_sha256` and
            `tokenizer_sha256` what the CLIP space does (empty where it has none).
    """

    space: Space
    transform: PhotographTransform
    embed: Callable[[UInt8[Tensor, "images 3 size size"]], Features]
    about: dict[str, Any]


def open_embedder(source: str, *, space: Space | None = None, device: str = "cpu") -> Embedder:
    """Load a model of this project (`use.load`), or an encoder of others (`evaluation/encoders/load.py`).

    Args:
        source: Of the model.
        space: Which features to return; None takes all that the model has.
        device: Where the model goes.

    Raises:
        UserError: It cannot be loaded, or has no CLIP space.
    """
    kind = source.partition(":")[0]
    if kind in LOADERS and ":" in source:
        if space in ("both", "clip"):
            raise UserError(f"--space {space}: an encoder of {kind} has no CLIP space.\nLeave --space out.")
        return _of_others(load_encoder(source), device)
    if space == "masked":
        return _without_texts(source, device)
    model, transform, tokenizer = load(source, device=device)
    if space in ("both", "clip") and not model.has_texts:
        raise UserError(
            f"--space {space}: {source} was trained without texts, so it has no CLIP space.\nLeave --space out, or "
            "give a run with objectives.lg_clip."
        )
    return embedder_of(model, transform, tokenizer, space or ("both" if model.has_texts else "masked"))


def embedder_of(
    model: DualTower, transform: PhotographTransform, tokenizer: Tokenizer | None, space: Space
) -> Embedder:
    """Return the embedder of a model of this project, which has the space."""
    return Embedder(
        space=space,
        transform=transform,
        embed=lambda images: _embed(model, images, space),
        about=describe(model, transform, tokenizer),
    )


def describe(model: DualTower, transform: PhotographTransform, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Return what is noted of a model of this project; see `Embedder.about`."""
    encoder = model.branch.image_encoder
    facts = f"{model.image_size} {encoder.image_mean} {encoder.image_std} {transform.recipe.options()}"
    return {
        "architecture": {
            "image_size": model.image_size,
            "patch_size": encoder.patch_size,
            "embed_dim": encoder.embed_dim,
            "depth": len(encoder.vit.blocks),
            "texts": model.has_texts,
        },
        "recipe": asdict(transform.recipe),
        "encoder_sha256": weights_sha256(encoder.vit.state_dict(), facts),
        "model_sha256": weights_sha256(model.state_dict(), facts) if model.has_texts else "",
        "tokenizer_sha256": tokenizer.sha256 if tokenizer is not None else "",
    }


def _without_texts(source: str, device: str) -> Embedder:
    """Load the image side alone, for the masked space: the text encoder's files need not be there."""
    architecture, weights = read_model(Path(source))
    model = build_dual_tower(replace(architecture, texts=None))
    image_side = {name: value for name, value in weights.items() if name.startswith("branch.")}
    load_exactly(model, image_side, source=source, architecture="the model that its config describes")
    transform = PhotographTransform(architecture.recipe, architecture.image_size)
    return embedder_of(model.to(device).eval().requires_grad_(False), transform, None, "masked")


def _embed(model: DualTower, images: UInt8[Tensor, "images 3 size size"], space: Space) -> Features:
    found: dict[str, Tensor] = {}
    if space == "both":
        found[FEATURES], found[IMAGE_FEATURES] = model.encode_both(images)
    elif space == "masked":
        found[FEATURES] = model.encode_features(images)
    else:
        found[IMAGE_FEATURES] = model.encode_image(images)
    return {name: value.float().cpu().numpy() for name, value in found.items()}


def _of_others(encoder: Encoder, device: str) -> Embedder:
    recipe = Recipe()
    encoder.module.to(device).eval().requires_grad_(False)
    mean = torch.tensor(encoder.mean, device=device).view(-1, 1, 1)
    std = torch.tensor(encoder.std, device=device).view(-1, 1, 1)

    @torch.no_grad()
    def embed(images: Tensor) -> Features:
        normalised = (images.to(device).float() / 255 - mean) / std
        return {FEATURES: encoder.features(normalised).float().cpu().numpy()}

    about = {
        "architecture": {"image_size": encoder.image_size, "embed_dim": encoder.dim, "texts": False},
        "recipe": asdict(recipe),
        "encoder_sha256": fingerprint(encoder),
        "model_sha256": "",
        "tokenizer_sha256": "",
    }
    transform = PhotographTransform(recipe, encoder.image_size)
    return Embedder(space="masked", transform=transform, embed=embed, about=about)
