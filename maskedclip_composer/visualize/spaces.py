"""The masked space and the CLIP space of the same photographs, as a picture and as numbers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from maskedclip_composer.errors import UserError
from maskedclip_composer.visualize.drawn import Drawn
from maskedclip_composer.visualize.scatter import Panel, draw_panels
from maskedclip_composer.visualize.space_numbers import linear_cka, modality_gap, neighbour_purity, unit_rows

LEAST = 3  # photographs
FEWEST = 30  # photographs: below, t-SNE draws clusters of anything
_PERPLEXITY = 30.0
_READING = (
    "Every point is a photograph, in the masked space (mean patch of E_I, which classification reads) and in the CLIP "
    "space (behind the bridge and its projection, which texts are compared with). MaskedCLIP claims that the bridge "
    "lets each space keep its own structure. Read the numbers first. Purity: the share of the nearest neighbours by "
    "cosine, in the whole space and not in the drawing, that have a photograph's label; chance is what neighbours "
    "drawn at random would have. CKA: 1 where the two spaces arrange the photographs alike, 0 where they have nothing "
    "to do with each other (linear, debiased). Modality gap: how far the centres of images and texts lie apart in the "
    "CLIP space, beside how widely each spreads around its centre; the space is a sphere of radius 1."
)
_LIMITS = (
    "Purity depends on how often labels occur, on what a label means and on the camera: photographs of one clinic may "
    "be neighbours for their camera alone, so compare spaces of the same photographs only. Several labels of one "
    "photograph count as a label of their own."
)
_TSNE = (
    " In t-SNE neither sizes of clusters nor distances between them mean anything, and another seed draws another "
    "picture."
)
_FEW = (
    f" There are fewer than {FEWEST} photographs, of which t-SNE would draw clusters where there are none: their first "
    "two principal components are drawn instead."
)


@dataclass(frozen=True, kw_only=True)
class Points:
    """Photographs with their features.

    Attributes:
        masked: Features of the masked space.
        clip: L2-normalised features of the CLIP space; None where the model has none.
        labels: Colour; None for a photograph without one. None where no column was named.
        sets: Marker, likewise.
        patients: Of each photograph; they are no neighbours of themselves. None where it is not known.
        texts: L2-normalised features of texts in the CLIP space; None without texts.
        texts_are: Says which texts they are.
    """

    masked: Float[np.ndarray, "images dim"]
    clip: Float[np.ndarray, "images width"] | None = None
    labels: Sequence[str | None] | None = None
    sets: Sequence[str | None] | None = None
    patients: Sequence[str] | None = None
    texts: Float[np.ndarray, "texts width"] | None = None
    texts_are: str = ""


def draw_spaces(points: Points, *, title: str, seed: int) -> Drawn:
    """Draw both spaces side by side.

    Args:
        points: Three photographs or more.
        title: Names the model.
        seed: Of t-SNE.

    Raises:
        UserError: There are fewer than three photographs.
    """
    count = len(points.masked)
    if count < LEAST:
        raise UserError(f"Two spaces cannot be compared on {count} photographs.\nGive 30 or more.")
    spaces = {"masked space (E_I)": points.masked}
    if points.clip is not None:
        spaces["CLIP space (E_I + B, projected)"] = points.clip
    method = "t-SNE" if count >= FEWEST else "principal components"
    numbers: dict[str, Any] = {"photographs": count, "method": method, "seed": seed}
    panels = []
    for name, features in spaces.items():
        said, found = _purity(points, features)
        numbers[name] = found
        panels.append(Panel(f"{name}\n{said}".strip(), flat(features, seed)))
    notes = []
    if points.clip is not None and count >= 4:
        numbers["linear_cka_debiased"] = linear_cka(points.masked, points.clip)
        numbers["linear_cka"] = linear_cka(points.masked, points.clip, debiased=False)
        notes.append(f"CKA of the two spaces {numbers['linear_cka_debiased']:.2f}")
    if points.clip is not None and points.texts is not None:
        gap = modality_gap(points.clip, points.texts)
        numbers["modality_gap"] = {**asdict(gap), "texts": len(points.texts), "texts_are": points.texts_are}
        notes.append(
            f"modality gap {gap.distance:.2f} (spread of images {gap.image_spread:.2f}, of {len(points.texts)} "
            f"{points.texts_are} {gap.text_spread:.2f})"
        )
    heading = "\n".join([f"{title}, {count} photographs", ", ".join(notes)]).strip()
    return Drawn(
        name="spaces",
        heading="Masked space and CLIP space",
        png=draw_panels(panels, labels=points.labels, sets=points.sets, title=heading, axis=method),
        reading=_READING,
        limits=_LIMITS + (_TSNE if count >= FEWEST else _FEW),
        numbers=numbers,
    )


def flat(features: Float[np.ndarray, "images dim"], seed: int) -> Float[np.ndarray, "images 2"]:
    """Return a place in the plane for each row, by direction alone: t-SNE, or principal components of few rows."""
    unit = unit_rows(features)
    if len(unit) < FEWEST:
        return PCA(n_components=2, svd_solver="full").fit_transform(unit)
    perplexity = min(_PERPLEXITY, (len(unit) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(unit)


def _purity(points: Points, features: Float[np.ndarray, "images dim"]) -> tuple[str, dict[str, Any]]:
    """Return a line below the space's name, and numbers; photographs without a label are left out."""
    if points.labels is None:
        return "", {}
    rows = [row for row, label in enumerate(points.labels) if label is not None]
    names, labels = np.unique([str(points.labels[row]) for row in rows], return_inverse=True)
    groups = None if points.patients is None else [points.patients[row] for row in rows]
    if len(names) < 2 or len(set(groups or rows)) < 2:
        return "fewer than two labels: no purity", {}
    found = neighbour_purity(features[rows], labels, groups=groups)
    return (
        f"purity of {found.neighbours} neighbours {found.share:.2f} (chance {found.chance:.2f})",
        {
            "purity": found.share,
            "purity_by_chance": found.chance,
            "neighbours": found.neighbours,
            "purity_per_label": {
                str(names[label]): {"purity": share, "by_chance": chance}
                for label, (share, chance) in found.per_label.items()
            },
            "patients_apart": groups is not None,
        },
    )
