"""Gradient clipping that logs the norm it found, without waiting for the device."""

import math

from composer.core import Algorithm, Event, Precision, State
from composer.loggers import Logger
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from maskedclip_composer.errors import UserError


class ClipGradients(Algorithm):
    """Scale gradients so that their global norm is at most `max_norm`, log the norm before that, stop at nan or inf.

    Composer's GradientClipping clips alike but keeps the norm to itself, and its OptimizerMonitor sees gradients only
    when they have been clipped. One pass serves both here.

    The norm is read at BATCH_END: Composer 0.32.1 has waited for the device by then, to read the losses, and writes
    checkpoints after. Here nothing waits.

    Args:
        max_norm: Largest norm allowed; None only measures.
    """

    def __init__(self, max_norm: float | None):
        self.max_norm = max_norm
        self._norm: Tensor | None = None

    def match(self, event: Event, state: State) -> bool:
        """Run after the backward pass of a step, before the optimiser, and when the step is done."""
        return event in (Event.AFTER_TRAIN_BATCH, Event.BATCH_END)

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Clip in place; then log `diagnostics/gradient_norm` with the step number of the same step's losses."""
        if event == Event.AFTER_TRAIN_BATCH:
            self._norm = self._clip(state)
        elif self._norm is not None:
            self._report(self._norm.item(), state, logger)
            self._norm = None

    def _clip(self, state: State) -> Tensor:
        # The optimizer's: a walk through all modules of the model, the teacher's included, takes a millisecond or more.
        groups = (group for optimizer in state.optimizers for group in optimizer.param_groups)
        parameters = [parameter for group in groups for parameter in group["params"] if parameter.grad is not None]
        norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if self.max_norm is not None:
            clip_grads_with_norm_(parameters, self.max_norm, norm)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _report(self, norm: float, state: State, logger: Logger) -> None:
        step = int(state.timestamp.batch)  # steps done, this one included; the losses have the number before
        logger.log_metrics({"diagnostics/gradient_norm": norm}, step=step - 1)
        # With fp16 the loss scale starts too high on purpose, and Composer's scaler skips such steps.
        if not math.isfinite(norm) and state.precision != Precision.AMP_FP16:
            raise UserError(
                f"Step {step}: the gradient norm is {norm}, so training has diverged. "
                "Checkpoints are from before this step.\nLower optimizer.lr or optimizer.base_lr, or lengthen "
                "optimizer.warmup, under another run_name."
            )
