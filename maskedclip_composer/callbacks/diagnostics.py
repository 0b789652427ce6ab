"""Numbers that show whether the losses do what they should."""

import psutil
import torch
from composer.core import Callback, State
from composer.loggers import Logger
from torch import Tensor

from maskedclip_composer.losses.contrastive import label_guided_clip_loss, label_guided_floor


class Diagnostics(Callback):
    """Log `diagnostics/*` every `interval` steps, from the step's outputs on rank 0.

    Args:
        interval: Steps between two records; the first step is recorded.
    """

    def __init__(self, interval: int):
        self.interval = interval

    def after_train_batch(self, state: State, logger: Logger) -> None:
        """Log with the step number that Composer gives to the losses of the same step."""
        if state.timestamp.batch.value % self.interval == 0:
            metrics = diagnose(state.outputs)  # pyright: ignore[reportArgumentType]  # Composer types it as tensors
            logger.log_metrics({f"diagnostics/{name}": value for name, value in metrics.items()})


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
def diagnose(outputs: dict[str, dict[str, Tensor]]) -> dict[str, float]:
    """Return what can be said of a step's outputs.

    Args:
        outputs: For each objective that is on, the keyword arguments of its loss.

    Returns:
        With lg_clip: `lg_clip_above_floor`, the loss minus the least value it can have, in nats; `logit_scale`;
        `retrieval_at_1`, the share of images whose nearest text has their label. With mfd: `teacher_patch_variance`,
        the variance of the teacher's features over an image's patches, mean of images and channels; near 0 the teacher
        has collapsed and the objective is void.
    """
    metrics: dict[str, Tensor] = {}
    if "lg_clip" in outputs:
        arguments = {name: value.detach() for name, value in outputs["lg_clip"].items()}
        labels = arguments["labels"]
        similarity = arguments["image_features"].float() @ arguments["text_features"].float().T
        metrics["lg_clip_above_floor"] = label_guided_clip_loss(**arguments) - label_guided_floor(labels)
        metrics["logit_scale"] = arguments["logit_scale"]
        metrics["retrieval_at_1"] = (labels[similarity.argmax(dim=1)] == labels).float().mean()
    if "mfd" in outputs:
        target = outputs["mfd"]["target"].float()
        metrics["teacher_patch_variance"] = target.var(dim=1, correction=0).mean()
    return {name: value.item() for name, value in metrics.items()}
