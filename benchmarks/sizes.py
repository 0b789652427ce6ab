"""The network and the batch that benchmarks measure, at three sizes, built without a yaml, a tokenizer or shards."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from maskedclip_composer.compute import ComputeConfig
from maskedclip_composer.models.attention import AttentionBackend, use_backend
from maskedclip_composer.models.branch import BridgeConfig, ImageBranch
from maskedclip_composer.models.pretrain import MaskedCLIP, PretrainNet
from maskedclip_composer.models.recompute import set_activation
from maskedclip_composer.models.residual import use_residual
from maskedclip_composer.models.text import TextEncoder
from maskedclip_composer.models.vit import ImageEncoderConfig, build_image_encoder
from maskedclip_composer.objectives.base import Objective, Parts
from maskedclip_composer.objectives.lg_clip import LgClipConfig
from maskedclip_composer.objectives.mfd import MfdConfig
from maskedclip_composer.objectives.mim import MimConfig
from maskedclip_composer.types import Batch

MASK_RATIO = 0.75
TEXT_TOKENS = range(9, 25)  # lengths of a prompt with its two special tokens
PLAIN = ComputeConfig(
    packed=False,
    masked_only=False,
    distinct_texts=False,
    distinct_logits=False,
    fused_optimizer=False,
    compile="none",
)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Widths and depths of MaskedCLIP; the decoders have heads of 32 or 64, the text tower of 64."""

    encoder: str
    depth: int
    image_size: int
    bridge: int
    pixel: tuple[int, int, int]  # width, blocks and heads of the pixel decoder
    feature_depth: int  # the feature decoder has the encoder's width
    text: tuple[int, int, int]  # width, layers and heads of the text tower
    words: int

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return (self.image_size // 16) ** 2


SIZES = {
    "tiny": Sizes(
        encoder="vit_tiny_patch16_224",
        depth=2,
        image_size=64,
        bridge=1,
        pixel=(48, 1, 3),
        feature_depth=1,
        text=(64, 1, 2),
        words=1000,
    ),
    "bench-ti": Sizes(
        encoder="vit_tiny_patch16_224",
        depth=12,
        image_size=224,
        bridge=4,
        pixel=(96, 12, 3),
        feature_depth=4,
        text=(192, 4, 3),
        words=30000,
    ),
    "paper": Sizes(
        encoder="vit_large_patch16_224",
        depth=24,
        image_size=224,
        bridge=4,
        pixel=(384, 12, 6),
        feature_depth=4,
        text=(768, 12, 12),
        words=28996,
    ),
}


def text_settings(sizes: Sizes) -> BertConfig:
    """Describe the text tower; without dropout, or equal texts would differ in the peer."""
    width, layers, heads = sizes.text
    return BertConfig(
        vocab_size=sizes.words,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def build_network(sizes: Sizes, compute: ComputeConfig, attention: AttentionBackend = "sdpa") -> MaskedCLIP:
    """Build MaskedCLIP with its three objectives, as `build.build_model` does, from sizes alone."""
    config = ImageEncoderConfig(name=sizes.encoder, depth=sizes.depth, attention=attention)
    encoder = build_image_encoder(config, sizes.image_size)
    text_encoder = TextEncoder(BertModel(text_settings(sizes), add_pooling_layer=False), [-1])
    parts = Parts(image_encoder=encoder, text_encoder=text_encoder, compute=compute)
    width, blocks, heads = sizes.pixel
    configs = (
        MimConfig(dim=width, depth=blocks, num_heads=heads),
        LgClipConfig(),
        MfdConfig(depth=sizes.feature_depth),
    )
    branch = ImageBranch(encoder, BridgeConfig(depth=sizes.bridge), config.attention)
    objectives: dict[str, Objective] = {config.key: config.build(parts) for config in configs}
    for objective in objectives.values():
        use_backend(objective, attention)
    net = PretrainNet(
        branch,
        text_encoder,
        objectives,
        mask_ratio=MASK_RATIO,
        with_teacher=True,
        packed=compute.packed,
        chunk_size=compute.chunk_size,
    )
    set_activation(net, compute.activation)
    use_residual(net, compute.residual)
    return MaskedCLIP(net)


def make_batch(sizes: Sizes, pairs: int, texts: int, *, max_tokens: int | None = None, seed: int = 1) -> Batch:
    """Draw `pairs` paired and as many unpaired images, and texts of which `texts` differ.

    Three texts share a label. With `max_tokens` the batch has a row a pair padded to so many tokens, as the loader
    makes it with `compute.distinct_texts=false`; otherwise each text once, padded to a multiple of 8.
    """
    generator = torch.Generator().manual_seed(seed)
    texts = min(texts, pairs)

    def images(first: int) -> dict[str, Tensor]:
        shape = (pairs, 3, sizes.image_size, sizes.image_size)
        return {
            "image": torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8),
            "noise": torch.rand(pairs, sizes.patches, generator=generator),
            "sample_id": torch.arange(first, first + pairs),
        }

    lengths = torch.randint(TEXT_TOKENS.start, TEXT_TOKENS.stop, (texts,), generator=generator)
    longest = max_tokens or -(-int(lengths.max()) // 8) * 8
    mask = (torch.arange(longest) < lengths[:, None]).long()
    # Drawn to the longest length, so that the same seed gives the same words for every padding.
    words = torch.randint(5, sizes.words, (texts, TEXT_TOKENS.stop), generator=generator)
    ids = torch.nn.functional.pad(words, (0, max(0, longest - words.shape[1])))[:, :longest] * mask
    index = torch.cat([torch.arange(texts), torch.randint(0, texts, (pairs - texts,), generator=generator)])
    label = index // 3
    if max_tokens is not None:
        ids, mask, index = ids[index], mask[index], torch.arange(pairs)
    part = images(0) | {"label": label, "text_ids": ids, "text_mask": mask, "text_index": index}
    batch: Any = {"paired": part, "unpaired": images(pairs)}
    return batch


def typical_texts(pairs: int) -> int:
    """Return how many different texts so many pairs of the paper's mix have on average: 2 of 4, 19 of 180.

    A power law through those two, which were counted from the class sizes of EyePACS, AIROGS and ODIR; from 2 to 360
    pairs it is within one text and a tenth of the count.
    """
    return min(pairs, round(2.12 * (pairs / 4) ** 0.576))
