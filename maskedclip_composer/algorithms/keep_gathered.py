"""Lets FSDP2 work with chunks that are computed again in the backward pass."""

from composer.core import Algorithm, Event, State
from composer.loggers import Logger
from torch.distributed.fsdp import FSDPModule


class KeepGathered(Algorithm):
    """Keep the parameters of a unit whole from its first use in the backward pass to the end of that pass.

    FSDP2 (torch 2.7.0) takes a forward pass within the backward pass for one whose parameters it has just brought
    together, and does nothing. With chunks a unit's forward pass runs again after the backward pass of another chunk,
    which has sharded the parameters. Costs the memory of all whole parameters at the end of the backward pass.
    """

    def match(self, event: Event, state: State) -> bool:
        """Run when the model is wrapped, and after each backward pass before anything looks at gradients."""
        return event in (Event.FIT_START, Event.AFTER_BACKWARD)

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        """Set it for every unit, or shard all of them again."""
        for module in state.model.modules():
            if isinstance(module, FSDPModule):
                if event == Event.FIT_START:
                    module.set_reshard_after_backward(False, recurse=False)
                else:
                    module.reshard()
