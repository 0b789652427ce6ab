"""Every part of MaskedCLIP at a size that trains in milliseconds."""

import string
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from maskedclip_composer.models.branch import BridgeConfig, ImageBranch
from maskedclip_composer.models.pretrain import PretrainNet
from maskedclip_composer.models.text import TextEncoder
from maskedclip_composer.models.vit import ImageEncoder, ImageEncoderConfig, build_image_encoder
from maskedclip_composer.objectives.base import Objective, ObjectiveConfig, Parts
from maskedclip_composer.objectives.lg_clip import LgClipConfig
from maskedclip_composer.objectives.mfd import MfdConfig
from maskedclip_composer.objectives.mim import MimConfig
from maskedclip_composer.types import Batch

IMAGE_SIZE, PATCH_SIZE, NUM_PATCHES = 32, 8, 16
TEXT_DIM, VOCABULARY = 32, 60

OBJECTIVES: dict[str, ObjectiveConfig] = {
    "mim": MimConfig(dim=32, depth=1, num_heads=2),
    "lg_clip": LgClipConfig(embed_dim=16),
    "mfd": MfdConfig(dim=32, depth=1, num_heads=2),
}
# Objectives and bridge depth of the recipes of the ablation.
RECIPES: dict[str, tuple[tuple[str, ...], int]] = {
    "mae": (("mim",), 0),
    "clip": (("lg_clip",), 0),
    "mae+clip": (("mim", "lg_clip"), 0),
    "+bridge": (("mim", "lg_clip"), 1),
    "maskedclip": (("mim", "lg_clip", "mfd"), 1),
}


def image_encoder(**overrides) -> ImageEncoder:
    return build_image_encoder(ImageEncoderConfig(name="test_vit", patch_size=PATCH_SIZE, **overrides), IMAGE_SIZE)


def bert() -> BertModel:
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=TEXT_DIM,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertModel(config, add_pooling_layer=False)


def save_text_tower(folder: Path) -> Path:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase, "fundus", "photograph", "glaucoma"]
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(3)
    bert().save_pretrained(folder)
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def net(recipe: str = "maskedclip", *, bridge_depth: int | None = None, seed: int = 0) -> PretrainNet:
    """Build the network of a recipe. Modules that two recipes share have the same weights for the same seed."""
    names, depth = RECIPES[recipe]
    depth = depth if bridge_depth is None else bridge_depth

    def seeded(part: int) -> None:
        torch.manual_seed(100 * seed + part)

    seeded(0)
    encoder = image_encoder()
    seeded(1)
    branch = ImageBranch(encoder, BridgeConfig(depth=depth), "auto")
    seeded(2)
    text_encoder = TextEncoder(bert(), [-1]) if "lg_clip" in names else None
    parts = Parts(image_encoder=encoder, text_encoder=text_encoder)
    objectives: dict[str, Objective] = {}
    for part, (name, config) in enumerate(OBJECTIVES.items(), start=3):
        if name in names:
            seeded(part)
            objectives[name] = config.build(parts)
    with_teacher = any(OBJECTIVES[name].needs_teacher for name in names)
    return PretrainNet(branch, text_encoder, objectives, mask_ratio=0.75, with_teacher=with_teacher)


def batch(pairs: int, unpaired: int, seed: int = 0) -> Batch:
    """Make a step's batch; every third pair shares its label and its text with an earlier one."""
    generator = torch.Generator().manual_seed(seed)

    def images(count: int, first: int) -> dict[str, torch.Tensor]:
        size = (count, 3, IMAGE_SIZE, IMAGE_SIZE)
        return {
            "image": torch.randint(0, 256, size, dtype=torch.uint8, generator=generator),
            "noise": torch.rand(count, NUM_PATCHES, generator=generator),
            "sample_id": torch.arange(first, first + count),
        }

    result: Batch = {}
    if pairs:
        text_index = torch.arange(pairs) % max(1, pairs - pairs // 3)
        unique, tokens = int(text_index.max()) + 1, 7
        lengths = torch.randint(3, tokens + 1, (unique,), generator=generator)
        text_mask = (torch.arange(tokens) < lengths[:, None]).long()
        text_ids = torch.randint(5, VOCABULARY, (unique, tokens), generator=generator) * text_mask
        result["paired"] = {
            **images(pairs, 0),
            "label": text_index.clone(),
            "text_ids": text_ids,
            "text_mask": text_mask,
            "text_index": text_index,
        }
    if unpaired:
        result["unpaired"] = images(unpaired, pairs)
    return result


def share(whole: Batch, rank: int, ranks: int) -> Batch:
    """Cut one rank's equal share out of a global batch, as the loader deals it."""

    def cut(rows: torch.Tensor) -> torch.Tensor:
        return rows.chunk(ranks)[rank]

    result: Batch = {}
    for name, part in whole.items():
        # Texts stay whole: text_index points into them on every rank.
        result[name] = {key: value if key in ("text_ids", "text_mask") else cut(value) for key, value in part.items()}
    return result
