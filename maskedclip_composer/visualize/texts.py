"""Where in a photograph the patches are like a text."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from maskedclip_composer.callbacks.picture_columns import Cell, Column, Scale
from maskedclip_composer.callbacks.picture_drawing import draw
from maskedclip_composer.objectives.two_tower import TwoTower
from maskedclip_composer.use.dual_tower import DualTower
from maskedclip_composer.use.tokenizer import Tokenizer
from maskedclip_composer.visualize.drawn import Drawn, Shown, Subject, wrapped

_BATCH = 64
_READING = (
    "The cosine of each patch behind the bridge, projected to the CLIP space as if it were a whole image, with the "
    "text above. All texts share one scale of colours, so that they can be compared; below each photograph stands the "
    "cosine of the whole photograph, which zero-shot classification compares."
)
_LIMITS = (
    "This is similarity and no proof of localisation: the training never asked single patches to match words, every "
    "patch has seen all others by attention, and CLIP models are known to be most like a text in places that have "
    "nothing to do with it. Compare texts that contradict each other before a map is believed."
)


def draw_texts(subject: Subject, shown: Shown, texts: Sequence[str]) -> Drawn:
    """Draw a heat map of cosines for each photograph and text."""
    assert subject.tokenizer is not None
    words = text_features(subject.model, subject.tokenizer, texts)
    patches = patch_features(subject.model, shown.images).cpu() @ words.T
    whole = subject.model.encode_image(shown.images).cpu() @ words.T
    low, high = patches.min().item(), patches.max().item()
    scale = Scale("cosine", low, max(high, low + 1e-3))
    columns = [Column("input", [Cell(view) for view in shown.pixels])]
    for number, text in enumerate(texts):
        captions = [f"photograph {value:.3f}" for value in whole[:, number].tolist()]
        cells = zip(shown.pale, patches[:, :, number], captions, strict=True)
        columns.append(Column(wrapped(text), [Cell(*parts) for parts in cells], scale))
    return Drawn(
        name="texts",
        heading="Similarity of patches with texts",
        png=draw(columns, rows=shown.rows, title=subject.title("similarity of patches with texts")),
        reading=_READING,
        limits=_LIMITS,
        numbers={
            "texts": {
                text: {
                    "photographs": whole[:, number].tolist(),
                    "patches_least": patches[:, :, number].min().item(),
                    "patches_mean": patches[:, :, number].mean().item(),
                    "patches_greatest": patches[:, :, number].max().item(),
                }
                for number, text in enumerate(texts)
            }
        },
    )


@torch.no_grad()
def patch_features(
    model: DualTower, images: UInt8[Tensor, "images 3 size size"]
) -> Float[Tensor, "images patches dim"]:
    """Return L2-normalised features of the CLIP space of every patch, each as an image of which it is all patches."""
    assert isinstance(model.joint_space, TwoTower)
    patches = model.bridge_tokens(images)[:, 1:]
    # The heads of a joint space take the class token too, and leave it out: any token may stand in its place.
    alone = patches.flatten(0, 1)[:, None].expand(-1, 2, -1)
    return model.joint_space.embed_images(alone).unflatten(0, patches.shape[:2])


def text_features(model: DualTower, tokenizer: Tokenizer, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
    """Return L2-normalised features of the CLIP space of any number of texts, on the CPU."""
    batches = [texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH)]
    return torch.cat([model.encode_text(**tokenizer(batch)).cpu() for batch in batches])
