"""A trained model in use: the image encoder, with its bridge and its text encoder where pre-training had them."""

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from maskedclip_composer.errors import UserError
from maskedclip_composer.models.branch import ImageBranch
from maskedclip_composer.models.text import TextEncoder
from maskedclip_composer.objectives.two_tower import TwoTower


class DualTower(nn.Module):
    """E_I, B and E_T with the heads of the joint space; decoders, teacher and other objectives are left behind.

    An image has two features. `encode_features` is of the masked space: the mean patch token of E_I, which downstream
    classification reads. `encode_image` is of the CLIP space: behind the bridge and its head, comparable with texts.

    Args:
        branch: E_I and B.
        text_encoder: E_T; None for a model that was trained without texts.
        joint_space: The objective whose heads lead to the joint space; None likewise.
    """

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, branch: ImageBranch, text_encoder: TextEncoder | None, joint_space: nn.Module | None):
        super().__init__()
        self.branch = branch
        self.text_encoder = text_encoder
        self.joint_space = joint_space
        encoder = branch.image_encoder
        self.image_size = encoder.grid[0] * encoder.patch_size
        self.register_buffer("image_mean", torch.tensor(encoder.image_mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.tensor(encoder.image_std).view(1, 3, 1, 1), persistent=False)

    @property
    def has_texts(self) -> bool:
        """Whether images and texts can be compared."""
        return self.joint_space is not None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.image_mean.device

    @property
    def logit_scale(self) -> float:
        """The learnt inverse temperature of the joint space."""
        return float(self._space().log_logit_scale.exp())

    def normalise(self, images: UInt8[Tensor, "images 3 size size"]) -> Float[Tensor, "images 3 size size"]:
        """Bring images to the device and normalise them as in training."""
        return (images.to(self.device).float() / 255 - self.image_mean) / self.image_std

    @torch.no_grad()
    def encode_features(self, images: UInt8[Tensor, "images 3 size size"]) -> Float[Tensor, "images embed_dim"]:
        """Return the mean patch token of E_I: the masked space, as in downstream evaluation."""
        return self.image_tokens(images)[:, 1:].mean(dim=1)

    @torch.no_grad()
    def encode_image(self, images: UInt8[Tensor, "images 3 size size"]) -> Float[Tensor, "images dim"]:
        """Return L2-normalised features of the CLIP space.

        Raises:
            UserError: The model was trained without texts.
        """
        return self._space().embed_images(self.bridge_tokens(images))

    @torch.no_grad()
    def encode_both(
        self, images: UInt8[Tensor, "images 3 size size"]
    ) -> tuple[Float[Tensor, "images embed_dim"], Float[Tensor, "images dim"]]:
        """Return what `encode_features` and `encode_image` return, at the cost of the second."""
        space, tokens = self._space(), self.image_tokens(images)
        return tokens[:, 1:].mean(dim=1), space.embed_images(self.branch.bridge(tokens))

    @torch.no_grad()
    def encode_text(
        self, text_ids: Int[Tensor, "texts tokens"], text_mask: Int[Tensor, "texts tokens"]
    ) -> Float[Tensor, "texts dim"]:
        """Return L2-normalised features of the CLIP space; `Tokenizer` makes the arguments.

        Raises:
            UserError: The model was trained without texts.
        """
        space = self._space()
        assert self.text_encoder is not None
        text_ids, text_mask = text_ids.to(self.device), text_mask.to(self.device)
        return space.embed_texts(self.text_encoder(text_ids, text_mask), text_mask)

    @torch.no_grad()
    def image_tokens(self, images: UInt8[Tensor, "images 3 size size"]) -> Float[Tensor, "images tokens embed_dim"]:
        """Return E_I's tokens [images, 1 + patches, embed_dim], the class token first."""
        return self.branch.image_encoder(self.normalise(images))

    @torch.no_grad()
    def bridge_tokens(self, images: UInt8[Tensor, "images 3 size size"]) -> Float[Tensor, "images tokens embed_dim"]:
        """Return B's tokens, of the same shape; they are E_I's where the model has no bridge."""
        return self.branch.bridge(self.image_tokens(images))

    def _space(self) -> TwoTower:
        if self.joint_space is None:
            raise UserError(
                "The model was trained without texts (no objective with a joint space), so images cannot be compared "
                "with words.\nUse encode_features, or a run with objectives.lg_clip."
            )
        assert isinstance(self.joint_space, TwoTower)
        return self.joint_space
