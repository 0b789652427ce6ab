"""A step with several crops of each image, and a network of dinov2 alone, small enough for milliseconds."""

import torch

from maskedclip_composer.models.branch import BridgeConfig, ImageBranch
from maskedclip_composer.models.pretrain import PretrainNet
from maskedclip_composer.objectives.base import Parts
from maskedclip_composer.objectives.dinov2 import Dinov2Config
from maskedclip_composer.types import Batch
from tests import tiny

LOCAL_SIZE, LOCAL_COUNT, PROTOTYPES = 16, 3, 24


def config(**overrides) -> Dinov2Config:
    sizes = {"prototypes": PROTOTYPES, "hidden_dim": 32, "bottleneck_dim": 16, "freeze_prototypes": 0.0}
    return Dinov2Config(**(sizes | overrides))


def net(**overrides) -> PretrainNet:
    torch.manual_seed(0)
    encoder = tiny.image_encoder()
    branch = ImageBranch(encoder, BridgeConfig(depth=0), "auto")
    objective = config(**overrides).build(Parts(image_encoder=encoder))
    return PretrainNet(branch, None, {"dinov2": objective}, mask_ratio=0.75, with_teacher=True)


def batch(pairs: int, unpaired: int, seed: int = 0) -> Batch:
    """Make a step's batch; the first image of each part has masks of 5 and 2 patches, the others have none."""
    whole, generator = tiny.batch(pairs, unpaired, seed), torch.Generator().manual_seed(seed)
    for part in whole.values():
        count = len(part["image"])
        large, small = (count, 1, 3, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE), (count, LOCAL_COUNT, 3, LOCAL_SIZE, LOCAL_SIZE)
        part["global_crops"] = torch.randint(0, 256, large, dtype=torch.uint8, generator=generator)
        part["local_crops"] = torch.randint(0, 256, small, dtype=torch.uint8, generator=generator)
        part["block_mask"] = torch.zeros(count, 2, tiny.NUM_PATCHES, dtype=torch.bool)
        part["block_mask"][0, 0, 3:8] = True
        part["block_mask"][0, 1, 9:11] = True
    return whole
