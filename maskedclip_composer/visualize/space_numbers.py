"""Numbers about feature spaces that do not depend on a drawing of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

_CHUNK = 1024  # rows of similarities at a time


@dataclass(frozen=True)
class Purity:
    """How far neighbours share a label.

    Attributes:
        share: Of the nearest neighbours that have the photograph's label, mean over photographs.
        chance: The same for neighbours drawn at random among those that may be neighbours.
        per_label: `share` and `chance` over the photographs of each label, by its number.
        neighbours: How many were looked at.
    """

    share: float
    chance: float
    per_label: dict[int, tuple[float, float]]
    neighbours: int


def neighbour_purity(
    features: Float[np.ndarray, "images dim"],
    labels: Int[np.ndarray, " images"],
    *,
    neighbours: int = 10,
    groups: Sequence[object] | None = None,
) -> Purity:
    """Return how often the nearest neighbours by cosine have the same label.

    Args:
        features: Of any length but zero.
        labels: Numbers from 0.
        neighbours: Taken into account; fewer where there are not so many others.
        groups: Photographs of the same group, such as a patient, are no neighbours of each other: two eyes of one
            patient share more than a label. None lets all but the photograph itself be one.

    Raises:
        ValueError: A photograph has no possible neighbour.
    """
    unit = unit_rows(features)
    group = np.arange(len(labels)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    others = len(labels) - np.bincount(group).max()
    if others < 1:
        raise ValueError("all photographs are of one group")
    count = int(min(neighbours, others))
    share, chance = np.empty(len(labels)), np.empty(len(labels))
    for start in range(0, len(labels), _CHUNK):
        rows = slice(start, start + _CHUNK)
        similarity = unit[rows] @ unit.T
        possible = group[rows, None] != group[None]
        similarity[~possible] = -np.inf
        same = labels[rows, None] == labels[None]
        nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        share[rows] = np.take_along_axis(same, nearest, axis=1).mean(axis=1)
        chance[rows] = (same & possible).sum(axis=1) / possible.sum(axis=1)
    per_label = {
        int(label): (float(share[labels == label].mean()), float(chance[labels == label].mean()))
        for label in np.unique(labels)
    }
    return Purity(float(share.mean()), float(chance.mean()), per_label, count)


def linear_cka(
    one: Float[np.ndarray, "images dim"], other: Float[np.ndarray, "images width"], *, debiased: bool = True
) -> float:
    """Return the linear centred kernel alignment of two spaces: 1 where one is the other turned and scaled.

    Kornblith et al. 2019 (arXiv 1905.00414). Their plain form rises towards 1 as features outnumber photographs, also
    between unrelated spaces; the debiased one (Nguyen et al. 2020, arXiv 2010.15327, with the unbiased estimator of
    Song et al. 2012) is about 0 there, and may fall a little below.

    Raises:
        ValueError: There are fewer than four photographs, or all features of a space are equal.
    """
    if len(one) < 4:
        raise ValueError("linear CKA needs four photographs")
    one, other = _centred(one), _centred(other)
    independence = _unbiased_hsic if debiased else _hsic
    scale = independence(one, one) * independence(other, other)
    if not scale > 0:
        raise ValueError("all features of a space are equal")
    return float(independence(one, other) / np.sqrt(scale))


@dataclass(frozen=True)
class Gap:
    """How far images and texts lie apart in the space that they share, in units of its sphere's radius.

    Attributes:
        distance: Between the centroids of images and of texts (Liang et al. 2022, arXiv 2203.02053).
        image_spread: Root mean square distance of images from their centroid, to compare with.
        text_spread: Likewise of texts.
    """

    distance: float
    image_spread: float
    text_spread: float


def modality_gap(images: Float[np.ndarray, "images dim"], texts: Float[np.ndarray, "texts dim"]) -> Gap:
    """Return the gap of L2-normalised features; with pairs give both sides one row a pair."""
    centres = images.mean(axis=0), texts.mean(axis=0)
    spreads = [
        float(np.sqrt(np.square(part - centre).sum(axis=1).mean()))
        for part, centre in zip((images, texts), centres, strict=True)
    ]
    return Gap(float(np.linalg.norm(centres[0] - centres[1])), *spreads)


def unit_rows(features: Float[np.ndarray, "images dim"]) -> Float[np.ndarray, "images dim"]:
    """Return rows of length 1 in float64."""
    rows = np.asarray(features, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _centred(features: Float[np.ndarray, "images dim"]) -> Float[np.ndarray, "images dim"]:
    rows = np.asarray(features, np.float64)
    return rows - rows.mean(axis=0)


def _hsic(one: Float[np.ndarray, "images dim"], other: Float[np.ndarray, "images width"]) -> float:
    return float(np.square(one.T @ other).sum())


def _unbiased_hsic(one: Float[np.ndarray, "images dim"], other: Float[np.ndarray, "images width"]) -> float:
    """Return HSIC_1 of Song et al. 2012 (JMLR 13) of linear kernels, without a matrix of all pairs of images."""
    n = len(one)
    diagonals = np.square(one).sum(axis=1), np.square(other).sum(axis=1)
    rows = [part @ part.sum(axis=0) - own for part, own in zip((one, other), diagonals, strict=True)]
    trace = np.square(one.T @ other).sum() - diagonals[0] @ diagonals[1]
    whole = rows[0].sum() * rows[1].sum() / ((n - 1) * (n - 2))
    return float((trace + whole - 2 / (n - 2) * (rows[0] @ rows[1])) / (n * (n - 3)))
