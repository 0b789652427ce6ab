"""Export to a folder in timm's layout, which `timm.create_model("local-dir:FOLDER", pretrained=True)` reads."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.data.config import resolve_data_config
from torch import Tensor

from maskedclip_composer.export.golden import Golden
from maskedclip_composer.export.source import Source

WEIGHTS, CONFIG = "model.safetensors", "config.json"
WITH_TEXTS = False


def write(source: Source, folder: Path) -> list[str]:
    """Write weights and config; return notes for the user."""
    vit = source.model.branch.image_encoder.vit
    weights = {name: value.contiguous() for name, value in vit.state_dict().items()}
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(timm_config(source), indent=2) + "\n")
    return []


def model_arguments(source: Source) -> dict[str, Any]:
    """Return what timm's `create_model` needs beside the name.

    By themselves timm's ViTs give the class token. `global_pool="avg"` alone would move the final norm behind the mean;
    with `fc_norm=False` it stays where pre-training had it, and the output is the mean of the normalised patch tokens.
    """
    encoder = source.model.branch.image_encoder
    return {
        "img_size": source.architecture.image_size,
        "patch_size": encoder.patch_size,
        "depth": len(encoder.vit.blocks),
        "global_pool": "avg",
        "fc_norm": False,
    }


def timm_config(source: Source) -> dict[str, Any]:
    """Return the content of timm's config.json; `maskedclip` is ours, and timm leaves it alone."""
    architecture, encoder = source.architecture, source.model.branch.image_encoder
    return {
        "architecture": architecture.image_encoder.split(".")[0],  # without the tag of published weights
        "num_classes": 0,
        "num_features": encoder.embed_dim,
        "global_pool": "avg",
        "model_args": model_arguments(source),
        "pretrained_cfg": {
            "num_classes": 0,
            "input_size": [3, architecture.image_size, architecture.image_size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": crop_share(architecture.image_size),
            "crop_mode": "center",
            "mean": list(architecture.mean),
            "std": list(architecture.std),
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
        "maskedclip": {"recipe": asdict(architecture.recipe), "recipe_known": architecture.recipe_known},
    }


def crop_share(size: int) -> float:
    """Return timm's `crop_pct` for the view of data/transforms.py: short side 256/224 of the size, then the centre.

    timm rounds the short side down, so the share is a little smaller rather than larger.
    """
    return math.floor(size / round(size * 256 / 224) * 1e6) / 1e6


@torch.no_grad()
def recompute(folder: Path, golden: Golden) -> dict[str, Tensor]:
    """Return the outputs of timm for the golden inputs, by loader and name."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    data = resolve_data_config(model=model)
    mean, std = (torch.tensor(data[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    return {"timm: features": model((golden.inputs["images"].float() / 255 - mean) / std)}
