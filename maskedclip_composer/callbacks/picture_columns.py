"""What pictures of a step show: columns beside its images, and maps that all its images share.

A further objective's picture is a function in `COLUMNS` or `MAPS`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from maskedclip_composer.models.vit import IMAGE_MEAN, IMAGE_STD
from maskedclip_composer.objectives.mim import patchify

HIDDEN_GREY = 0.5


@dataclass(frozen=True)
class Step:
    """The images of a step that are drawn, and all that the model returned in it.

    Attributes:
        images: The chosen images, [chosen, 3, size, size] uint8 on the CPU.
        outputs: The model's outputs for all images of this rank, paired first.
        rows: Which of those the chosen ones are, [chosen] int64 in increasing order, on the CPU.
        mean: What the model normalises images with, per channel in units of 0 to 1.
        std: Likewise.
    """

    images: UInt8[Tensor, "chosen 3 size size"]
    outputs: dict[str, dict[str, Tensor]]
    rows: Tensor
    mean: tuple[float, ...] = IMAGE_MEAN
    std: tuple[float, ...] = IMAGE_STD

    def chosen(self, values: Tensor) -> Tensor:
        """Return the chosen rows of what has one row an image, float32 on the CPU."""
        return values.detach()[self.rows.to(values.device)].float().cpu()

    def shown(self, name: str) -> Tensor | None:
        """Return what an objective left by `views.show`, if it did."""
        return self.outputs.get("shown", {}).get(name)

    @property
    def pixels(self) -> Tensor:
        """The chosen images, float32 in [0, 1]."""
        return self.images.float() / 255


@dataclass(frozen=True)
class Scale:
    """The colours of a heat map; values outside are drawn as the nearest end.

    Attributes:
        label: What the values are; empty where `ticks` say it.
        low: Value of the first colour.
        high: Value of the last colour.
        colours: A colour map of matplotlib.
        has_lower: Say by the colour bar's end that there may be values below `low`.
        has_higher: Likewise above `high`.
        ticks: Names of values, in place of numbers.
    """

    label: str
    low: float
    high: float
    colours: str = "viridis"
    has_lower: bool = False
    has_higher: bool = False
    ticks: dict[float, str] | None = None


@dataclass(frozen=True)
class Cell:
    """One image of a column.

    Attributes:
        view: [3, size, size] float32 in [0, 1].
        heat: Values of a square of patches over it, [patches] float32, row by row; nothing is drawn over NaN.
        caption: Below the image.
    """

    view: Tensor
    heat: Tensor | None = None
    caption: str = ""


@dataclass(frozen=True)
class Column:
    """One view of all chosen images.

    Attributes:
        title: Above the column.
        cells: One for each chosen image; None leaves its place empty.
        scale: Of the heat maps, if there are any.
    """

    title: str
    cells: Sequence[Cell | None]
    scale: Scale | None = None


@dataclass(frozen=True)
class Map:
    """Values of a square of patches that belong to no image.

    Attributes:
        name: Begins the file's name.
        title: Above the map.
        values: [patches] float32, row by row.
        scale: Their colours.
        caption: Below the map.
    """

    name: str
    title: str
    values: Tensor
    scale: Scale
    caption: str = ""


def mim_columns(step: Step) -> list[Column]:
    """Return masked input and reconstruction of masked image modelling."""
    if "mim" not in step.outputs:
        return []
    masked, reconstruction, share = _reconstruction(step, "mim")
    return [Column(f"masked, {share:.0%} removed", masked), Column("reconstruction", reconstruction)]


def att_mim_columns(step: Step) -> list[Column]:
    """Return what the text attends to, what is hidden for it, and the reconstruction."""
    scores = step.shown("att_mim_score")
    if "att_mim" not in step.outputs or scores is None:
        return []
    hidden, reconstruction, share = _reconstruction(step, "att_mim")
    return [
        Column("score of the text's attention", _score_cells(step, step.chosen(scores)), SCORE),
        Column(f"features hidden, {share:.0%}", hidden),
        Column("reconstruction with the text", reconstruction),
    ]


def mfd_columns(step: Step) -> list[Column]:
    """Return the cosine of distilled features with the teacher's."""
    if "mfd" not in step.outputs:
        return []
    prediction, target = (step.chosen(step.outputs["mfd"][key]) for key in ("prediction", "target"))
    cosine = torch.cosine_similarity(prediction, target, dim=-1)
    cells: list[Cell | None] = [
        Cell(view, heat, f"mean {heat.mean().item():.3f}") for view, heat in zip(_grey(step), cosine, strict=True)
    ]
    return [Column("cosine to the teacher's features", cells, COSINE)]


def patch_sentence_columns(step: Step) -> list[Column]:
    """Return the cosine of visible patches with the nearest sentence of their text; unpaired images stay empty."""
    heats = step.shown("patch_sentence")
    if heats is None:
        return []
    cells: list[Cell | None] = []
    for view, row in zip(_grey(step), step.rows.tolist(), strict=True):
        if row >= len(heats):
            cells.append(None)
            continue
        heat = heats[row].detach().float().cpu()
        removed = to_pixels(heat.isnan(), view.shape[-1])
        cells.append(Cell(view.masked_fill(removed, HIDDEN_GREY), heat, f"mean {heat.nanmean().item():.3f}"))
    return [Column("cosine to the nearest sentence", cells, COSINE)] if any(cells) else []


def phi_map(step: Step) -> Map | None:
    """Return the importance that semantic integrity gives to each place, as in MLIP's figure 3a."""
    shown = step.shown("integrity_phi")
    if shown is None:
        return None
    phi = shown.detach().float().cpu()
    # White is 0, so that what counts for and what against an image's integrity differ in colour.
    largest = phi.abs().nan_to_num(0, posinf=0).max().item() or 1.0
    if phi.any():
        caption = f"{phi.min().item():.2g} to {phi.max().item():.2g}"
    else:
        caption = "all zero: not learnt yet, or not at all (modes none and weight)"
    scale = Scale("phi", -largest, largest, colours="RdBu_r")
    return Map("phi", "importance of each place for the semantic integrity", phi, scale, caption)


# Scales of cosines are fixed so that pictures of different epochs compare.
COSINE = Scale("cosine", 0, 1, has_lower=True)
# Scores rank the patches of one image: their size differs between images, and with the kind of score.
SCORE = Scale("", 0, 1, ticks={0: "lowest\nof image", 1: "highest\nof image"})

COLUMNS: list[Callable[[Step], list[Column]]] = [mim_columns, att_mim_columns, mfd_columns, patch_sentence_columns]
MAPS: list[Callable[[Step], Map | None]] = [phi_map]


def columns(step: Step) -> list[Column]:
    """Return the input and what the objectives that are on add to it; nothing when none adds anything."""
    added = [column for make in COLUMNS for column in make(step)]
    return [Column("input", [Cell(view) for view in step.pixels]), *added] if added else []


def maps(step: Step) -> list[Map]:
    """Return the maps of the objectives that are on."""
    return [found for make in MAPS if (found := make(step)) is not None]


def _grey(step: Step) -> Tensor:
    return step.pixels.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)


def to_pixels(patches: Tensor, size: int) -> Tensor:
    """Return [size, size, ...] of a square of patches [patches, ...], row by row: each value on its patch's pixels."""
    side = math.isqrt(len(patches))
    return patches.unflatten(0, (side, side)).repeat_interleave(size // side, 0).repeat_interleave(size // side, 1)


def _score_cells(step: Step, scores: Tensor) -> list[Cell | None]:
    low, high = scores.amin(dim=1, keepdim=True), scores.amax(dim=1, keepdim=True)
    # An image whose patches score the same has no highest: all of it is drawn as the lowest.
    heats = (scores - low) / torch.where(high > low, high - low, 1)
    captions = [f"{least.item():.3g} to {most.item():.3g}" for least, most in zip(low, high, strict=True)]
    return [Cell(*parts) for parts in zip(_grey(step), heats, captions, strict=True)]


def _reconstruction(step: Step, name: str) -> tuple[list[Cell | None], list[Cell | None], float]:
    """Return masked input, reconstruction, and the share of patches that is masked."""
    parts = {key: step.chosen(step.outputs[name][key]) for key in ("prediction", "target", "mask")}
    removed = step.shown(f"{name}_removed")
    if removed is not None:  # the objective predicted the removed patches alone
        ids = step.chosen(removed).long()
        patches = patchify(step.images, math.isqrt(parts["prediction"].shape[-1] // 3)).shape[1]
        parts = {key: _at(values, ids, patches) for key, values in parts.items()}
    masked, reconstruction = reconstruct(step.images, **parts, mean=step.mean, std=step.std)
    return [Cell(view) for view in masked], [Cell(view) for view in reconstruction], parts["mask"].mean().item()


def _at(values: Tensor, ids: Tensor, patches: int) -> Tensor:
    """Put values of some patches [images, ids, ...] where they belong among zeros [images, patches, ...]."""
    whole = values.new_zeros(len(values), patches, *values.shape[2:])
    return whole.scatter_(1, ids.view(*ids.shape, *[1] * (values.ndim - 2)).expand_as(values), values)


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
    removed = mask[:, :, None] > 0
    if not torch.allclose(target * removed, normalised * removed, atol=1e-2):
        variance = normalised.var(dim=-1, keepdim=True)
        prediction = prediction * (variance + 1e-6).sqrt() + normalised.mean(dim=-1, keepdim=True)
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
