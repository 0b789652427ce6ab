"""The network that is pre-trained, and the ComposerModel around it."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from composer.models import ComposerModel
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from maskedclip_composer.models.branch import ImageBranch
from maskedclip_composer.models.text import TextEncoder
from maskedclip_composer.models.transformer import Transformer
from maskedclip_composer.models.views import Views
from maskedclip_composer.models.vit import ImageEncoder
from maskedclip_composer.objectives.base import Objective
from maskedclip_composer.types import Batch


class PretrainNet(nn.Module):
    """Encoders, teacher and objectives; `forward` is the only way in.

    Args:
        branch: E_I and B of the student.
        text_encoder: E_T, or None when no objective uses text.
        objectives: By name, in the order in which losses are added up.
        mask_ratio: Share of patches that is removed.
        with_teacher: Keep a momentum copy of `branch`.
        packed: Encode visible patches and whole paired images of the student in one pass; for objectives that read
            both.
        chunk_size: Encode and decode so many images at a time; see `Views.in_chunks`.
    """

    # Called with the name of what is computed within; a callback that takes the time replaces it.
    timed: Callable[[str], AbstractContextManager[Any]]

    image_mean: Tensor
    image_std: Tensor

    def __init__(
        self,
        branch: ImageBranch,
        text_encoder: TextEncoder | None,
        objectives: dict[str, Objective],
        *,
        mask_ratio: float,
        with_teacher: bool,
        packed: bool = False,
        chunk_size: int | None = None,
    ):
        super().__init__()
        self.branch = branch
        self.text_encoder = text_encoder
        self.objectives = nn.ModuleDict(objectives)
        # A copy, never an alias: FSDP2 refuses a module that is reachable by two names.
        self.teacher = copy.deepcopy(branch).requires_grad_(False).eval() if with_teacher else None
        self.mask_ratio = mask_ratio
        self.timed = lambda name: nullcontext()
        self.packed = packed
        self.chunk_size = chunk_size
        encoder = branch.image_encoder
        self.register_buffer("image_mean", torch.tensor(encoder.image_mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.tensor(encoder.image_std).view(1, 3, 1, 1), persistent=False)

    def forward(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """Return, for each objective, the keyword arguments of its loss; under `shown` what may be drawn, if any."""
        views = Views(self, batch)
        with self.timed("objectives"):
            outputs = {name: objective(views) for name, objective in self.objectives.items()}
        return outputs | {"shown": views.shown} if views.shown else outputs

    def momentum_pairs(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Yield (teacher, student) for each module that follows another by momentum."""
        if self.teacher is not None:
            yield self.teacher, self.branch
        for objective in self.objectives.values():
            assert isinstance(objective, Objective)
            yield from objective.momentum_pairs()

    def normalise(self, images: Tensor) -> Tensor:
        """Turn uint8 images [images, 3, size, size] into float32, normalised as the encoder wants it."""
        return images.to(self.image_mean.dtype).div_(255).sub_(self.image_mean).div_(self.image_std)

    def train(self, mode: bool = True) -> "PretrainNet":
        """Set the mode of all but the teacher, which always is in evaluation mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def fsdp_wrap_fn(self, module: nn.Module) -> bool:
        """Name the modules that FSDP shards as units: all that own parameters, so that `net` itself owns none.

        Composer 0.32.1 asks the ComposerModel's child, not the ComposerModel.
        """
        units = (Block, ImageEncoder, Transformer, TextEncoder, Objective)
        return isinstance(module, units) or type(module).__name__ == "BertLayer"


class MaskedCLIP(ComposerModel):
    """Every recipe's ComposerModel; which objectives `net` has makes the difference.

    It has exactly one child and is entered by `net.forward` alone: with student and teacher as direct children each
    becomes an FSDP root, which keeps its parameters unsharded after a forward pass without a backward pass, and the
    teacher's update then goes wrong.
    """

    def __init__(self, net: PretrainNet):
        super().__init__()
        self.net = net

    def forward(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """Return, for each objective, the keyword arguments of its loss."""
        return self.net(batch)

    def loss(  # pyright: ignore[reportIncompatibleMethodOverride]  # the trainer takes a dict with `total`
        self, outputs: dict[str, dict[str, Tensor]], batch: Batch, *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Return each objective's raw loss by name and their weighted sum as `total` (eq. 6), in float32."""
        losses: dict[str, Tensor] = {}
        terms: list[Tensor] = []
        with torch.autocast(self.net.image_mean.device.type, enabled=False):
            for name, objective in self.net.objectives.items():
                assert isinstance(objective, Objective)
                losses[name] = objective.loss(**outputs[name])
                terms.append(objective.weight * losses[name])
        return {"total": torch.stack(terms).sum(), **losses}
