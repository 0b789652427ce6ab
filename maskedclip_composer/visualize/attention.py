"""Attention rollout over photographs, from the masked space and from behind the bridge."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from maskedclip_composer.callbacks.picture_columns import Cell, Column, Scale
from maskedclip_composer.callbacks.picture_drawing import draw
from maskedclip_composer.visualize.drawn import Drawn, Shown, Subject
from maskedclip_composer.visualize.retina_patches import retina_patches
from maskedclip_composer.visualize.rollout import recorded, rollout, start_at

_READING = (
    "How much each patch weighs in the features by attention alone, all layers together (attention rollout, Abnar and "
    "Zuidema 2020): 1 is the share that a patch has when all weigh the same. Features of this model are the mean of "
    "its patches, so the columns 'mean patch' are about them; the class token only stands by as context. E_I is the "
    "image encoder, whose features downstream classification reads; E_I + B goes on through the bridge to the CLIP "
    "space. All maps share one scale of colours. The numbers below say how much of the weight lies on patches of the "
    "black surround, and how much of the picture those are."
)
_LIMITS = (
    "Rollout follows attention and leaves out what the values and the MLPs do with it. It is the same for every "
    "class and every text: it shows where information can come from, not why a diagnosis was made. Deep networks "
    "spread their attention, so that maps of many layers are flatter than those of few."
)
_ENDS = (0.01, 0.99)  # quantiles; single patches would take the colours of all others


@torch.no_grad()
def draw_attention(subject: Subject, shown: Shown) -> Drawn:
    """Draw the rollout of the class token and of the mean patch, for E_I and, where there is a bridge, E_I + B."""
    model = subject.model
    surround = ~retina_patches(shown.images, model.branch.image_encoder.patch_size)
    relative = {
        name: weights * weights.shape[1] / weights.sum(dim=1, keepdim=True)
        for name, weights in rollouts(subject, shown.images).items()
    }
    everything = torch.cat(list(relative.values()))
    low, high = (float(everything.quantile(end)) for end in _ENDS)
    scale = Scale("times the even share", low, max(high, low + 1e-3), has_lower=True, has_higher=True)
    areas = surround.float().mean(dim=1).tolist()
    columns = [Column("input", [Cell(view) for view in shown.pixels])]
    numbers: dict[str, Any] = {}
    for name, heats in relative.items():
        on_surround = (heats * surround).mean(dim=1)
        captions = [
            f"surround {share:.0%} of weight, {area:.0%} of area"
            for share, area in zip(on_surround.tolist(), areas, strict=True)
        ]
        cells = [Cell(*parts) for parts in zip(shown.pale, heats, captions, strict=True)]
        columns.append(Column(name, cells, scale))
        numbers[name] = {
            "weight_on_surround": on_surround.mean().item(),
            "greatest": heats.max().item(),
            "least": heats.min().item(),
        }
    numbers["area_of_surround"] = surround.float().mean().item()
    return Drawn(
        name="attention",
        heading="Attention rollout",
        png=draw(columns, rows=shown.rows, title=subject.title("attention rollout")),
        reading=_READING,
        limits=_LIMITS,
        numbers=numbers,
    )


@torch.no_grad()
def rollouts(subject: Subject, images: Tensor) -> dict[str, Float[Tensor, "images patches"]]:
    """Return the weights of patches by what they are the weights in; the class token's own weight is left out."""
    branch = subject.model.branch
    with recorded(branch.image_encoder, branch.bridge) as (of_encoder, of_bridge):
        subject.model.bridge_tokens(images)
    layers = {"E_I": of_encoder} | ({"E_I + B": of_encoder + of_bridge} if of_bridge else {})
    found = {}
    for name, attentions in layers.items():
        for start, class_token in (("mean patch", False), ("class token", True)):
            weights = rollout(attentions, start_at(attentions[0].shape[-1], class_token=class_token).to(images.device))
            found[f"{name}, {start}"] = weights[:, 1:].cpu()
    return found
