"""Views: the encodings of one batch, each computed when it is first asked for and at most once."""

from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from maskedclip_composer.models.block import recomputed
from maskedclip_composer.models.masking import Mask, random_masking
from maskedclip_composer.models.text import mean_tokens
from maskedclip_composer.types import Batch

if TYPE_CHECKING:
    from maskedclip_composer.models.pretrain import PretrainNet


class Views:
    """Lazy encodings of one batch, shared by all objectives; what one objective alone needs, it asks `encode_*` for.

    Images are the paired ones followed by the unpaired ones; a part may be absent. One augmented view serves all
    branches, because eq. 5 compares patch i of the student with patch i of the teacher.

    Attributes:
        shown: What objectives left to be drawn, by name, without gradient.
    """

    def __init__(self, net: "PretrainNet", batch: Batch):
        self._net = net
        self._batch = batch
        parts: list[dict[str, Any]] = [part for part in (batch.get("paired"), batch.get("unpaired")) if part]  # pyright: ignore[reportAssignmentType]
        self._parts = parts
        self.shown: dict[str, Tensor] = {}
        self._space: tuple[Tensor, Tensor] | None = None

    @property
    def paired(self) -> dict[str, Tensor]:
        """The paired part (`PairedPart`); the config makes sure that objectives find what they ask it for."""
        assert "paired" in self._batch
        return cast(dict[str, Tensor], self._batch["paired"])

    def of_texts(self, key: str) -> Tensor:
        """Return what the paired part has of its distinct texts at `key`, row by row of the pairs, [pairs, tokens]."""
        return self.paired[key][self.paired["text_index"]]

    @property
    def num_pairs(self) -> int:
        """How many of the images are paired."""
        return len(self.paired["image"]) if "paired" in self._batch else 0

    def joined(self, key: str) -> Tensor:
        """Return what both parts have at `key`, paired first."""
        return torch.cat([part[key] for part in self._parts])

    @cached_property
    def images(self) -> Tensor:
        """All images, [images, 3, size, size], normalised."""
        return self.normalise(self.joined("image"))

    @cached_property
    def mask(self) -> Mask:
        """Which patches of `images` are visible."""
        return random_masking(self.joined("noise"), self._net.mask_ratio)

    @property
    def masked(self) -> Tensor:
        """E_I of the visible patches of all images, [images, 1 + kept, embed_dim]."""
        return self._packed[0] if self._net.packed else self._masked

    @property
    def whole_paired(self) -> Tensor:
        """E_I of the whole paired images, [pairs, 1 + patches, embed_dim]."""
        return self._packed[1] if self._net.packed else self._whole_paired

    @cached_property
    def _masked(self) -> Tensor:
        with self._net.timed("masked"):
            return self._encode_images(self.images, ids_keep=self.mask.ids_keep)

    @cached_property
    def _whole_paired(self) -> Tensor:
        with self._net.timed("whole"):
            return self._encode_images(self.images[: self.num_pairs])

    @cached_property
    def _packed(self) -> tuple[Tensor, Tensor]:
        """Both of the above, in one pass."""
        encoder, count = self._net.branch.image_encoder, len(self.images)
        size = min(self._net.chunk_size or count, count)
        masked, whole = [], []
        with self._net.timed("packed"):
            for first in range(0, count, size):
                images, ids_keep = self.images[first : first + size], self.mask.ids_keep[first : first + size]
                pairs = min(max(self.num_pairs - first, 0), len(images))
                encode = partial(encoder, also_whole=pairs)
                tokens = encode(images, ids_keep) if size == count else recomputed(encode, images, ids_keep)
                if pairs:
                    tokens, of_pairs = encoder.unpack(tokens, len(images), pairs)
                    whole.append(of_pairs)
                masked.append(tokens)
        return torch.cat(masked), torch.cat(whole)

    @cached_property
    def whole_unpaired(self) -> Tensor:
        """E_I of the whole unpaired images, [unpaired, 1 + patches, embed_dim]."""
        with self._net.timed("whole"):
            return self._encode_images(self.images[self.num_pairs :])

    @cached_property
    def image(self) -> Tensor:
        """B after E_I of the whole paired images, [pairs, 1 + patches, embed_dim]."""
        return self.bridge(self.whole_paired)

    @cached_property
    def _unique_tokens(self) -> Tensor:
        with self._net.timed("text"):
            return self.encode_text(self.paired["text_ids"], self.paired["text_mask"])

    @cached_property
    def text_tokens(self) -> Tensor:
        """E_T of the paired texts, [pairs, tokens, text_dim]; equal texts of the batch are encoded once."""
        return self._unique_tokens[self.paired["text_index"]]

    @property
    def text_mask(self) -> Tensor:
        """1 on the tokens of each pair's text and 0 on padding, [pairs, tokens]."""
        return self.of_texts("text_mask")

    @cached_property
    def distinct_text(self) -> Tensor:
        """The mean of each distinct text's tokens, [texts, text_dim]; `paired["text_index"]` has the row of a pair."""
        return mean_tokens(self._unique_tokens, self.paired["text_mask"])

    @property
    def text(self) -> Tensor:
        """The mean of each pair's tokens, [pairs, text_dim]."""
        return self.distinct_text[self.paired["text_index"]]

    @property
    def labels(self) -> Tensor:
        """Labels of the pairs, [pairs] int64."""
        return self.paired["label"]

    @cached_property
    def teacher(self) -> Tensor:
        """The teacher's patch features of all whole images, [images, patches, embed_dim], without gradient."""
        return self.encode_teacher(self.images)[:, 1:]

    def normalise(self, images: Tensor) -> Tensor:
        """Turn uint8 images [images, 3, height, width] into float32 as the encoder wants them."""
        return self._net.normalise(images)

    def encode_images(
        self,
        images: Tensor,
        ids_keep: Tensor | None = None,
        *,
        block_mask: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Tensor:
        """Return E_I's tokens of normalised images; masking as in `ImageEncoder.forward`."""
        with self._net.timed("encoder"):
            return self._encode_images(images, mask_token=mask_token, ids_keep=ids_keep, block_mask=block_mask)

    def _encode_images(self, images: Tensor, *, mask_token: Tensor | None = None, **of_images: Tensor | None) -> Tensor:
        given = {name: values for name, values in of_images.items() if values is not None}

        def encode(images: Tensor, *masks: Tensor) -> Tensor:
            return self._net.branch.image_encoder(images, mask_token=mask_token, **dict(zip(given, masks, strict=True)))

        return self.in_chunks(encode, images, *given.values())

    def bridge(self, tokens: Tensor) -> Tensor:
        """Return B of E_I's tokens, of the same shape."""
        with self._net.timed("bridge"):
            return self.in_chunks(self._net.branch.bridge, tokens)

    def encode_teacher(self, images: Tensor) -> Tensor:
        """Return the teacher's tokens of whole normalised images, [images, 1 + patches, embed_dim], no gradient."""
        assert self._net.teacher is not None
        with torch.no_grad(), self._net.timed("teacher"):
            return self.in_chunks(self._net.teacher, images)

    def in_chunks(self, encode: Callable[..., Tensor], *per_item: Tensor) -> Tensor:
        """Return `encode(*per_item)`, computed for `compute.chunk_size` items at a time and recomputed backwards.

        Nothing but the result is then kept for the backward pass. Items must not depend on each other.

        Args:
            encode: Takes tensors and returns one, all of one row an item.
            per_item: Its arguments.
        """
        size = self._net.chunk_size
        if size is None or len(per_item[0]) <= size:
            return encode(*per_item)
        chunks = zip(*(values.split(size) for values in per_item), strict=True)
        return torch.cat([recomputed(encode, *chunk) for chunk in chunks])

    def encode_text(self, text_ids: Tensor, text_mask: Tensor) -> Tensor:
        """Return E_T's tokens [texts, tokens, text_dim] of ids and mask [texts, tokens]."""
        assert self._net.text_encoder is not None
        return self._net.text_encoder(text_ids, text_mask)

    def word_logits(self, hidden: Tensor) -> Tensor:
        """Return the similarity of `hidden` [masked, text_dim] to every word of E_T, [masked, vocabulary]."""
        assert self._net.text_encoder is not None
        return self._net.text_encoder(words_of=hidden)

    def offer_space(self, image_projection: Tensor, text_projection: Tensor) -> None:
        """Leave the weights, [embed_dim, dim] each, that take patches of B and tokens of E_T to a joint space."""
        self._space = image_projection.detach().clone(), text_projection.detach().clone()

    @torch.no_grad()
    def in_joint_space(self, patches: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return E_I's patches and E_T's tokens where images and texts are aligned, in float32 without gradient.

        The space is that of the two-tower objective of the run, which comes before all that ask for it.
        """
        if self._space is None:
            raise RuntimeError("no objective before this one aligns images with texts")
        image_projection, text_projection = self._space
        with torch.autocast(patches.device.type, enabled=False):
            images = F.linear(self.bridge(patches.detach().float()), image_projection.float())
            return images, F.linear(tokens.detach().float(), text_projection.float())

    def show(self, name: str, values: Tensor) -> None:
        """Leave something to be drawn, [images of this rank, ...] or of any shape that the picture expects."""
        # A copy: FSDP frees a parameter's storage after the forward pass, and the optimiser writes into it.
        self.shown[name] = values.detach().clone()
