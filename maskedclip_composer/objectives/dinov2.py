"""Self-distillation over several crops, in the style of DINOv2."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskedclip_composer.distributed import gather_with_gradient, sum_over_ranks
from maskedclip_composer.errors import UserError
from maskedclip_composer.losses.self_distillation import (
    dino_loss,
    dinov2_loss,
    ibot_loss,
    koleo_loss,
    sinkhorn_knopp,
)
from maskedclip_composer.models.views import Views
from maskedclip_composer.objectives.base import Objective, ObjectiveConfig, Parts


@dataclass(frozen=True, kw_only=True)
class Dinov2Config(ObjectiveConfig):
    """DINO on class tokens, iBOT on hidden patches, KoLeo on the class tokens of a batch.

    Attributes:
        dino_weight: Of DINO within the objective.
        ibot_weight: Of iBOT.
        koleo_weight: Of KoLeo; 0 leaves it out.
        prototypes: Of each of the two heads.
        hidden_dim: Width of the heads' hidden layers.
        bottleneck_dim: Width of the features that are compared with the prototypes.
        student_temperature: Divides the student's scores.
        teacher_temperature: Divides the teacher's scores at the start.
        final_teacher_temperature: After the warm-up.
        teacher_warmup: Share of the training over which the teacher's temperature rises linearly.
        freeze_prototypes: Share of the training, from its start, in which prototypes stay.
    """

    key: ClassVar[str] = "dinov2"
    needs: ClassVar[frozenset[str]] = frozenset({"crops"})
    uses_unpaired: ClassVar[bool] = True
    trains_bridge: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = True

    dino_weight: float = 1.0
    ibot_weight: float = 1.0
    koleo_weight: float = 0.1
    prototypes: int = 65_536
    hidden_dim: int = 2048
    bottleneck_dim: int = 256
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    final_teacher_temperature: float = 0.07
    teacher_warmup: float = 0.3
    freeze_prototypes: float = 0.01

    def __post_init__(self):
        super().__post_init__()
        positive = ("dino_weight", "ibot_weight", "prototypes", "hidden_dim", "bottleneck_dim", "student_temperature")
        for name in (*positive, "teacher_temperature", "final_teacher_temperature"):
            if not getattr(self, name) > 0:
                raise UserError(f"objectives.dinov2.{name}={getattr(self, name)} is not positive.")
        if self.koleo_weight < 0:
            raise UserError(f"objectives.dinov2.koleo_weight={self.koleo_weight} is negative.\nUse 0 to leave it out.")
        for name in ("teacher_warmup", "freeze_prototypes"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"objectives.dinov2.{name}={getattr(self, name)} is no share of the training, 0 to 1.")

    def build(self, parts: Parts) -> "Dinov2":
        """Build the heads, the teacher's copies of them and the mask token."""
        return Dinov2(self, parts.image_encoder.embed_dim)


class PrototypeHead(nn.Module):
    """Three linear layers to a normalised feature, and its cosine with each prototype (DINO, arXiv 2104.14294)."""

    def __init__(self, dim: int, config: Dinov2Config):
        super().__init__()
        hidden = config.hidden_dim
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, config.bottleneck_dim),
        )
        self.prototypes = nn.Parameter(torch.empty(config.prototypes, config.bottleneck_dim))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.prototypes)

    def forward(self, tokens: Tensor, *, frozen: bool = False) -> Tensor:
        """Return cosines [..., prototypes] of tokens [..., dim]; with `frozen` the prototypes get a gradient of zero.

        None at all would leave DDP waiting, and a change of `requires_grad` amid a run would not survive a resume.
        """
        prototypes = self.prototypes.detach() + 0 * self.prototypes if frozen else self.prototypes
        return F.linear(F.normalize(self.mlp(tokens), dim=-1), F.normalize(prototypes, dim=-1))


class Dinov2(Objective):
    """Predict the teacher's assignments of whole global views from hidden and local ones.

    In the style of DINOv2 (arXiv 2304.07193): separate heads, Sinkhorn-Knopp centring, KoLeo over the images of all
    ranks. Deviations: no stochastic depth, no layer-wise learning rates, no schedule of the weight decay, no second
    stage at a high resolution.
    """

    loss = staticmethod(dinov2_loss)

    weights: Tensor
    student_temperature: Tensor

    def __init__(self, config: Dinov2Config, image_dim: int):
        super().__init__(config.weight)
        self.config = config
        self.dino_head, self.ibot_head = PrototypeHead(image_dim, config), PrototypeHead(image_dim, config)
        self.teacher_dino_head = copy.deepcopy(self.dino_head).requires_grad_(False)
        self.teacher_ibot_head = copy.deepcopy(self.ibot_head).requires_grad_(False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, image_dim))
        weights = torch.tensor([config.dino_weight, config.ibot_weight, config.koleo_weight])
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("student_temperature", torch.tensor(config.student_temperature), persistent=False)
        self.on_progress(0.0)

    def on_progress(self, done: float) -> None:
        """Set the teacher's temperature, and whether the prototypes stay; both follow from `done` alone."""
        config = self.config
        rise = min(1.0, done / config.teacher_warmup) if config.teacher_warmup else 1.0
        start, end = config.teacher_temperature, config.final_teacher_temperature
        self.teacher_temperature = start + (end - start) * rise
        self.frozen = done < config.freeze_prototypes

    def momentum_pairs(self) -> Iterable[tuple[nn.Module, nn.Module]]:
        """Return the heads; the encoder's copy is the network's."""
        return ((self.teacher_dino_head, self.dino_head), (self.teacher_ibot_head, self.ibot_head))

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return scores, assignments and weights of views and hidden patches, and the class tokens of all ranks."""
        first = views.joined("image")[:, None]
        global_views = _by_view(torch.cat([first, views.joined("global_crops")], dim=1))
        local_views = _by_view(views.joined("local_crops"))
        masks = _by_view(views.joined("block_mask"))
        globals_, images = global_views.shape[:2]

        whole = views.normalise(global_views.flatten(0, 1))
        block_mask = masks.flatten(0, 1)
        seen = views.bridge(views.encode_images(whole, block_mask=block_mask, mask_token=self.mask_token))
        local = views.bridge(views.encode_images(views.normalise(local_views.flatten(0, 1))))
        classes = torch.cat([seen[:, 0], local[:, 0]])
        student_views = self.dino_head(classes, frozen=self.frozen).unflatten(0, (-1, images))
        student_patches = self.ibot_head(seen[:, 1:][block_mask], frozen=self.frozen)

        with torch.no_grad():
            taught = views.encode_teacher(whole)
            teacher_views = self._assign(self.teacher_dino_head(taught[:, 0]))
            teacher_patches = self._assign(self.teacher_ibot_head(taught[:, 1:][block_mask]))
        hidden = block_mask.sum(dim=1, keepdim=True)
        patch_weight = (1 / hidden.clamp(min=1) / len(hidden)).expand_as(block_mask)[block_mask]
        class_tokens = seen[:, 0].unflatten(0, (globals_, images))
        return {
            "student_views": student_views.float(),
            "teacher_views": teacher_views.unflatten(0, (globals_, images)),
            "student_patches": student_patches.float(),
            "teacher_patches": teacher_patches,
            "patch_weight": patch_weight,
            "class_tokens": gather_with_gradient(class_tokens.transpose(0, 1).float()).transpose(0, 1),
            "temperature": self.student_temperature,
            "weights": self.weights,
        }

    def _assign(self, scores: Tensor) -> Tensor:
        return sinkhorn_knopp(scores.float(), self.teacher_temperature, total=sum_over_ranks)

    def diagnose(self, **outputs: Tensor) -> dict[str, Tensor]:
        """Return the three losses, and the entropy of the mean assignment in nats: near 0 all images are alike."""
        used = outputs["teacher_views"].mean(dim=(0, 1))
        patches = (outputs["student_patches"], outputs["teacher_patches"], outputs["patch_weight"])
        return {
            "dino": dino_loss(outputs["student_views"], outputs["teacher_views"], outputs["temperature"]),
            "ibot": ibot_loss(*patches, outputs["temperature"]),
            "koleo": torch.stack([koleo_loss(view) for view in outputs["class_tokens"]]).mean(),
            "prototype_entropy": -(used * used.clamp(min=1e-12).log()).sum(),
            "teacher_temperature": torch.tensor(self.teacher_temperature),
        }


def _by_view(values: Tensor) -> Tensor:
    """Turn [images, views, ...] into [views, images, ...]."""
    return values.transpose(0, 1)
