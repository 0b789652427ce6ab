"""MMCLIP's objectives and their batch at the size of `tests/tiny.py`."""

import torch
from transformers import BertTokenizerFast

from maskedclip_composer.models.branch import BridgeConfig, ImageBranch
from maskedclip_composer.models.pretrain import PretrainNet
from maskedclip_composer.models.text import TextEncoder
from maskedclip_composer.objectives.base import ObjectiveConfig, Parts
from tests import tiny

CLS, SEP = 2, 3
DISEASES = ("glaucoma", "fundus")


def parts(tokenizer: BertTokenizerFast, seed: int = 0) -> Parts:
    torch.manual_seed(seed)
    return Parts(
        image_encoder=tiny.image_encoder(),
        text_encoder=TextEncoder(tiny.bert(), [-1]),
        tokenizer=tokenizer,
        categories=DISEASES,
    )


def net(tokenizer: BertTokenizerFast, *configs: ObjectiveConfig) -> PretrainNet:
    built = parts(tokenizer)
    objectives = {config.key: config.build(built) for config in configs}
    branch = ImageBranch(built.image_encoder, BridgeConfig(depth=0), "auto")
    return PretrainNet(branch, built.text_encoder, objectives, mask_ratio=0.75, with_teacher=False)


def batch(pairs: int = 4, unpaired: int = 4, *, with_entities: bool = True, seed: int = 0):
    """Make a batch whose texts are [CLS], words of one token but the last of two, [SEP]; the first word is an entity.

    Its draws hide the entity of every second pair.
    """
    made = tiny.batch(pairs, unpaired, seed)
    if not pairs:
        return made
    part = made["paired"]
    ids, mask = part["text_ids"], part["text_mask"]
    lengths = mask.sum(dim=1)
    ids[:, 0] = CLS
    ids[torch.arange(len(ids)), lengths - 1] = SEP
    positions = torch.arange(ids.shape[1])
    inner = (positions > 0) & (positions < lengths[:, None] - 1)
    part["text_word"] = torch.where(inner, (positions - 1).minimum((lengths[:, None] - 4).clamp(min=0)), -1)
    part["text_entity"] = torch.where(inner & (part["text_word"] == 0) & with_entities, 0, -1)
    part["text_noise"] = torch.where(torch.arange(pairs) % 2 == 0, 0.2, 0.9)[:, None].repeat(1, ids.shape[1])
    return made


def share(whole, rank: int, ranks: int):
    """Cut one rank's share out of a global batch; what belongs to texts stays whole, as in `tiny.share`."""
    shares = tiny.share(whole, rank, ranks)
    return {
        name: part | {key: whole[name][key] for key in ("text_word", "text_entity") if key in part}
        for name, part in shares.items()
    }
