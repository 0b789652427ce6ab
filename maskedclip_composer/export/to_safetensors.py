"""Export to one file, the image encoder alone, which evaluate.py, `load` and timm read."""

import json
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from maskedclip_composer.export.encoder import save_encoder
from maskedclip_composer.export.golden import Golden
from maskedclip_composer.export.source import Source
from maskedclip_composer.use.load import load

FILE = "encoder.safetensors"
WITH_TEXTS = False


def write(source: Source, folder: Path) -> list[str]:
    """Write the encoder; return notes for the user."""
    architecture, encoder = source.architecture, source.model.branch.image_encoder
    save_encoder(
        folder / FILE,
        encoder.vit,
        name=architecture.image_encoder,
        image_size=architecture.image_size,
        patch_size=encoder.patch_size,
        mean=architecture.mean,
        std=architecture.std,
        extra={
            "recipe": json.dumps(asdict(architecture.recipe)),
            "recipe_known": json.dumps(architecture.recipe_known),
        },
    )
    return []


def recompute(folder: Path, golden: Golden) -> dict[str, Tensor]:
    """Return the outputs for the golden inputs, by loader and name."""
    return {"load: features": load(folder / FILE).model.encode_features(golden.inputs["images"])}
