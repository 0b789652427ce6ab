"""Averages the gradients of FSDP2 where its backend does not."""

from composer.core import Algorithm, Event, State
from composer.loggers import Logger
from composer.utils import dist


class MeanOverRanks(Algorithm):
    """Divide gradients by the number of ranks after the backward pass.

    FSDP2 averages gradients with ReduceOp.AVG, which gloo's reduce-scatter takes for a sum without an error (torch
    2.7.0, pytorch/pytorch#162338). NCCL averages, so this is for FSDP on CPUs alone. A step has one microbatch here, so
    the division comes once.
    """

    def match(self, event: Event, state: State) -> bool:
        """Run after the backward pass, before gradients are measured and clipped."""
        return event == Event.AFTER_BACKWARD

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Divide in place."""
        for parameter in state.model.parameters():
            if parameter.grad is not None:
                parameter.grad.div_(dist.get_world_size())
