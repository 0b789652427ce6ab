"""The training step as public code puts it together, for comparison; it imports nothing of this project.

MAE's encoder and decoder (all patches embedded for each view, un-shuffled by gathers), a second, whole pass for CLIP,
a padded BERT with a row a pair, open_clip's normalised features and a pairs-by-pairs matrix of logits with a mask of
labels, a teacher that is called set by set, a loop over parameters for its average, and torch's default AdamW. Blocks
and ViT are timm's, the text tower is transformers'. Written from the papers and these libraries' interfaces.

Parameters are named as in maskedclip_composer, so that a state dict loads strictly and losses can be compared.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from timm.layers.attention import Attention
from timm.layers.norm import LayerNorm  # epsilon 1e-6, as in MAE
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from transformers import BertConfig, BertModel

# P0 is what MAE with timm 0.3.2 runs: attention by its formula; P1 what today's timm and transformers do by themselves.
Level = Literal["explicit", "sdpa"]


@dataclass(frozen=True, kw_only=True)
class PeerSizes:
    """Sizes of the peer, each as in the run that it is compared with."""

    encoder: str
    depth: int
    image_size: int
    bridge: int
    pixel: tuple[int, int, int]
    feature_depth: int
    joint_dim: int
    mask_ratio: float


class Stack(nn.Module):
    """timm's blocks and a norm."""

    def __init__(self, dim: int, depth: int, heads: int):
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, heads, qkv_bias=True, norm_layer=LayerNorm) for _ in range(depth))
        self.norm = LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Decoder(nn.Module):
    """MAE's decoder."""

    positions: Tensor

    def __init__(self, in_dim: int, dim: int, depth: int, heads: int, out_dim: int, grid: int):
        super().__init__()
        self.embed = nn.Linear(in_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        positions = torch.cat([torch.zeros(1, dim), build_sincos2d_pos_embed([grid, grid], dim)])
        self.register_buffer("positions", positions[None], persistent=False)
        self.transformer = Stack(dim, depth, heads)
        self.predict = nn.Linear(dim, out_dim)

    def forward(self, latent: Tensor, ids_restore: Tensor) -> Tensor:
        x = self.embed(latent)
        missing = ids_restore.shape[1] + 1 - x.shape[1]
        full = torch.cat([x[:, 1:], self.mask_token.repeat(x.shape[0], missing, 1)], dim=1)
        full = torch.gather(full, 1, ids_restore.unsqueeze(-1).repeat(1, 1, x.shape[2]))
        x = torch.cat([x[:, :1], full], dim=1) + self.positions
        return self.predict(self.transformer(x))[:, 1:]


class Vit(nn.Module):
    """timm's ViT under the name that the other side gives it."""

    def __init__(self, sizes: PeerSizes):
        super().__init__()
        self.vit: Any = timm.create_model(sizes.encoder, num_classes=0, img_size=sizes.image_size, depth=sizes.depth)
        self.vit.pos_embed.requires_grad_(False)  # sine and cosine, as in MAE

    def forward(self, images: Tensor) -> Tensor:
        return self.vit.forward_features(images)

    def masked(self, images: Tensor, noise: Tensor, mask_ratio: float) -> tuple[Tensor, Tensor, Tensor]:
        """Encode the patches of least noise; return them, the mask (1 removed) and how to restore the order."""
        vit = self.vit
        x = vit.patch_embed(images) + vit.pos_embed[:, 1:]
        count, patches, dim = x.shape
        keep = int(patches * (1 - mask_ratio))
        ids_shuffle = torch.argsort(noise, dim=1)
        ids_restore = torch.argsort(ids_shuffle, dim=1)
        x = torch.gather(x, 1, ids_shuffle[:, :keep].unsqueeze(-1).repeat(1, 1, dim))
        mask = torch.ones_like(noise)
        mask[:, :keep] = 0
        mask = torch.gather(mask, 1, ids_restore)
        class_token = (vit.cls_token + vit.pos_embed[:, :1]).expand(count, -1, -1)
        x = torch.cat([class_token, x], dim=1)
        for block in vit.blocks:
            x = block(x)
        return vit.norm(x), mask, ids_restore


class Branch(nn.Module):
    """Encoder and bridge."""

    def __init__(self, sizes: PeerSizes):
        super().__init__()
        self.image_encoder = Vit(sizes)
        vit: Any = self.image_encoder.vit
        self.bridge = Stack(vit.embed_dim, sizes.bridge, vit.blocks[0].attn.num_heads)

    def forward(self, images: Tensor) -> Tensor:
        return self.bridge(self.image_encoder(images))


class Peer(nn.Module):
    """The network; a batch goes in, the three losses come out."""

    def __init__(self, sizes: PeerSizes, text: BertConfig, level: Level):
        super().__init__()
        text._attn_implementation = "eager" if level == "explicit" else "sdpa"
        self.mask_ratio = sizes.mask_ratio
        self.branch, self.teacher = Branch(sizes), Branch(sizes).requires_grad_(False).eval()
        self.text_encoder = nn.ModuleDict({"encoder": BertModel(text, add_pooling_layer=False)})
        vit: Any = self.branch.image_encoder.vit
        dim, heads, grid = vit.embed_dim, vit.blocks[0].attn.num_heads, vit.patch_embed.grid_size[0]
        width, blocks, pixel_heads = sizes.pixel
        clip: Any = nn.Module()
        clip.image_projection = nn.Linear(dim, sizes.joint_dim, bias=False)
        clip.text_projection = nn.Linear(text.hidden_size, sizes.joint_dim, bias=False)
        clip.log_logit_scale = nn.Parameter(torch.full((1,), math.log(1 / 0.07)))
        self.objectives = nn.ModuleDict(
            {
                "mim": nn.ModuleDict({"pixel_decoder": Decoder(dim, width, blocks, pixel_heads, 768, grid)}),
                "lg_clip": clip,
                "mfd": nn.ModuleDict({"feature_decoder": Decoder(dim, dim, sizes.feature_depth, heads, dim, grid)}),
            }
        )
        for module in self.modules():
            if isinstance(module, Attention):
                module.fused_attn = level == "sdpa"

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return `mim`, `lg_clip`, `mfd` and their weighted sum `total`.

        Args:
            batch: `paired` and `unpaired` float images, normalised by the loader, `noise` of both, paired first, and
                of the paired `text_ids`, `text_mask` [pairs, tokens] and `label`.
        """
        images = torch.cat([batch["paired"], batch["unpaired"]])
        encoder = self.branch.image_encoder
        heads: Any = self.objectives
        latent, mask, ids_restore = encoder.masked(images, batch["noise"], self.mask_ratio)
        pixels = heads["mim"]["pixel_decoder"](latent, ids_restore)
        losses = {"mim": masked_mse(pixels, images, mask), "lg_clip": self.contrast(batch)}
        predicted = heads["mfd"]["feature_decoder"](latent, ids_restore)
        with torch.no_grad():
            targets = torch.cat([self.teacher(batch[part])[:, 1:] for part in ("paired", "unpaired")])
        losses["mfd"] = -F.cosine_similarity(predicted, targets, dim=-1).mean()
        return {"total": losses["mim"] + 0.01 * losses["lg_clip"] + 0.01 * losses["mfd"]} | losses

    def contrast(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of all pairs with all pairs, positives by label."""
        head: Any = self.objectives["lg_clip"]
        patches = self.branch(batch["paired"])[:, 1:]
        image_features = F.normalize(head.image_projection(patches.mean(dim=1)), dim=-1)
        text_mask = batch["text_mask"]
        bert = self.text_encoder["encoder"]
        tokens = bert(input_ids=batch["text_ids"], attention_mask=text_mask).last_hidden_state
        weights = text_mask.unsqueeze(-1).to(tokens.dtype)
        text_features = F.normalize(head.text_projection((tokens * weights).sum(1) / weights.sum(1)), dim=-1)
        logits = head.log_logit_scale.exp() * image_features @ text_features.T
        positives = (batch["label"][:, None] == batch["label"][None, :]).to(logits.dtype)
        positives = positives / positives.sum(dim=1, keepdim=True)
        return (F.cross_entropy(logits, positives) + F.cross_entropy(logits.T, positives)) / 2

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Average parameter by parameter."""
        for old, new in zip(self.teacher.parameters(), self.branch.parameters(), strict=True):
            old.mul_(momentum).add_(new, alpha=1 - momentum)


def masked_mse(prediction: Tensor, images: Tensor, mask: Tensor) -> Tensor:
    """Return the mean squared error of the removed patches, over all patches' errors, as MAE computes it."""
    count, _, height, width = images.shape
    target = images.reshape(count, 3, height // 16, 16, width // 16, 16)
    target = torch.einsum("nchpwq->nhwpqc", target).reshape(count, -1, 768)
    error = ((prediction - target) ** 2).mean(dim=-1)
    return (error * mask).sum() / mask.sum()


def default_adamw(peer: Peer, lr: float, weight_decay: float, betas: tuple[float, float]) -> torch.optim.AdamW:
    """Build AdamW as MAE does: no decay for vectors, everything else as torch has it by itself."""
    trained = [parameter for parameter in peer.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=betas)
