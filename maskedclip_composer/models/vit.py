"""The image encoder E_I: a timm ViT that can encode the visible patches alone."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import VisionTransformer
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from maskedclip_composer.errors import UserError
from maskedclip_composer.models.attention import AttentionBackend, Packing, SelfAttention, use_backend
from maskedclip_composer.models.block import TokenBlock, run_block
from maskedclip_composer.models.masking import gather_tokens
from maskedclip_composer.models.precision import in_autocast_dtype
from maskedclip_composer.models.transformer import initialise, sincos_positions

IMAGE_MEAN = IMAGENET_DEFAULT_MEAN
IMAGE_STD = IMAGENET_DEFAULT_STD


@dataclass(frozen=True, kw_only=True)
class ImageEncoderConfig:
    """The image encoder E_I.

    Attributes:
        name: A timm VisionTransformer with class token, for example vit_tiny_patch16_224; the size in the name is
            overridden by `data.image_size`.
        patch_size: Side of a patch in pixels; null takes the model's own.
        depth: Number of blocks, for models smaller than timm names; null takes the model's own.
        pretrained: Start from timm's weights for `name` (they are fetched by timm), otherwise from MAE's
            initialisation with fixed sine-cosine positions.
        weights: Start from the weights of this source, which must be of the architecture that the keys above describe:
            a run folder, an encoder .safetensors, retfound:FILE, mae:FILE, dinov2:FILE, timm:NAME@FILE and what else
            `evaluate.py` reads as a ViT (docs/recipes.md). Positions are resampled to `data.image_size`.
        attention: auto, xformers, xformers_varlen, sdpa or explicit (`models/attention.py`).
    """

    name: str = "vit_large_patch16_224"
    patch_size: int | None = None
    depth: int | None = None
    pretrained: bool = False
    weights: str | None = None
    attention: AttentionBackend = "auto"

    def __post_init__(self):
        for key in ("patch_size", "depth"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise UserError(f"image_encoder.{key}={value} is not positive.\nLeave it out for the model's own.")
        if self.pretrained and self.weights is not None:
            raise UserError(
                f"image_encoder.weights={self.weights} and image_encoder.pretrained=true both say where to start.\n"
                "Remove one of the two; timm:NAME is a source of weights, too."
            )
        if self.pretrained and self.depth is not None:
            raise UserError(
                f"image_encoder.depth={self.depth} does not fit image_encoder.pretrained=true: the weights of "
                f"{self.name} have its own depth.\nRemove one of the two."
            )


class ImageEncoder(nn.Module):
    """E_I of MaskedCLIP: patch embedding, positions, class token, blocks, final norm.

    `vit` keeps timm's parameter names, so its state dict loads strictly into `timm.create_model(name, num_classes=0)`.
    Images are normalised by `image_mean` and `image_std` (per channel, for values of 0 to 1) before they enter.
    `residual` as in `models/residual.py`.
    """

    residual: Literal["float32", "autocast"] = "float32"

    def __init__(
        self,
        vit: VisionTransformer,
        image_mean: tuple[float, ...] = IMAGE_MEAN,
        image_std: tuple[float, ...] = IMAGE_STD,
    ):
        super().__init__()
        self.vit = vit
        self.embed_dim: int = vit.embed_dim
        self.grid: tuple[int, int] = vit.patch_embed.grid_size
        self.patch_size: int = vit.patch_embed.patch_size[0]
        self.num_heads = first_attention(vit).num_heads
        self.image_mean, self.image_std = image_mean, image_std

    def forward(
        self,
        images: Tensor,
        ids_keep: Tensor | None = None,
        *,
        also_whole: int = 0,
        block_mask: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Tensor:
        """Encode whole images, or the patches at `ids_keep` alone, or all with some replaced by a mask token.

        With `also_whole` the visible patches of all images and the first whole images go through the blocks in one
        pass, packed: every linear layer sees all rows at once, and FSDP brings its weights together once.

        Args:
            images: [images, 3, height, width], normalised; of another size than the encoder's, positions are
                interpolated.
            ids_keep: [images, kept] positions of the visible patches; None encodes all.
            also_whole: With `ids_keep`: encode so many of the first images whole, too.
            block_mask: [images, patches] bool, True where `mask_token` stands for the patch (iBOT).
            mask_token: [1, 1, embed_dim], given with `block_mask`.

        Returns:
            Tokens after the final norm, [images, 1 + patches or kept, embed_dim]; the class token is first. With
            `also_whole` those of the visible patches and after them those of the whole images, both flattened to
            [rows, embed_dim] (`unpack`).
        """
        vit = self.vit
        patches, positions = self._embed(images)
        if block_mask is not None:
            assert mask_token is not None
            patches = torch.where(block_mask[:, :, None], mask_token.to(patches.dtype), patches)
        # Positions are added before patches are dropped, so that a visible patch knows where it is.
        whole = patches + positions
        tokens = self._begin(whole if ids_keep is None else gather_tokens(whole, ids_keep))
        packing = None
        if also_whole:
            assert ids_keep is not None
            packed = tokens, self._begin(whole[:also_whole])
            packing = cast(Packing, tuple(tuple(group.shape[:2]) for group in packed))
            tokens = torch.cat([group.flatten(0, 1) for group in packed])
        for block in vit.blocks:
            assert isinstance(block, TokenBlock)
            tokens = run_block(block, tokens, packing)
        return vit.norm(tokens)

    def unpack(self, packed: Tensor, images: int, also_whole: int) -> tuple[Tensor, Tensor]:
        """Return tokens of visible patches and of whole images, as `forward` packs them, for images of `grid`."""
        tokens = 1 + self.grid[0] * self.grid[1]
        visible, whole = packed.split([len(packed) - also_whole * tokens, also_whole * tokens])
        return visible.unflatten(0, (images, -1)), whole.unflatten(0, (also_whole, tokens))

    def _begin(self, patches: Tensor) -> Tensor:
        """Put the class token before embedded patches that have their positions."""
        vit = self.vit
        assert vit.pos_embed is not None
        assert vit.cls_token is not None
        class_token = (vit.cls_token + vit.pos_embed[:, :1]).expand(patches.shape[0], -1, -1)
        tokens = vit.norm_pre(torch.cat([class_token.to(patches.dtype), patches], dim=1))
        return in_autocast_dtype(tokens) if self.residual == "autocast" else tokens

    def _embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the patches' embeddings [images, patches, embed_dim] and positions [1, patches, embed_dim]."""
        vit = self.vit
        assert vit.pos_embed is not None
        if images.shape[-2] % self.patch_size or images.shape[-1] % self.patch_size:
            raise ValueError(f"images of {tuple(images.shape[-2:])} pixels have no whole patches of {self.patch_size}")
        grid = images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size
        if grid == tuple(self.grid):
            return vit.patch_embed(images), vit.pos_embed[:, 1:]
        # timm's module refuses other sizes by itself: its strictness is for whole models with one table of positions.
        patches = vit.patch_embed.norm(vit.patch_embed.proj(images).flatten(2).transpose(1, 2))
        # torch.fx.wrap gives timm's function a type that may be a name.
        resample = cast(Callable[..., Tensor], resample_abs_pos_embed)
        return patches, resample(vit.pos_embed, list(grid), list(self.grid), num_prefix_tokens=1)[:, 1:]


def build_image_encoder(config: ImageEncoderConfig, image_size: int) -> ImageEncoder:
    """Build the encoder for `image_size` pixels; `config.weights` are not for here (`initial_weights.py`).

    Raises:
        UserError: The model is unknown, is no ViT with a class token, or does not fit the image size.
    """
    assert config.weights is None
    vit = build_vit(config.name, image_size, config.patch_size, config.depth, pretrained=config.pretrained)
    use_backend(vit, config.attention)
    if config.pretrained:  # these weights know images as they were normalised for them
        published = cast(dict[str, Any], vit.pretrained_cfg)
        return ImageEncoder(vit, tuple(published["mean"]), tuple(published["std"]))
    initialise(vit)
    weight = vit.patch_embed.proj.weight.data
    nn.init.xavier_uniform_(weight.view(weight.shape[0], -1))
    assert vit.cls_token is not None
    nn.init.normal_(vit.cls_token, std=0.02)
    vit.pos_embed = nn.Parameter(sincos_positions(vit.patch_embed.grid_size, vit.embed_dim), requires_grad=False)
    return ImageEncoder(vit)


def build_vit(
    name: str, image_size: int, patch_size: int | None = None, depth: int | None = None, *, pretrained: bool = False
) -> VisionTransformer:
    """Create a timm ViT without a head, with `SelfAttention` in its blocks.

    Raises:
        UserError: As in `build_image_encoder`.
    """
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models("*vit*"), n=3, cutoff=0.3)
        raise UserError(
            f"image_encoder.name={name} is no timm model.\n"
            f"Close names: {', '.join(close)}; all: timm.list_models('vit*')."
        )
    try:
        with torch.device("meta"):  # the architecture alone, to check it before weights are made or fetched
            probe = timm.create_model(name)
    except RuntimeError as error:  # a known model, but not the tag after its dot
        raise UserError(
            f"image_encoder.name={name}: {error}\nSee timm.list_pretrained('{name.split('.')[0]}*')."
        ) from error
    if (
        not isinstance(probe, VisionTransformer)
        or (probe.cls_token is None or probe.num_prefix_tokens != 1 or probe.no_embed_class)
        or type(probe.patch_embed) is not PatchEmbed  # behind a convolutional stem, visible patches see removed ones
        or type(probe.blocks[0]) is not Block
        or isinstance(probe.norm, nn.Identity)  # timm then normalises after pooling: tokens would stay as they are
    ):
        raise UserError(
            f"image_encoder.name={name} is no ViT with a class token and its position, which the decoders rely on.\n"
            "Use a plain ViT such as vit_base_patch16_224."
        )
    patch = patch_size or int(probe.patch_embed.patch_size[0])
    if image_size % patch:
        raise UserError(
            f"data.image_size={image_size} is not divisible by the patch size {patch} of image_encoder.name={name}.\n"
            f"Use {max(1, image_size // patch) * patch} or {(image_size // patch + 1) * patch}, or set "
            "image_encoder.patch_size."
        )
    try:
        vit = timm.create_model(
            name,
            pretrained=pretrained,
            num_classes=0,
            img_size=image_size,
            patch_size=patch,
            depth=depth or len(probe.blocks),
            block_fn=TokenBlock,
            attn_layer=SelfAttention,
            dynamic_img_size=False,  # positions belong to this size: one path, and timm's own parameter shapes
        )
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise UserError(
            f"image_encoder.pretrained=true, but timm could not load weights for {name}: {error}\n"
            "Check the name's weight tag and the network, or set image_encoder.pretrained=false."
        ) from error
    assert isinstance(vit, VisionTransformer)
    return vit


def first_attention(vit: VisionTransformer) -> SelfAttention:
    """Return the attention of the first block, which tells the number of heads."""
    attention = vit.blocks[0].attn
    assert isinstance(attention, SelfAttention)
    return attention
