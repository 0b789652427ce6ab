"""MLIP's objectives and their batch at the size of `tests/tiny.py`."""

import torch

from maskedclip_composer.models.branch import BridgeConfig, ImageBranch
from maskedclip_composer.models.pretrain import MaskedCLIP, PretrainNet
from maskedclip_composer.models.text import TextEncoder
from maskedclip_composer.objectives.base import ObjectiveConfig, Parts
from maskedclip_composer.types import Batch
from tests import tiny

# Sentences of the texts of `batch` by token; the first and the last token of each are special.
SENTENCES = [[-1, 0, 0, 1, 1, 2, -1], [-1, 0, 0, 0, -1, -1, -1], [-1, 0, 1, 1, 1, -1, -1]]


def net(*configs: ObjectiveConfig, bridge_depth: int = 0, seed: int = 0) -> PretrainNet:
    torch.manual_seed(seed)
    encoder, text_encoder = tiny.image_encoder(), TextEncoder(tiny.bert(), [-1])
    branch = ImageBranch(encoder, BridgeConfig(depth=bridge_depth), "auto")
    parts = Parts(image_encoder=encoder, text_encoder=text_encoder)
    objectives = {config.key: config.build(parts) for config in configs}
    return PretrainNet(branch, text_encoder, objectives, mask_ratio=0.5, with_teacher=False)


def batch(pairs: int = 4, unpaired: int = 0, seed: int = 0) -> Batch:
    """Make a batch of up to four pairs, of which the last shares its text with the first."""
    made = tiny.batch(pairs, unpaired, seed)
    part = made["paired"]
    part["text_sentence"] = torch.tensor(SENTENCES[: len(part["text_ids"])])
    ends = (part["text_sentence"] >= 0).int().cumsum(dim=1).argmax(dim=1) + 1
    part["text_mask"] = (torch.arange(7) <= ends[:, None]).long()
    part["text_ids"] = (part["text_ids"] + (part["text_ids"] == 0) * 5) * part["text_mask"]
    return made


def reached(net: PretrainNet, batch: Batch, loss: str = "total") -> set[str]:
    """Return the names of the parameters that `loss` has a gradient other than zero for."""
    net.zero_grad(set_to_none=True)
    model = MaskedCLIP(net)
    model.loss(model(batch), batch)[loss].backward()
    return {name for name, p in net.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}
