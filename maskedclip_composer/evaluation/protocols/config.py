"""What a protocol's yaml can say. Kept apart from the code that runs it, which takes seconds to import."""

import math
from dataclasses import dataclass, field
from typing import Literal

from maskedclip_composer.data.prompts import PromptConfig
from maskedclip_composer.errors import UserError


@dataclass(frozen=True, kw_only=True)
class LinearProbeConfig:
    """Logistic regression on the frozen encoder's features, fitted on all of them at once.

    Attributes:
        c_grid: Inverse regularisation strengths to choose from, by macro ROC on the validation split.
        standardise: Bring every feature to mean 0 and variance 1 of the training rows.
        balanced: Weight images by the inverse frequency of their class.
        max_iterations: Bound on the solver's steps.
    """

    c_grid: list[float] = field(default_factory=lambda: [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0])
    standardise: bool = True
    balanced: bool = False
    max_iterations: int = 2000

    def __post_init__(self) -> None:
        if not self.c_grid or min(self.c_grid) <= 0:
            raise UserError(f"linear_probe.c_grid={self.c_grid} must hold at least one number, all above 0.")
        _require_positive("linear_probe", max_iterations=self.max_iterations)


@dataclass(frozen=True, kw_only=True)
class KnnConfig:
    """Votes of the nearest training images by the cosine of their features, weighted as DINO does.

    Attributes:
        k_grid: Numbers of neighbours to choose from, by macro ROC on the validation split.
        temperature: A neighbour of cosine s votes with exp(s / temperature).
    """

    k_grid: list[int] = field(default_factory=lambda: [1, 5, 10, 20, 50, 100])
    temperature: float = 0.07

    def __post_init__(self) -> None:
        if not self.k_grid or min(self.k_grid) < 1:
            raise UserError(f"knn.k_grid={self.k_grid} must hold at least one number, all from 1.")
        _require_positive("knn", temperature=self.temperature)


@dataclass(frozen=True, kw_only=True)
class ZeroShotConfig:
    """Cosine of an image's feature in the joint space with each class's mean prompt; nothing is trained.

    Needs a pre-training run with texts, and a task whose classes the prompt pack knows.

    Attributes:
        prompts: Pack and wording (`data/prompts.py`).
    """

    prompts: PromptConfig = field(default_factory=PromptConfig)


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Training of the whole encoder with a linear head.

    The defaults are MaskedCLIP's protocol (batch 16, AdamW, 50 epochs, learning rate 5e-4, 10 epochs of warm-up); what
    the paper leaves open follows RETFound's code of 2024.

    Attributes:
        epochs: Passes over the training rows.
        warmup_epochs: Of these, with a linearly rising learning rate; then half a cosine to `min_lr`.
        batch_size: Images per step over all processes.
        lr: Peak learning rate of the head, not scaled by the batch size.
        min_lr: Learning rate of the head at the end.
        layer_decay: Factor on the learning rate per layer below the head.
        weight_decay: AdamW's; biases, norms, positions and the class token are exempt.
        drop_path: Stochastic depth of the last block; it rises linearly from 0 in the first.
        label_smoothing: Mass spread over all classes.
        rand_augment: timm's description of RandAugment; an empty string switches it off.
        random_erasing: Probability that an image has a rectangle replaced by noise.
        min_crop: Smallest area of the random crop, as a share of the photograph.
        select_by: What the best epoch on validation is best in: macro ROC, or the mean of macro F1, macro ROC and
            Cohen's kappa without weights, as RETFound's code of 2025.
        precision: Composer's precision; null takes amp_bf16 on a GPU and fp32 on a CPU. The head is always fp32.
    """

    epochs: int = 50
    warmup_epochs: int = 10
    batch_size: int = 16
    lr: float = 5e-4
    min_lr: float = 1e-6
    layer_decay: float = 0.65
    weight_decay: float = 0.05
    drop_path: float = 0.2
    label_smoothing: float = 0.1
    rand_augment: str = "rand-m9-mstd0.5-inc1"
    random_erasing: float = 0.25
    min_crop: float = 0.08
    select_by: Literal["roc", "mean_of_f1_roc_kappa"] = "roc"
    precision: Literal["fp32", "amp_bf16", "amp_fp16"] | None = None

    def __post_init__(self) -> None:
        _require_positive("finetune", epochs=self.epochs, batch_size=self.batch_size, lr=self.lr)
        if not 0 <= self.warmup_epochs < self.epochs:
            raise UserError(
                f"finetune.warmup_epochs={self.warmup_epochs} must be at least 0 and below "
                f"finetune.epochs={self.epochs}."
            )
        if not 0 <= self.min_lr <= self.lr:
            raise UserError(f"finetune.min_lr={self.min_lr} must lie between 0 and finetune.lr={self.lr}.")
        for key in ("label_smoothing", "drop_path", "random_erasing"):
            if not 0 <= getattr(self, key) < 1:
                raise UserError(f"finetune.{key}={getattr(self, key)} must be at least 0 and below 1.")
        for key in ("layer_decay", "min_crop"):
            if not 0 < getattr(self, key) <= 1:
                raise UserError(f"finetune.{key}={getattr(self, key)} must lie above 0 and at most at 1.")


@dataclass(frozen=True, kw_only=True)
class ProtocolConfig:
    """One way to evaluate an encoder. Exactly one of the four parts is present.

    Attributes:
        title: Its name in print.
        source: Paper or code that it follows.
        deviations: In what it departs from the source, one sentence each.
    """

    title: str
    source: str
    deviations: list[str] = field(default_factory=list)
    linear_probe: LinearProbeConfig | None = None
    knn: KnnConfig | None = None
    zero_shot: ZeroShotConfig | None = None
    finetune: FinetuneConfig | None = None

    def __post_init__(self) -> None:
        parts = ("linear_probe", "knn", "zero_shot", "finetune")
        present = [part for part in parts if getattr(self, part) is not None]
        if len(present) != 1:
            raise UserError(
                f"a protocol has exactly one of {', '.join(parts)}; this one has {', '.join(present) or 'none'}.\n"
                "Make a protocol file for each."
            )


def _require_positive(part: str, **values: float) -> None:
    for key, value in values.items():
        if not value > 0 or math.isinf(value):
            raise UserError(f"{part}.{key}={value} must be above 0.")
