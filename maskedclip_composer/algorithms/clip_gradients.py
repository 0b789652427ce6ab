"""Gradient clipping that logs the norm it found."""

import math

from composer.core import Algorithm, Event, Precision, State
from composer.loggers import Logger
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from maskedclip_composer.errors import UserError


class ClipGradients(Algorithm):
    """Scale gradients so that their global norm is at most `max_norm`, log the norm before that, stop at nan or inf.

    Composer's GradientClipping clips alike but keeps the norm to itself, and its OptimizerMonitor sees gradients only
    when they have been clipped. One pass serves both here.

    Args:
        max_norm: Largest norm allowed; None only measures.
    """

    def __init__(self, max_norm: float | None):
        self.max_norm = max_norm

    def match(self, event: Event, state: State) -> bool:
        """Run after the backward pass of a step, before the optimiser."""
        return event == Event.AFTER_TRAIN_BATCH

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Clip in place and log `diagnostics/gradient_norm`."""
        parameters = [parameter for parameter in state.model.parameters() if parameter.grad is not None]
        norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if self.max_norm is not None:
            clip_grads_with_norm_(parameters, self.max_norm, norm)
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        value = norm.item()
        logger.log_metrics({"diagnostics/gradient_norm": value})
        # With fp16 the loss scale starts too high on purpose, and Composer's scaler skips such steps.
        if not math.isfinite(value) and state.precision != Precision.AMP_FP16:
            raise UserError(
                f"Step {int(state.timestamp.batch) + 1}: the gradient norm is {value}, so training has diverged. "
                "Checkpoints are from before this step.\nLower optimizer.lr or optimizer.base_lr, or lengthen "
                "optimizer.warmup, under another run_name."
            )
