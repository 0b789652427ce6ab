"""Principal components of patch features as colours."""

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
    "red, green and blue: patches of the same colour have similar features, in one photograph and between them. The "
    "black surround is left out, and drawn grey: otherwise it would be the first component. Left the image encoder "
    "E_I, whose space masked modelling shapes; right the tokens behind the bridge B. The title says how much of the "
    "variance each colour carries."
)
_LIMITS = (
    "Colours have no meaning of their own and do not compare between columns. Three directions are a part of what "
    "features tell: see the shares. Red and green cannot be told apart by all readers: what counts is where colours "
    "change."
)


def draw_patches(subject: Subject, shown: Shown) -> Drawn:
    """Draw the first three components of patch features of E_I and, where there is a bridge, of B.

    The photographs have together four patches of retina or more.
    """
    model = subject.model
    patch_size, size = model.branch.image_encoder.patch_size, shown.images.shape[-1]
    spaces = {"E_I": model.image_tokens}
    if len(model.branch.bridge.blocks):
        spaces["E_I + B"] = model.bridge_tokens
    retina = retina_patches(shown.images, patch_size)
    columns = [Column("input", [Cell(view) for view in shown.pixels])]
    numbers = {}
    for name, encode in spaces.items():
        colours, shares = component_colours(encode(shown.images)[:, 1:].cpu(), retina)
        views = torch.stack([to_pixels(image, size).permute(2, 0, 1) for image in colours])
        parts = ", ".join(f"{share:.0%}" for share in shares)
        columns.append(Column(f"{name}: {parts}", [Cell(view) for view in views]))
        numbers[name] = {"explained_variance": shares}
    numbers["patches_of_retina"] = int(retina.sum())
    return Drawn(
        name="patches",
        heading="Principal components of patch features",
        png=draw(columns, rows=shown.rows, title=subject.title("patch features")),
        reading=_READING,
        limits=_LIMITS,
        numbers=numbers,
    )


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
