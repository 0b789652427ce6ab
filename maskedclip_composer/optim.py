"""AdamW with MAE's parameter groups, and the learning-rate schedule."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn
from torch.optim import AdamW

from maskedclip_composer.errors import UserError
from maskedclip_composer.times import check_time


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW.

    Attributes:
        base_lr: Learning rate for 256 images: lr = base_lr * batch / 256, where batch is the larger stream's global
            batch size. The paper's 1.5e-4 is read so (`docs/objectives.md`).
        lr: The learning rate itself; when given, base_lr is not used.
        text_lr_mult: The text encoder's learning rate is this times lr.
        betas: AdamW's betas.
        weight_decay: Of all parameters with two or more dimensions; biases, norms and the like have none.
        max_grad_norm: Gradients are scaled down to this global norm; null does not clip.
        warmup: Linear warm-up from 0, a Composer time such as 40ep or 500ba.
        final_lr_factor: The cosine ends at this times lr.
        non_finite: What a step does whose loss or gradient is nan or inf on any rank: stop ends the run before its
            checkpoint, skip leaves weights and teacher as they are and goes on.
        max_skipped: With skip, so many steps in a row are skipped; one more stops the run. null sets no limit.
    """

    base_lr: float = 1.5e-4
    lr: float | None = None
    text_lr_mult: float = 0.1
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    weight_decay: float = 0.05
    max_grad_norm: float | None = 1.0
    warmup: str = "40ep"
    final_lr_factor: float = 0.0
    non_finite: Literal["stop", "skip"] = "stop"
    max_skipped: int | None = 10

    def __post_init__(self):
        for key in ("base_lr", "lr", "text_lr_mult", "max_grad_norm"):
            value = getattr(self, key)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"optimizer.{key}={value} is not positive.\nUse a positive value.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"optimizer.betas={list(self.betas)} must be two numbers in [0, 1), such as [0.9, 0.95].")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"optimizer.weight_decay={self.weight_decay} is negative.\nUse 0 for none.")
        if not 0 <= self.final_lr_factor <= 1:
            raise UserError(f"optimizer.final_lr_factor={self.final_lr_factor} is outside [0, 1].\nUse 0 to end at 0.")
        if self.max_skipped is not None and self.max_skipped < 1:
            raise UserError(
                f"optimizer.max_skipped={self.max_skipped} skips nothing.\nUse 1 or more, null for no limit, or "
                "optimizer.non_finite=stop."
            )
        if self.non_finite == "stop" and self.max_skipped != OptimizerConfig.max_skipped:
            raise UserError(
                f"optimizer.max_skipped={self.max_skipped} is not read with optimizer.non_finite=stop.\n"
                "Remove it, or use optimizer.non_finite=skip."
            )
        check_time("optimizer.warmup", self.warmup, zero=True)

    def learning_rate(self, batch_size: int) -> float:
        """Return the peak learning rate for a global batch size."""
        return self.lr if self.lr is not None else self.base_lr * batch_size / 256


def build_optimizer(config: OptimizerConfig, net: nn.Module, batch_size: int, *, fused: bool = True) -> AdamW:
    """Build AdamW over the parameters of `net` that are trained, grouped by weight decay and by learning rate.

    Args:
        config: The hyper-parameters.
        net: What is trained; names that begin with `text_encoder.` have the text tower's learning rate.
        batch_size: Global batch size that `base_lr` is scaled by.
        fused: Use torch's kernel that updates many parameters at once, on CUDA and on the CPU (torch 2.4 and later);
            false updates them one by one, with the same result within rounding.
    """
    lr = config.learning_rate(batch_size)
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        is_text, decays = name.startswith("text_encoder."), parameter.ndim > 1
        group = groups.setdefault(
            (is_text, decays),
            {
                "params": [],
                "lr": lr * (config.text_lr_mult if is_text else 1.0),
                "weight_decay": config.weight_decay if decays else 0.0,
                "name": ("text" if is_text else "image") + ("" if decays else "_no_decay"),
            },
        )
        group["params"].append(parameter)
    beta1, beta2 = config.betas
    return AdamW(list(groups.values()), lr=lr, betas=(beta1, beta2), fused=fused, foreach=False)
