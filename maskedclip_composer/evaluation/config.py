"""What `evaluate.py` can be told. Kept apart from the code that runs it, which takes seconds to import."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from maskedclip_composer.callbacks.config import TrackingConfig
from maskedclip_composer.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Logistic regression on the frozen encoder's features.

    Attributes:
        c_grid: Inverse regularisation strengths to choose from, by macro ROC on the validation split.
        max_iterations: Bound on the solver's steps.
        batch_size: Images per forward pass and process.
    """

    c_grid: list[float] = field(default_factory=lambda: [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0])
    max_iterations: int = 2000
    batch_size: int = 64

    def __post_init__(self) -> None:
        if not self.c_grid or min(self.c_grid) <= 0:
            raise UserError(f"evaluate: probe.c_grid={self.c_grid} must hold at least one number, all above 0.")
        _require_positive("probe", max_iterations=self.max_iterations, batch_size=self.batch_size)


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Training of the whole encoder with a linear head.

    The defaults are MaskedCLIP's protocol (batch 16, AdamW, 50 epochs, learning rate 5e-4, 10 epochs of warm-up); what
    the paper leaves open follows RETFound's code of 2024.

    Attributes:
        epochs: Passes over the training split.
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
    precision: Literal["fp32", "amp_bf16", "amp_fp16"] | None = None

    def __post_init__(self) -> None:
        _require_positive("finetune", epochs=self.epochs, batch_size=self.batch_size, lr=self.lr)
        if not 0 <= self.warmup_epochs < self.epochs:
            raise UserError(
                f"evaluate: finetune.warmup_epochs={self.warmup_epochs} must be at least 0 and below "
                f"finetune.epochs={self.epochs}."
            )
        if not 0 <= self.min_lr <= self.lr:
            raise UserError(f"evaluate: finetune.min_lr={self.min_lr} must lie between 0 and finetune.lr={self.lr}.")
        _require_share("finetune", label_smoothing=self.label_smoothing, drop_path=self.drop_path)
        _require_share("finetune", random_erasing=self.random_erasing)
        for key in ("layer_decay", "min_crop"):
            if not 0 < getattr(self, key) <= 1:
                raise UserError(f"evaluate: finetune.{key}={getattr(self, key)} must lie above 0 and at most at 1.")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """One encoder on one labelled data set.

    Attributes:
        checkpoint: The encoder: a run folder, an encoder .safetensors, a Composer .pt, timm:NAME or random:NAME.
        data: Folder or URL with train, val and test; each an MDS folder of labelled records or a folder per class.
        data_cache: Folder for the shards of a URL or of compressed shards.
        image_size: Side of the input in pixels; null takes the encoder's own, another value resamples its positions.
        probe: Present: evaluate by a linear probe.
        finetune: Present: evaluate by fine-tuning.
        fraction: Share of the training split to use, drawn per class, at least one image of each; a smaller fraction
            is contained in a larger one of the same seed.
        seeds: One repetition each. A seed draws the share, the head, the order and the augmentation.
        workers: Processes that decode photographs, per rank.
        output: Folder of all runs.
        run_name: Name of this one; null joins encoder, data set and share.
        tracking: Where MLflow is; the pictures and diagnostics that it speaks of are those of pre-training.
    """

    checkpoint: str
    data: str
    data_cache: str | None = None
    image_size: int | None = None
    probe: ProbeConfig | None = None
    finetune: FinetuneConfig | None = None
    fraction: float = 1.0
    seeds: list[int] = field(default_factory=lambda: [0])
    workers: int = 4
    output: str = "runs"
    run_name: str | None = None
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        if self.probe is None and self.finetune is None:
            raise UserError("evaluate: neither probe nor finetune is on.\nWrite `probe: {}`, `finetune: {}` or both.")
        if not 0 < self.fraction <= 1:
            raise UserError(
                f"evaluate: fraction={self.fraction} must lie above 0 and at most at 1; ten per cent is 0.1."
            )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise UserError(
                f"evaluate: seeds={self.seeds} must be distinct numbers from 0, at least one.\nWrite seeds=[0,1,2]."
            )
        if self.run_name is not None and (Path(self.run_name).name != self.run_name or self.run_name in ("", "..")):
            raise UserError(
                f"evaluate: run_name={self.run_name!r} must be a plain name: it names a folder below output."
            )
        if self.workers < 0:
            raise UserError(f"evaluate: workers={self.workers} must be at least 0.")
        if self.image_size is not None:
            _require_positive("", image_size=self.image_size)


def _require_positive(part: str, **values: float) -> None:
    for key, value in values.items():
        if not value > 0 or math.isinf(value):
            raise UserError(f"evaluate: {f'{part}.' if part else ''}{key}={value} must be above 0.")


def _require_share(part: str, **values: float) -> None:
    for key, value in values.items():
        if not 0 <= value < 1:
            raise UserError(f"evaluate: {part}.{key}={value} must be at least 0 and below 1.")
