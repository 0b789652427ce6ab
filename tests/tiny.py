"""Every part of MaskedCLIP at a size that trains in milliseconds."""

import string
import tempfile
from functools import cache
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from maskedclip_composer.compute import ComputeConfig
from maskedclip_composer.models.branch import BridgeConfig, ImageBranch
from maskedclip_composer.models.pretrain import PretrainNet
from maskedclip_composer.models.text import TextEncoder
from maskedclip_composer.models.vit import ImageEncoder, ImageEncoderConfig, build_image_encoder
from maskedclip_composer.objectives.att_mim import AttMimConfig
from maskedclip_composer.objectives.base import Objective, ObjectiveConfig, Parts, reads_both_views
from maskedclip_composer.objectives.dinov2 import Dinov2Config
from maskedclip_composer.objectives.ent_mlm import EntMlmConfig
from maskedclip_composer.objectives.integrity_clip import IntegrityClipConfig
from maskedclip_composer.objectives.lg_clip import LgClipConfig
from maskedclip_composer.objectives.mfd import MfdConfig
from maskedclip_composer.objectives.mim import MimConfig
from maskedclip_composer.objectives.patch_sentence import PatchSentenceConfig
from maskedclip_composer.types import Batch

IMAGE_SIZE, PATCH_SIZE, NUM_PATCHES = 32, 8, 16
TEXT_DIM, VOCABULARY = 32, 60
LOCAL_SIZE = 16

OBJECTIVES: dict[str, ObjectiveConfig] = {
    "mim": MimConfig(dim=32, depth=1, num_heads=2),
    "lg_clip": LgClipConfig(embed_dim=16),
    "mfd": MfdConfig(dim=32, depth=1, num_heads=2),
    "att_mim": AttMimConfig(dim=32, depth=1, num_heads=2),
    "ent_mlm": EntMlmConfig(dim=32, depth=1, num_heads=2),
    "integrity_clip": IntegrityClipConfig(embed_dim=16),
    "patch_sentence": PatchSentenceConfig(embed_dim=16),
    "dinov2": Dinov2Config(prototypes=24, hidden_dim=32, bottleneck_dim=16, freeze_prototypes=0.0),
}
# Objectives and bridge depth of the recipes of the ablation.
RECIPES: dict[str, tuple[tuple[str, ...], int]] = {
    "mae": (("mim",), 0),
    "clip": (("lg_clip",), 0),
    "mae+clip": (("mim", "lg_clip"), 0),
    "+bridge": (("mim", "lg_clip"), 1),
    "maskedclip": (("mim", "lg_clip", "mfd"), 1),
    "mmclip": (("lg_clip", "att_mim", "ent_mlm"), 0),
    "mlip": (("mim", "integrity_clip", "patch_sentence"), 0),
    "dinov2": (("dinov2",), 0),
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


@cache
def tokenizer() -> BertTokenizerFast:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase, "fundus", "photograph", "glaucoma"]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.txt").write_text("\n".join(words))
        return BertTokenizerFast(vocab_file=f"{folder}/vocab.txt")


def save_text_tower(folder: Path) -> Path:
    torch.manual_seed(3)
    bert().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def net(
    recipe: str = "maskedclip", *, bridge_depth: int | None = None, seed: int = 0, compute: ComputeConfig | None = None
) -> PretrainNet:
    """Build the network of a recipe. Modules that two recipes share have the same weights for the same seed."""
    compute = compute or ComputeConfig()
    names, depth = RECIPES[recipe]
    depth = depth if bridge_depth is None else bridge_depth

    def seeded(part: int) -> None:
        torch.manual_seed(100 * seed + part)

    seeded(0)
    encoder = image_encoder()
    seeded(1)
    branch = ImageBranch(encoder, BridgeConfig(depth=depth), "auto")
    seeded(2)
    reads_texts = any("paired" in OBJECTIVES[name].needs for name in names)
    text_encoder = TextEncoder(bert(), [-1]) if reads_texts else None
    parts = Parts(
        image_encoder=encoder,
        text_encoder=text_encoder,
        tokenizer=tokenizer(),
        categories=("glaucoma", "a b", "c"),
        compute=compute,
    )
    objectives: dict[str, Objective] = {}
    for part, (name, config) in enumerate(OBJECTIVES.items(), start=3):
        if name in names:
            seeded(part)
            objectives[name] = config.build(parts)
    with_teacher = any(OBJECTIVES[name].needs_teacher for name in names)
    return PretrainNet(
        branch,
        text_encoder,
        objectives,
        mask_ratio=0.75,
        with_teacher=with_teacher,
        packed=compute.packed and reads_both_views(OBJECTIVES[name] for name in names),
        chunk_size=compute.chunk_size,
    )


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

    def crops(count: int) -> dict[str, torch.Tensor]:
        """Half of the global views have no hidden patch."""
        small = (count, 3, 3, LOCAL_SIZE, LOCAL_SIZE)
        hidden = torch.rand(count, 2, NUM_PATCHES, generator=generator) < 0.3
        hidden[::2, 1] = False
        return {
            "global_crops": torch.randint(
                0, 256, (count, 1, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8, generator=generator
            ),
            "local_crops": torch.randint(0, 256, small, dtype=torch.uint8, generator=generator),
            "block_mask": hidden,
        }

    def units(text_ids: torch.Tensor, text_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Begin and end are special; words have two tokens, every third an entity; sentences have three tokens."""
        place = torch.arange(text_ids.shape[1]).expand_as(text_ids)
        special = (place == 0) | (place >= text_mask.sum(dim=1, keepdim=True) - 1)
        word = ((place - 1) // 2).masked_fill(special, -1)
        return {
            "text_word": word,
            "text_entity": word.masked_fill(word % 3 != 0, -1),
            "text_sentence": ((place - 1) // 3).masked_fill(special, -1),
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
            **units(text_ids, text_mask),
            "text_noise": torch.rand(pairs, tokens, generator=generator),
            **crops(pairs),
        }
    if unpaired:
        result["unpaired"] = {**images(unpaired, pairs), **crops(unpaired)}
    return result


def share(whole: Batch, rank: int, ranks: int) -> Batch:
    """Cut one rank's equal share out of a global batch, as the loader deals it."""

    def cut(rows: torch.Tensor) -> torch.Tensor:
        return rows.chunk(ranks)[rank]

    result: Batch = {}
    for name, part in whole.items():
        # Texts stay whole: text_index points into them on every rank.
        of_texts = ("text_ids", "text_mask", "text_word", "text_entity", "text_sentence")
        result[name] = {key: value if key in of_texts else cut(value) for key, value in part.items()}
    return result
