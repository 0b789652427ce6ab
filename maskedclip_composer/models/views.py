"""Views: the encodings of one batch, each computed when it is first asked for and at most once."""

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maskedclip_composer.models.masking import Mask, random_masking
from maskedclip_composer.types import Batch, PairedPart, UnpairedPart

if TYPE_CHECKING:
    from maskedclip_composer.models.pretrain import PretrainNet


class Views:
    """Lazy encodings of one batch, shared by all objectives.

    Images are the paired ones followed by the unpaired ones; a part may be absent. One augmented view serves all
    branches, because eq. 5 compares patch i of the student with patch i of the teacher.
    """

    def __init__(self, net: "PretrainNet", batch: Batch):
        self._net = net
        self._batch = batch
        self._parts: list[UnpairedPart] = [part for part in (batch.get("paired"), batch.get("unpaired")) if part]

    @property
    def paired(self) -> PairedPart:
        """The paired part; the config makes sure that objectives which ask for it have one."""
        assert "paired" in self._batch
        return self._batch["paired"]

    @cached_property
    def images(self) -> Tensor:
        """All images, [images, 3, size, size], normalised."""
        return self._net.normalise(torch.cat([part["image"] for part in self._parts]))

    @cached_property
    def mask(self) -> Mask:
        """Which patches of `images` are visible."""
        return random_masking(torch.cat([part["noise"] for part in self._parts]), self._net.mask_ratio)

    @cached_property
    def masked(self) -> Tensor:
        """E_I of the visible patches of all images, [images, 1 + kept, embed_dim]."""
        return self._net.branch.image_encoder(self.images, self.mask.ids_keep)

    @cached_property
    def image(self) -> Tensor:
        """B after E_I of the whole paired images, [pairs, 1 + patches, embed_dim]."""
        return self._net.branch(self.images[: self.paired["image"].shape[0]])

    @cached_property
    def text(self) -> Tensor:
        """E_T of the paired texts, [pairs, text_dim]; equal texts of the batch are encoded once."""
        assert self._net.text_encoder is not None
        encoded = self._net.text_encoder(self.paired["text_ids"], self.paired["text_mask"])
        return encoded[self.paired["text_index"]]

    @property
    def labels(self) -> Tensor:
        """Labels of the pairs, [pairs] int64."""
        return self.paired["label"]

    @cached_property
    def teacher(self) -> Tensor:
        """The teacher's patch features of all whole images, [images, patches, embed_dim], without gradient."""
        assert self._net.teacher is not None
        with torch.no_grad():
            return self._net.teacher(self.images)[:, 1:]
