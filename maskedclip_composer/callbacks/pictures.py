"""Pictures of what the objectives have learnt."""

from pathlib import Path

import numpy as np
import torch
from composer.core import Callback, State, Time, TimeUnit
from composer.loggers import Logger
from composer.utils import dist

from maskedclip_composer.callbacks.atomic import write_whole
from maskedclip_composer.callbacks.picture_columns import Step, columns, maps
from maskedclip_composer.callbacks.picture_drawing import draw, draw_map
from maskedclip_composer.callbacks.tracking import FaultTolerantMLFlowLogger
from maskedclip_composer.models.vit import IMAGE_MEAN, IMAGE_STD
from maskedclip_composer.types import Batch


class Pictures(Callback):
    """Draw a few images of the step: input, reconstructions and heat maps over patches.

    Rank 0 draws from the step's own outputs, without a further forward pass, into `ba0000300.png`, and maps that
    belong to no image into files such as `phi-ba0000300.png`; MLflow gets the files too. Columns of an objective
    that is off are left out; with none that has any nothing is drawn.

    Args:
        interval: A Composer time in epochs or steps; the last step is always drawn.
        num_pictures: Images per picture, spread over the batch: paired images come first in it.
        folder: Where the files go.
        tracker: Takes the files too; None when MLflow is off.
        mean: What the model normalises images with, per channel in units of 0 to 1.
        std: Likewise.
    """

    def __init__(
        self,
        interval: str,
        num_pictures: int,
        folder: Path,
        tracker: FaultTolerantMLFlowLogger | None,
        *,
        mean: tuple[float, ...] = IMAGE_MEAN,
        std: tuple[float, ...] = IMAGE_STD,
    ):
        self.interval = Time.from_input(interval)
        self.num_pictures = num_pictures
        self.folder = folder
        self.tracker = tracker
        self.mean = mean
        self.std = std

    def batch_end(self, state: State, logger: Logger) -> None:
        """Draw when due: at an epoch's last step rather than at its end, as evaluation overwrites the outputs."""
        if dist.get_global_rank() == 0 and is_due(state, self.interval):
            self._draw(state)

    def _draw(self, state: State) -> None:
        batch: Batch = state.batch
        images = torch.cat([part["image"] for part in (batch.get("paired"), batch.get("unpaired")) if part])
        pairs = len(batch["paired"]["image"]) if "paired" in batch else 0
        rows = torch.as_tensor(np.linspace(0, len(images) - 1, min(self.num_pictures, len(images))).round().astype(int))
        step = Step(
            images[rows.to(images.device)].cpu(),
            state.outputs,  # pyright: ignore[reportArgumentType]
            rows,
            self.mean,
            self.std,
        )
        now = state.timestamp
        name = f"ba{now.batch.value:07d}.png"
        title = f"{state.run_name}, epoch {now.epoch.value + 1}, step {now.batch.value}"
        if found := columns(step):
            labels = [f"{'paired' if row < pairs else 'unpaired'} {row}" for row in rows.tolist()]
            self._write(name, draw(found, rows=labels, title=title))
        for drawn in maps(step):
            self._write(f"{drawn.name}-{name}", draw_map(drawn, title=title))

    def _write(self, name: str, picture: bytes) -> None:
        path = self.folder / name
        write_whole(path, picture)
        if self.tracker is not None:
            self.tracker.log_artifact(path, "pictures")


def is_due(state: State, interval: Time) -> bool:
    """Return whether the step that has just ended is the last of an interval or of the run."""
    now = state.timestamp
    if interval.unit == TimeUnit.EPOCH:
        return is_last(state) or (_ends_epoch(state) and (now.epoch.value + 1) % interval.value == 0)
    return is_last(state) or now.batch.value % interval.value == 0


def is_last(state: State) -> bool:
    """Return whether the step that has just ended is the last of the run."""
    end = state.max_duration
    assert end is not None
    if end.unit == TimeUnit.EPOCH:
        return _ends_epoch(state) and state.timestamp.epoch.value + 1 >= end.value
    return state.timestamp.get(end.unit) >= end


def _ends_epoch(state: State) -> bool:
    return state.dataloader_len is not None and state.timestamp.batch_in_epoch.value == state.dataloader_len.value
