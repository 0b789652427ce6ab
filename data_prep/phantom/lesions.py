"""Lesions: small marks with a shape, a place and a tint, drawn over the healthy fundus."""

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from data_prep.phantom.anatomy import Eye
from data_prep.phantom.raster import Frame
from data_prep.phantom.retina import tint

Kind = Literal[
    "microaneurysms",
    "dot haemorrhages",
    "blot haemorrhages",
    "flame haemorrhages",
    "preretinal haemorrhage",
    "hard exudates",
    "cotton wool spots",
    "drusen",
    "neovascularisation",
]
Place = Literal["posterior pole", "macula", "arcades", "sector", "disc"]

RIM = 0.88  # lesions keep this far inside the field, so that no camera cuts most of them off
CORNERS = 20


@dataclass(frozen=True, kw_only=True)
class Look:
    """How one kind of lesion appears.

    Attributes:
        factor: What it does to red, green and blue.
        radius: Smallest and largest radius, field radii.
        ragged: Irregularity of the outline, 0 is an ellipse.
        stretch: Length over width; the long axis follows the nerve fibres.
        softness: Blur of the edge, field radii.
        behind: Whether the vessels run in front of it.
        cluster: Smallest and largest number of marks in a group; one for scattered lesions.
        line: Width where the marks are lines and not areas.
    """

    factor: tuple[float, float, float]
    radius: tuple[float, float]
    ragged: float = 0.12
    stretch: float = 1.15
    softness: float = 0.003
    behind: bool = False
    cluster: tuple[int, int] = (1, 1)
    line: float | None = None


LOOKS: dict[Kind, Look] = {
    "microaneurysms": Look(factor=(0.66, 0.34, 0.45), radius=(0.009, 0.015)),
    "dot haemorrhages": Look(factor=(0.64, 0.36, 0.45), radius=(0.016, 0.026), ragged=0.12),
    "blot haemorrhages": Look(factor=(0.62, 0.36, 0.45), radius=(0.024, 0.048), ragged=0.15, softness=0.008),
    "flame haemorrhages": Look(
        factor=(0.64, 0.36, 0.44), radius=(0.018, 0.034), ragged=0.2, stretch=3.2, softness=0.008
    ),
    "preretinal haemorrhage": Look(factor=(0.6, 0.28, 0.38), radius=(0.12, 0.18), ragged=0.08, stretch=1.5),
    "hard exudates": Look(
        factor=(1.38, 2.1, 1.9), radius=(0.006, 0.018), ragged=0.2, stretch=1.3, behind=True, cluster=(6, 22)
    ),
    "cotton wool spots": Look(factor=(1.32, 2.0, 2.7), radius=(0.03, 0.055), ragged=0.25, stretch=1.5, softness=0.014),
    "drusen": Look(factor=(1.25, 1.75, 1.6), radius=(0.01, 0.027), ragged=0.12, softness=0.006, behind=True),
    "neovascularisation": Look(factor=(0.68, 0.38, 0.48), radius=(0.05, 0.1), line=0.0075, cluster=(5, 9)),
}


@dataclass(frozen=True, kw_only=True)
class Lesions:
    """All lesions of one kind in one eye.

    Attributes:
        kind: What they are.
        count: Number of marks, or of groups for a kind that comes in groups.
        centres: Middle of each mark, [n, 2] in field radii.
        outlines: Closed outline of each mark, or its course where it is a line, [n, corners, 2].
        opacity: Strength of each mark, [n] in 0-1.
    """

    kind: Kind
    count: int
    centres: np.ndarray
    outlines: np.ndarray
    opacity: np.ndarray


def sample_lesions(rng: np.random.Generator, eye: Eye, kind: Kind, count: int, place: Place) -> Lesions:
    """Scatter `count` lesions (or groups) of a kind over a part of the fundus; the disc and the fovea stay free.

    Args:
        rng: Source of the draw.
        eye: Gives disc and fovea, and with them the direction of the nerve fibres.
        kind: What to draw.
        count: Number of marks or groups, at least 1.
        place: "posterior pole" is everywhere, "macula" around the fovea, "arcades" along the large vessels, "sector"
            one quarter beyond the disc, "disc" at its margin.
    """
    look = LOOKS[kind]
    groups = _places(rng, eye, count, place)
    sizes = rng.integers(look.cluster[0], look.cluster[1] + 1, count)
    centres = np.repeat(groups, sizes, axis=0)
    if look.line is not None:
        outlines = _tangles(rng, centres, look)
        return Lesions(kind=kind, count=count, centres=centres, outlines=outlines, opacity=np.full(len(centres), 0.9))
    if look.cluster[1] > 1:
        # Exudates lie in patches and in part rings, denser where they are smaller.
        spread = np.repeat(rng.uniform(0.025, 0.075, count), sizes)
        ring = np.repeat(rng.random(count) < 0.3, sizes)
        start = np.repeat(rng.uniform(0, math.tau, count), sizes)
        angle = start + rng.uniform(0, 4.2, len(centres))
        distance = spread * np.where(ring, rng.normal(1.5, 0.15, len(centres)), np.abs(rng.normal(0, 1, len(centres))))
        angle = np.where(ring, angle, rng.uniform(0, math.tau, len(centres)))
        centres = centres + distance[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
        centres = centres[_free(centres, eye)] if _free(centres, eye).any() else groups
    low, high = look.radius
    radius = low + (high - low) * rng.beta(1.3, 2.2, len(centres))
    outlines = _blobs(rng, centres, radius, look, eye)
    if kind == "preretinal haemorrhage":
        # Blood between retina and vitreous settles: a flat level above, a boat below.
        outlines[..., 1] = np.maximum(outlines[..., 1], centres[:, None, 1])
    opacity = rng.uniform(0.7, 1.0, len(centres))
    return Lesions(kind=kind, count=count, centres=centres, outlines=outlines, opacity=opacity)


def draw_lesions(image: np.ndarray, lesions: Lesions, frame: Frame) -> None:
    """Tint `image` [size, size, 3] in place."""
    tint(image, lesion_mask(lesions, frame), np.array(LOOKS[lesions.kind].factor, np.float32))


def lesion_mask(lesions: Lesions, frame: Frame) -> np.ndarray:
    """How much each pixel is covered, float32 [size, size] in 0-1."""
    look = LOOKS[lesions.kind]
    return frame.blur(frame.draw(lambda canvas: _fill(canvas, lesions, look, frame)), look.softness)


def _fill(canvas: np.ndarray, lesions: Lesions, look: Look, frame: Frame) -> None:
    values = np.rint(255 * lesions.opacity).astype(int).tolist()
    width = max(1, round(frame.length(look.line or 0.0)))
    for outline, value in zip(frame.to_canvas(lesions.outlines), values, strict=True):
        if look.line is None:
            cv2.fillPoly(canvas, [outline], value)
        else:
            cv2.polylines(canvas, [outline], False, value, width)


def _free(points: np.ndarray, eye: Eye) -> np.ndarray:
    """Which points lie within the field and off the disc and the foveola."""
    inside = np.hypot(points[:, 0], points[:, 1]) < RIM
    off_disc = np.hypot(points[:, 0] - eye.disc[0], points[:, 1] - eye.disc[1]) > 1.35 * max(eye.disc_axes)
    off_fovea = np.hypot(points[:, 0] - eye.fovea[0], points[:, 1] - eye.fovea[1]) > 0.05
    return inside & off_disc & off_fovea & (np.abs(points[:, 1]) < 0.74)


def _places(rng: np.random.Generator, eye: Eye, count: int, place: Place) -> np.ndarray:
    if place == "disc":
        angle = rng.uniform(0, math.tau, count)
        return np.array(eye.disc) + np.array(eye.disc_axes) * np.column_stack([np.cos(angle), np.sin(angle)])
    # A property of the eye, not of the draw: all lesions of one occluded vein lie in the same sector.
    half = -1 if eye.texture % 2 else 1
    fovea = np.array(eye.fovea)
    found = np.empty((0, 2))
    # Rejection in rounds: more candidates than wanted, thinned to the part of the fundus asked for.
    while len(found) < count:
        if place == "macula":
            points = fovea + rng.normal(0, 0.17, (8 * count, 2)) * np.array([1.1, 0.95])
        elif place == "arcades":
            angle = rng.uniform(0, math.tau, 8 * count)
            distance = rng.normal(0.62, 0.14, 8 * count)
            points = fovea + distance[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
        else:
            points = rng.uniform(-RIM, RIM, (8 * count, 2))
        keep = _free(points, eye)
        if place == "sector":
            ahead = (eye.disc[0] - points[:, 0]) > 0.1
            keep &= ahead & (half * (points[:, 1] - eye.fovea[1]) > 0.12)
        found = np.concatenate([found, points[keep]])
    return found[:count]


def _blobs(rng: np.random.Generator, centres: np.ndarray, radius: np.ndarray, look: Look, eye: Eye) -> np.ndarray:
    """Ragged ellipses, [n, CORNERS, 2]: a few harmonics of random phase on the radius."""
    corner = np.linspace(0, math.tau, CORNERS, endpoint=False)
    order = np.arange(2, 6)
    phase = rng.uniform(0, math.tau, (len(centres), len(order)))
    height = look.ragged * rng.standard_normal((len(centres), len(order))) / np.sqrt(order - 1)
    wave = (height[..., None] * np.cos(order[:, None] * corner + phase[..., None])).sum(axis=1)
    reach = radius[:, None] * np.clip(1 + wave, 0.35, 2.0)
    stretch = 1 + (look.stretch - 1) * rng.uniform(0.6, 1.4, (len(centres), 1))
    along, across = reach * np.cos(corner) * np.sqrt(stretch), reach * np.sin(corner) / np.sqrt(stretch)
    if look.stretch > 2:
        # Splinters lie in the nerve fibre layer, whose fibres run from the disc in flat arcs round the macula.
        angle = np.arctan2(centres[:, 1] - eye.disc[1], centres[:, 0] - eye.disc[0]) + rng.normal(0, 0.2, len(centres))
    else:
        angle = rng.uniform(0, math.tau, len(centres))
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    return centres[:, None] + np.stack([along * cos - across * sin, along * sin + across * cos], axis=-1)


def _tangles(rng: np.random.Generator, centres: np.ndarray, look: Look) -> np.ndarray:
    """Curling threads that start at `centres`, [n, 2 * CORNERS, 2]."""
    count, length = len(centres), 2 * CORNERS
    drift = rng.uniform(0, math.tau, (count, 1)) + np.cumsum(rng.normal(0, 0.45, (count, length)), axis=1)
    step = rng.uniform(*look.radius, (count, 1)) * 6 / length
    walk = np.cumsum(np.stack([step * np.cos(drift), step * np.sin(drift)], axis=-1), axis=1)
    return centres[:, None] + walk
