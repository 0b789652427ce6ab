"""Gradient clipping that keeps the norm it found, without waiting for the device."""

from composer.core import Algorithm, Event, State
from composer.loggers import Logger
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm


class ClipGradients(Algorithm):
    """Scale gradients so that their global norm is at most `max_norm`, and keep the norm before that.

    Composer's GradientClipping clips alike but keeps the norm to itself, and its OptimizerMonitor sees gradients only
    when they have been clipped. One pass serves both here. `FiniteSteps` reads the norm and logs it.

    Args:
        max_norm: Largest norm allowed; None only measures.

    Attributes:
        norm: Of the newest step's gradients, the same on all ranks, on the device; None before the first step.
    """

    def __init__(self, max_norm: float | None):
        self.max_norm = max_norm
        self.norm: Tensor | None = None

    def match(self, event: Event, state: State) -> bool:
        """Run after the backward pass of a step, before the optimiser."""
        return event == Event.AFTER_TRAIN_BATCH

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Clip in place."""
        # The optimizer's: a walk through all modules of the model, the teacher's included, takes a millisecond or more.
        groups = (group for optimizer in state.optimizers for group in optimizer.param_groups)
        parameters = [parameter for group in groups for parameter in group["params"] if parameter.grad is not None]
        norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if self.max_norm is not None:
            clip_grads_with_norm_(parameters, self.max_norm, norm)
        self.norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
