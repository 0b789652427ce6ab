"""Pictures of what masked image modelling and feature distillation have learnt."""

import io
import math
from pathlib import Path

import numpy as np
import torch
from composer.core import Callback, State, Time, TimeUnit
from composer.loggers import Logger
from composer.utils import dist
from jaxtyping import Float, UInt8
from torch import Tensor

from maskedclip_composer.callbacks.atomic import write_whole
from maskedclip_composer.callbacks.tracking import FaultTolerantMLFlowLogger
from maskedclip_composer.models.vit import IMAGE_MEAN, IMAGE_STD
from maskedclip_composer.objectives.mim import patchify
from maskedclip_composer.types import Batch

HIDDEN_GREY = 0.5


class Pictures(Callback):
    """Draw a few images of the step: input, masked input, reconstruction, and cosine of the distilled features.

    Rank 0 draws from the step's own outputs, without a further forward pass, into `ba0000300.png`; MLflow gets
    the file too. Columns of an objective that is off are left out; with neither on nothing is drawn.

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
        outputs: dict[str, dict[str, Tensor]] = state.outputs  # pyright: ignore[reportAssignmentType]
        if "mim" not in outputs and "mfd" not in outputs:
            return
        batch: Batch = state.batch
        images = torch.cat([part["image"] for part in (batch.get("paired"), batch.get("unpaired")) if part])
        kinds = ["paired"] * (len(images) - len(batch["unpaired"]["image"]) if "unpaired" in batch else len(images))
        kinds += ["unpaired"] * (len(images) - len(kinds))
        chosen = np.linspace(0, len(images) - 1, min(self.num_pictures, len(images))).round().astype(int)
        rows = torch.as_tensor(chosen, device=images.device)
        shown = {
            name: {key: value[rows].detach().float().cpu() for key, value in outputs[name].items()}
            for name in ("mim", "mfd")
            if name in outputs
        }
        step = state.timestamp
        path = self.folder / f"ba{step.batch.value:07d}.png"
        picture = draw(
            images[rows].cpu(),
            shown,
            rows=[f"{kinds[index]} {index}" for index in chosen],
            title=f"{state.run_name}, epoch {step.epoch.value + 1}, step {step.batch.value}",
            mean=self.mean,
            std=self.std,
        )
        write_whole(path, picture)
        if self.tracker is not None:
            self.tracker.log_artifact(path, "pictures")


def is_due(state: State, interval: Time) -> bool:
    """Return whether the step that has just ended is the last of an interval or of the run."""
    now = state.timestamp
    ends_epoch = state.dataloader_len is not None and now.batch_in_epoch.value == state.dataloader_len.value
    end = state.max_duration
    assert end is not None
    if end.unit == TimeUnit.EPOCH:
        is_last = ends_epoch and now.epoch.value + 1 >= end.value
    else:
        is_last = now.get(end.unit) >= end
    if interval.unit == TimeUnit.EPOCH:
        return is_last or (ends_epoch and (now.epoch.value + 1) % interval.value == 0)
    return is_last or now.batch.value % interval.value == 0


def reconstruct(
    images: UInt8[Tensor, "images 3 size size"],
    prediction: Float[Tensor, "images patches values"],
    target: Float[Tensor, "images patches values"],
    mask: Float[Tensor, "images patches"],
    *,
    mean: tuple[float, ...] = IMAGE_MEAN,
    std: tuple[float, ...] = IMAGE_STD,
) -> tuple[Float[Tensor, "images 3 size size"], Float[Tensor, "images 3 size size"]]:
    """Return the masked input and the input with predicted patches in place of the removed ones, in [0, 1].

    Args:
        images: The step's input.
        prediction: Normalised pixels, values ordered row, column, channel; or those normalised by each
            patch's mean and variance, which is put back from the true patch, as MAE's pictures do.
        target: What `prediction` is trained towards; tells the two apart.
        mask: 1 where a patch was removed.
        mean: What the model normalises images with, per channel in units of 0 to 1.
        std: Likewise.
    """
    patch_size = math.isqrt(prediction.shape[-1] // 3)
    # Values of a patch are ordered row, column, channel.
    shift, scale = (torch.tensor(value).repeat(patch_size**2) for value in (mean, std))
    visible = patchify(images.float() / 255, patch_size)
    normalised = (visible - shift) / scale
    if not torch.allclose(target, normalised, atol=1e-2):
        variance = normalised.var(dim=-1, keepdim=True)
        prediction = prediction * (variance + 1e-6).sqrt() + normalised.mean(dim=-1, keepdim=True)
    removed = mask[:, :, None] > 0
    predicted = (prediction * scale + shift).clamp(0, 1)
    size = images.shape[-1]
    grey = torch.full_like(visible, HIDDEN_GREY)
    return (
        unpatchify(torch.where(removed, grey, visible), patch_size, size),
        unpatchify(torch.where(removed, predicted, visible), patch_size, size),
    )


def unpatchify(
    patches: Float[Tensor, "images patches values"], patch_size: int, size: int
) -> Float[Tensor, "images 3 size size"]:
    """Undo `objectives.mim.patchify` for square images."""
    side = size // patch_size
    grid = patches.reshape(len(patches), side, side, patch_size, patch_size, 3)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), 3, size, size)


def draw(
    images: UInt8[Tensor, "images 3 size size"],
    outputs: dict[str, dict[str, Tensor]],
    *,
    rows: list[str],
    title: str,
    mean: tuple[float, ...] = IMAGE_MEAN,
    std: tuple[float, ...] = IMAGE_STD,
) -> bytes:
    """Draw one row per image and one column per view.

    Args:
        images: The step's input.
        outputs: Entries `mim` and `mfd` of the model's outputs, for these images alone, in float32.
        rows: A label per image.
        title: Above the picture.
        mean: What the model normalises images with, per channel in units of 0 to 1.
        std: Likewise.

    Returns:
        A PNG file.
    """
    # Here and not above: matplotlib takes half a second, and pyplot, with its global state, is not needed.
    from matplotlib.figure import Figure

    pixels = images.float() / 255
    columns = [("input", pixels)]
    if "mim" in outputs:
        masked, reconstruction = reconstruct(images, **outputs["mim"], mean=mean, std=std)
        share = outputs["mim"]["mask"].mean().item()
        columns += [(f"masked, {share:.0%} removed", masked), ("reconstruction", reconstruction)]
    cosine = None
    if "mfd" in outputs:
        cosine = torch.cosine_similarity(outputs["mfd"]["prediction"], outputs["mfd"]["target"], dim=-1)
        columns.append(("cosine to the teacher's features", pixels.mean(dim=1, keepdim=True).expand_as(pixels)))

    side, width = 2.6, len(columns)
    figure = Figure(figsize=(side * width + 1.2, side * len(images) + 0.7), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(len(images), width, squeeze=False)
    for column, (name, views) in enumerate(columns):
        axes[0, column].set_title(name, fontsize=10)
        for axis, view in zip(axes[:, column], views, strict=True):
            axis.imshow(view.permute(1, 2, 0).numpy(), extent=(0, 1, 0, 1))
            axis.set(xticks=[], yticks=[])
    for axis, label in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(label, fontsize=10)
    if cosine is not None:
        grid = math.isqrt(cosine.shape[1])
        heat = None
        for axis, values in zip(axes[:, -1], cosine, strict=True):
            # The scale is fixed so that pictures of different epochs compare.
            heat = axis.imshow(
                values.reshape(grid, grid).numpy(), extent=(0, 1, 0, 1), vmin=0, vmax=1, alpha=0.65, cmap="viridis"
            )
            axis.set_xlabel(f"mean {values.mean().item():.3f}", fontsize=9)
        assert heat is not None
        figure.colorbar(heat, ax=axes[:, -1].tolist(), extend="min", shrink=0.8, label="cosine")
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
