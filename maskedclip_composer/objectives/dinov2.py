"""Self-distillation over several crops, in the style of DINOv2."""

import copy
import math
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
from maskedclip_composer.objectives.health import effective_rank, variance_of_directions


@dataclass(frozen=True, kw_only=True)
class Dinov2Config(ObjectiveConfig):
    """DINO on class tokens, iBOT on hidden patches, KoLeo on the class tokens of a batch.

    They are one objective because they share the student's pass over global views with hidden patches.

    Attributes:
        dino_weight: Of DINO within the objective; 0 leaves it out, with its head.
        ibot_weight: Of iBOT; 0 leaves it out, with its head and the mask token: the student then sees whole views.
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
        temperature, share = "must be 0.025 to 1, or float32 overflows.", "is no share of the training, 0 to 1."
        rules = (
            ("dino_weight", 0 <= self.dino_weight < math.inf, "is negative.\nUse 0 to leave DINO out."),
            ("ibot_weight", 0 <= self.ibot_weight < math.inf, "is negative.\nUse 0 to leave iBOT out."),
            ("koleo_weight", 0 <= self.koleo_weight < math.inf, "is negative.\nUse 0 to leave KoLeo out."),
            ("prototypes", self.prototypes >= 2, "is below 2."),
            ("hidden_dim", self.hidden_dim >= 1, "is not positive."),
            ("bottleneck_dim", self.bottleneck_dim >= 1, "is not positive."),
            ("student_temperature", 0.025 <= self.student_temperature <= 1, temperature),
            ("teacher_temperature", 0.025 <= self.teacher_temperature <= 1, temperature),
            ("final_teacher_temperature", 0.025 <= self.final_teacher_temperature <= 1, temperature),
            ("teacher_warmup", 0 <= self.teacher_warmup <= 1, share),
            ("freeze_prototypes", 0 <= self.freeze_prototypes <= 1, share),
        )
        for name, holds, message in rules:
            if not holds:
                raise UserError(f"objectives.dinov2.{name}={getattr(self, name)} {message}")
        if self.dino_weight == self.ibot_weight == 0:
            raise UserError(
                "objectives.dinov2.dino_weight and ibot_weight are both 0: nothing would be learnt.\nGive one a weight."
            )

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
        # torch's own bound for a linear layer, as in DINO. Their length has no influence on the scores, but the longer
        # they are, the less AdamW's steps turn them.
        bound = config.bottleneck_dim**-0.5
        nn.init.uniform_(self.prototypes, -bound, bound)

    def forward(self, tokens: Tensor, *, frozen: bool = False) -> Tensor:
        """Return cosines [..., prototypes] of tokens [..., dim]; with `frozen` the prototypes get a gradient of zero.

        None at all would leave DDP waiting, and a change of `requires_grad` amid a run would not survive a resume.
        What AdamW's weight decay does to them all the same is to shorten them, which the scores do not see.
        """
        prototypes = self.prototypes.detach() + 0 * self.prototypes if frozen else self.prototypes
        features = self.mlp(tokens)
        # Cosines over a temperature of 0.04: rounded to bfloat16 they would be off by several hundredths.
        with torch.autocast(features.device.type, enabled=False):
            return F.linear(F.normalize(features.float(), dim=-1), F.normalize(prototypes.float(), dim=-1))


class Dinov2(Objective):
    """Predict the teacher's assignments of whole global views from hidden and local ones.

    In the style of DINOv2 (arXiv 2304.07193): separate heads, Sinkhorn-Knopp centring, KoLeo over the images of all
    ranks; the class token of B after E_I is what DINO reads. Deviations: no stochastic depth, no layer-wise learning
    rates, no schedule of the weight decay, no second stage at a high resolution; each view draws its own mask
    (`data/crops.py`).
    """

    loss = staticmethod(dinov2_loss)

    weights: Tensor
    student_temperature: Tensor

    def __init__(self, config: Dinov2Config, image_dim: int):
        super().__init__(config.weight)
        self.config = config
        on = {"dino": config.dino_weight > 0, "ibot": config.ibot_weight > 0}
        self.heads = nn.ModuleDict({name: PrototypeHead(image_dim, config) for name in on if on[name]})
        self.teacher_heads = copy.deepcopy(self.heads).requires_grad_(False).eval()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, image_dim)) if on["ibot"] else None
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
        return ((self.teacher_heads, self.heads),)

    def train(self, mode: bool = True) -> "Dinov2":
        """Set the mode of all but the teacher's heads, which always are in evaluation mode."""
        super().train(mode)
        self.teacher_heads.eval()
        return self

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return scores, assignments and weights of views and hidden patches, and the class tokens of all ranks.

        A part whose weight is 0 has no entry.
        """
        first = views.joined("image")[:, None]
        global_views = _by_view(torch.cat([first, views.joined("global_crops")], dim=1))
        globals_, images = global_views.shape[:2]
        whole = views.normalise(global_views.flatten(0, 1))
        hidden = _by_view(views.joined("block_mask")).flatten(0, 1)
        masking = {} if self.mask_token is None else {"block_mask": hidden, "mask_token": self.mask_token}
        seen = views.bridge(views.encode_images(whole, **masking))
        taught = views.encode_teacher(whole)

        outputs = {"temperature": self.student_temperature, "weights": self.weights}
        if "dino" in self.heads:
            local_views = _by_view(views.joined("local_crops")).flatten(0, 1)
            local = views.bridge(views.encode_images(views.normalise(local_views)))
            student, teacher = self._assign("dino", torch.cat([seen[:, 0], local[:, 0]]), taught[:, 0])
            outputs["student_views"] = student.unflatten(0, (-1, images))
            outputs["teacher_views"] = teacher.unflatten(0, (-1, images))
        if "ibot" in self.heads:
            student, teacher = self._assign("ibot", seen[:, 1:][hidden], taught[:, 1:][hidden])
            outputs["student_patches"], outputs["teacher_patches"] = student, teacher
            of_image = 1 / hidden.sum(dim=1, keepdim=True).clamp(min=1) / len(hidden)
            outputs["patch_weight"] = of_image.expand_as(hidden)[hidden]
        if self.config.koleo_weight:
            class_tokens = _by_view(seen[:, 0].float().unflatten(0, (globals_, images)))
            outputs["class_tokens"] = _by_view(gather_with_gradient(class_tokens))
        return outputs

    def _assign(self, name: str, seen: Tensor, taught: Tensor) -> tuple[Tensor, Tensor]:
        """Return the student's scores and the teacher's assignments by the heads of one part, [tokens, prototypes]."""
        scores = self.heads[name](seen, frozen=self.frozen).float()
        with torch.no_grad():
            taught_scores = self.teacher_heads[name](taught).float()
        return scores, sinkhorn_knopp(taught_scores, self.teacher_temperature, total=sum_over_ranks)

    def diagnose(self, **outputs: Tensor) -> dict[str, Tensor]:
        """Return the losses of the parts, the entropy of the teacher's assignments in nats, and its temperature.

        Centring spreads a batch over the prototypes whatever the features are. So where all images are alike to the
        teacher, each is assigned to all prototypes: an entropy near ln(prototypes) means that it has collapsed.
        """
        temperature = outputs["temperature"]
        numbers = {"teacher_temperature": torch.tensor(self.teacher_temperature)}
        if "dino" in self.heads:
            numbers["dino"] = dino_loss(outputs["student_views"], outputs["teacher_views"], temperature)
            numbers["teacher_entropy"] = _entropy(outputs["teacher_views"])
        if "ibot" in self.heads:
            teacher = outputs["teacher_patches"]
            numbers["ibot"] = ibot_loss(outputs["student_patches"], teacher, outputs["patch_weight"], temperature)
            numbers["teacher_patch_entropy"] = _entropy(teacher)
        if self.config.koleo_weight:
            tokens = outputs["class_tokens"]
            numbers["class_token_variance"] = variance_of_directions(tokens)
            numbers["class_token_effective_rank"] = effective_rank(tokens)
            numbers["koleo"] = torch.stack([koleo_loss(view) for view in outputs["class_tokens"]]).mean()
        return numbers


def _entropy(assignments: Tensor) -> Tensor:
    """Return the mean entropy of rows, in nats; 0 where there is no row."""
    rows = assignments.flatten(0, -2)
    return torch.special.entr(rows).sum() / max(1, len(rows))


def _by_view(values: Tensor) -> Tensor:
    """Turn [images, views, ...] into [views, images, ...]."""
    return values.transpose(0, 1)
