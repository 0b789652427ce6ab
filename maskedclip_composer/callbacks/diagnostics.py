"""Numbers that show whether the losses do what they should."""

import psutil
import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist
from torch import Tensor

from maskedclip_composer.algorithms.ema_teacher import unwrap
from maskedclip_composer.callbacks.watch import Watch
from maskedclip_composer.models.pretrain import PretrainNet
from maskedclip_composer.objectives.base import Objective


class Diagnostics(Callback):
    """Log `diagnostics/<objective>/*` every `interval` steps, from the step's outputs on rank 0.

    Args:
        interval: Steps between two records; the first step is recorded.
        watch: Judges them, on every rank.
    """

    def __init__(self, interval: int, watch: Watch | None = None):
        self.interval = interval
        self._watch = watch

    def after_train_batch(self, state: State, logger: Logger) -> None:
        """Log with the step number that Composer gives to the losses of the same step."""
        step = state.timestamp.batch.value
        if step % self.interval != 0:
            return
        found: list[dict[str, float]] = [{}]
        if dist.get_global_rank() == 0:
            outputs: dict[str, dict[str, Tensor]] = state.outputs  # pyright: ignore[reportAssignmentType]
            found[0] = diagnose(unwrap(state.model).net, outputs)
        logger.log_metrics({f"diagnostics/{name}": value for name, value in found[0].items()})
        if self._watch is not None:
            dist.broadcast_object_list(found)
            self._watch.judge(found[0], step + 1, logger)


class HostMemory(Callback):
    """Log this process's resident memory as `diagnostics/host_memory_gib`; Composer's MemoryMonitor knows CUDA alone.

    Args:
        interval: Steps between two records.
    """

    def __init__(self, interval: int):
        self.interval = interval
        self._process = psutil.Process()

    def after_train_batch(self, state: State, logger: Logger) -> None:
        """Log the memory; loader workers are processes of their own and not counted."""
        if state.timestamp.batch.value % self.interval == 0:
            logger.log_metrics({"diagnostics/host_memory_gib": self._process.memory_info().rss / 2**30})


@torch.no_grad()
def diagnose(net: PretrainNet, outputs: dict[str, dict[str, Tensor]]) -> dict[str, float]:
    """Return what each objective says of a step's outputs, as `<objective>/<number>`."""
    metrics: dict[str, Tensor] = {}
    for name, objective in net.objectives.items():
        assert isinstance(objective, Objective)
        detached = {key: value.detach() for key, value in outputs[name].items()}
        metrics |= {f"{name}/{key}": value for key, value in objective.diagnose(**detached).items()}
    return {name: value.item() for name, value in metrics.items()}
