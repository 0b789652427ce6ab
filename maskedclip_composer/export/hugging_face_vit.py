"""timm's ViT as a model of transformers: the same network under other names."""

import re
from typing import Any

import torch
from timm.layers.mlp import Mlp
from timm.models import VisionTransformer
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from maskedclip_composer.export.exact import load_exactly

# timm's names and those of transformers 4.53; `qkv` is taken apart before.
_BOTH = (
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^norm\.", "layernorm."),
    (r"^blocks\.(\d+)\.attn\.(query|key|value)\.", r"encoder.layer.\1.attention.attention.\2."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layer.\1.attention.output.dense."),
)
_VIT = (
    (r"^blocks\.(\d+)\.norm1\.", r"encoder.layer.\1.layernorm_before."),
    (r"^blocks\.(\d+)\.norm2\.", r"encoder.layer.\1.layernorm_after."),
    (r"^blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layer.\1.intermediate.dense."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layer.\1.output.dense."),
)
_DINOV2 = (
    (r"^blocks\.(\d+)\.ls(1|2)\.gamma$", r"encoder.layer.\1.layer_scale\2.lambda1"),
    (r"^blocks\.(\d+)\.", r"encoder.layer.\1."),
)


def why_not(vit: VisionTransformer) -> str | None:
    """Say what `vit` has that neither ViTModel nor Dinov2Model has; None where it can be one of them."""
    block: Any = vit.blocks[0]
    parts = {
        "a norm before the blocks": vit.norm_pre,
        "a norm of the patches": vit.patch_embed.norm,
        "a norm of queries": block.attn.q_norm,
        "a norm in the attention": block.attn.norm,
        "a norm in the MLP": getattr(block.mlp, "norm", nn.Identity()),
    }
    found = [what for what, part in parts.items() if not isinstance(part, nn.Identity)]
    if type(block.mlp) is not Mlp or not isinstance(block.mlp.act, nn.GELU) or block.mlp.act.approximate != "none":
        found.append("another MLP")
    if len({norm.eps for norm in (vit.norm, block.norm1, block.norm2)}) != 1:
        found.append("norms of several epsilons")
    if vit.patch_embed.proj.bias is None:
        found.append("an embedding without a bias")
    return ", ".join(found) or None


def to_hugging_face(vit: VisionTransformer, image_size: int) -> ViTModel | Dinov2Model:
    """Build a model of transformers that computes what `vit` does.

    Args:
        vit: Of which `why_not` says nothing.
        image_size: Side of the input in pixels.

    Returns:
        A Dinov2Model where `vit` has LayerScale, else a ViTModel without a pooler.
    """
    block: Any = vit.blocks[0]
    settings = {
        "hidden_size": vit.embed_dim,
        "num_hidden_layers": len(vit.blocks),
        "num_attention_heads": block.attn.num_heads,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": block.norm1.eps,
        "image_size": image_size,
        "patch_size": int(vit.patch_embed.patch_size[0]),
        "qkv_bias": block.attn.qkv.bias is not None,
    }
    hidden = block.mlp.fc1.out_features
    if isinstance(block.ls1, nn.Identity):
        model = ViTModel(ViTConfig(**settings, intermediate_size=hidden), add_pooling_layer=False)
        names = (*_BOTH, *_VIT)
    else:
        model = Dinov2Model(Dinov2Config(**settings, mlp_ratio=hidden / vit.embed_dim, use_mask_token=False))
        names = (*_BOTH, *_DINOV2)
    weights = {_renamed(name, names): value for name, value in _split(vit.state_dict()).items()}
    load_exactly(model, weights, source="the encoder", architecture=f"a {type(model).__name__} of transformers")
    return model.eval()


def _split(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take queries, keys and values apart."""
    result = {}
    for name, value in weights.items():
        if ".qkv." in name:
            for part, rows in zip(("query", "key", "value"), torch.chunk(value, 3), strict=True):
                result[name.replace("qkv", part)] = rows
        else:
            result[name] = value
    return result


def _renamed(name: str, names: tuple[tuple[str, str], ...]) -> str:
    for old, new in names:
        if re.match(old, name):
            return re.sub(old, new, name)
    return name
