"""Principal components of patch features as colours."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.decomposition import PCA
from torch import Tensor

from maskedclip_composer.callbacks.picture_columns import Cell, Column, to_pixels
from maskedclip_composer.callbacks.picture_drawing import draw
from maskedclip_composer.visualize.drawn import Drawn, Shown, Subject
from maskedclip_composer.visualize.retina_patches import retina_patches

_SURROUND = 0.85  # grey that no component takes
_READING = (
    "The three directions in which patch features differ most, over all photographs of the picture together, drawn as "
    "red, green and blue: patches of the same colour have similar features, in one photograph and between them. Where "
    "photographs differ as wholes, in light and colour say, that takes the first components; so each space is drawn "
    "again without each photograph's mean ('within'), which leaves what differs inside photographs, such as disc, "
    "vessels and lesions. Percentages are the shares of variance of the three. The black surround is left out, and "
    "drawn grey: otherwise it would be the first component. E_I is the image encoder, whose space masked modelling "
    "shapes; E_I + B are the tokens behind the bridge."
)
_LIMITS = (
    "Colours have no meaning of their own and do not compare between columns. Three directions are a part of what "
    "features tell: see the shares. Red and green cannot be told apart by all readers: what counts is where colours "
    "change."
)
_FEWEST = 4  # patches of retina; three components need as many


def draw_patches(subject: Subject, shown: Shown) -> Drawn:
    """Draw three components of patch features of E_I and, where there is a bridge, of B, with and without means."""
    model = subject.model
    spaces = {"E_I": model.image_tokens}
    if len(model.branch.bridge.blocks):
        spaces["E_I + B"] = model.bridge_tokens
    retina = retina_patches(shown.images, model.branch.image_encoder.patch_size)
    if retina.sum() < _FEWEST:  # no fundus photographs
        retina = torch.ones_like(retina)
    columns = [Column("input", [Cell(view) for view in shown.pixels])]
    numbers: dict[str, Any] = {"patches_of_retina": int(retina.sum())}
    for name, encode in spaces.items():
        tokens = encode(shown.images)[:, 1:].cpu()
        within, between = without_means(tokens, retina)
        numbers[name] = {"variance_between_photographs": between}
        for title, features in ((name, tokens), (f"{name}, within", within)):
            colours, shares = component_colours(features, retina)
            views = [to_pixels(image, shown.images.shape[-1]).permute(2, 0, 1) for image in colours]
            parts = ", ".join(f"{share:.0%}" for share in shares)
            columns.append(Column(f"{title}: {parts}", [Cell(view) for view in views]))
            numbers[name]["explained_variance" if features is tokens else "explained_variance_within"] = shares
    return Drawn(
        name="patches",
        heading="Principal components of patch features",
        png=draw(columns, rows=shown.rows, title=subject.title("patch features")),
        reading=_READING,
        limits=_LIMITS,
        numbers=numbers,
    )


def without_means(
    tokens: Float[Tensor, "images patches dim"], retina: Bool[Tensor, "images patches"]
) -> tuple[Float[Tensor, "images patches dim"], float]:
    """Return features minus the mean of their photograph's retina, and the share of variance that was in the means."""
    weights = retina[:, :, None].float()
    means = (tokens * weights).sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True).clamp(min=1)
    within = tokens - means
    total = (tokens[retina] - tokens[retina].mean(dim=0)).square().sum()
    return within, 1 - (within[retina].square().sum() / total.clamp(min=1e-12)).item()


def component_colours(
    tokens: Float[Tensor, "images patches dim"], retina: Bool[Tensor, "images patches"]
) -> tuple[Float[Tensor, "images patches 3"], list[float]]:
    """Return colours in [0, 1] of patches by three components, and the share of variance of each component.

    Components are of the patches of retina of all images; their signs follow from themselves alone (scikit-learn makes
    the greatest loading positive). Each is stretched from its 2nd to its 98th percentile.
    """
    chosen = tokens[retina].numpy()
    found = PCA(n_components=3, svd_solver="full").fit(chosen)
    values = found.transform(chosen)
    low, high = np.percentile(values, [2, 98], axis=0)
    stretched = ((values - low) / np.maximum(high - low, 1e-12)).clip(0, 1)
    colours = torch.full((*retina.shape, 3), _SURROUND)
    colours[retina] = torch.from_numpy(stretched).float()
    return colours, [float(share) for share in found.explained_variance_ratio_]
