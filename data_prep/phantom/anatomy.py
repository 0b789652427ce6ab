"""The healthy eye: where disc, fovea and vessels lie, and what colour the fundus has.

Lengths are in radii of a 45 degree field, so the disc is about 0.29 wide. Every eye is kept as a right one, with x
towards the nose and y downwards; a left eye is mirrored only when it is drawn.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

Side = Literal["left", "right"]
Point = tuple[float, float]

STEP = 0.02
FINEST = 0.006
OUTSIDE = 1.25
AVASCULAR = 0.13


@dataclass(frozen=True, kw_only=True)
class Person:
    """What the two eyes of a patient share: pigment and the camera's colour rendering.

    Attributes:
        colour: Mean reflectance of the fundus, red, green and blue in 0-1.
        tessellation: Visibility of the choroidal vessels, 0-1.
        mottling: Amplitude of the background's irregularity.
        macula: Depth of the macular pigment's shadow.
        contrast: Multiplies the vessels' absorption.
    """

    colour: tuple[float, float, float]
    tessellation: float
    mottling: float
    macula: float
    contrast: float


@dataclass(frozen=True, kw_only=True)
class Vessel:
    """One unbranched piece: `points` [n, 2] and its full `widths` [n] in field radii."""

    points: np.ndarray
    widths: np.ndarray
    artery: bool


@dataclass(frozen=True, kw_only=True)
class Eye:
    """Geometry of one eye.

    Attributes:
        side: Which eye it is; a left one is drawn mirrored.
        disc: Centre of the optic disc.
        disc_axes: Horizontal and vertical half axis of the disc.
        cup: Ratio of the cup's to the disc's diameter; about 0.2-0.5 in health.
        pallor: Contrast between cup and rim, about 1.
        rim: Brightness of the whole disc, about 1; varied widely, so that only the shape of the cup tells its size.
        atrophy: Strength of the pale crescent at the temporal margin of the disc.
        fovea: Centre of the macula.
        vessels: Veins and arteries, thick and thin.
        texture: Seed of the background's irregularity.
    """

    side: Side
    disc: Point
    disc_axes: Point
    cup: float
    pallor: float
    rim: float
    atrophy: float
    fovea: Point
    vessels: tuple[Vessel, ...]
    texture: int


def sample_person(rng: np.random.Generator) -> Person:
    """Draw a person; the spread of the colours is that of photographs from several cameras."""
    red = rng.uniform(0.52, 0.82)
    green = np.clip(rng.normal(0.55, 0.09), 0.36, 0.74)
    # Blue follows green over cameras (correlation of the log ratios 0.7 in public sets), from orange to pinkish grey.
    blue = np.clip(0.95 * (green - 0.30) + rng.normal(0.0, 0.08), 0.05, 0.55)
    return Person(
        colour=(float(red), float(red * green), float(red * blue)),
        tessellation=float(rng.beta(1.0, 2.2)),
        mottling=float(rng.uniform(0.02, 0.06)),
        macula=float(rng.uniform(0.25, 0.65)),
        contrast=float(rng.uniform(0.75, 1.15)),
    )


def sample_eye(rng: np.random.Generator, side: Side) -> Eye:
    """Draw a healthy eye."""
    # One photograph in eight is centred on the disc instead of the macula.
    centre = -0.42 if rng.random() < 0.125 else -0.04
    fovea = (float(rng.normal(centre, 0.06)), float(rng.normal(0.03, 0.06)))
    disc = (fovea[0] + float(rng.uniform(0.64, 0.76)), fovea[1] - float(rng.uniform(0.03, 0.12)))
    radius = float(rng.uniform(0.115, 0.17))
    return Eye(
        side=side,
        disc=disc,
        disc_axes=(radius * float(rng.uniform(0.86, 0.98)), radius * float(rng.uniform(1.0, 1.1))),
        cup=float(rng.uniform(0.2, 0.46)),
        pallor=float(rng.uniform(0.45, 1.0)),
        rim=float(rng.uniform(0.65, 1.6)),
        atrophy=float(max(0.0, rng.normal(0.0, 0.4))),
        fovea=fovea,
        vessels=_grow_vessels(rng, disc, fovea, radius),
        texture=int(rng.integers(2**31)),
    )


@dataclass(frozen=True, kw_only=True)
class _Shoot:
    """A vessel about to grow: `course` names what it heads for, `sense` is -1 above and 1 below the disc."""

    start: Point
    heading: float
    width: float
    length: float
    course: Literal["arcade", "outward", "macular"]
    sense: int
    orbit: float
    artery: bool
    order: int


def _grow_vessels(rng: np.random.Generator, disc: Point, fovea: Point, radius: float) -> tuple[Vessel, ...]:
    # The trunks leave the disc a little nasal of its centre.
    hilum = (disc[0] + 0.25 * radius, disc[1])
    shoots: list[_Shoot] = []
    reach = math.dist(disc, fovea)
    for artery in (False, True):
        calibre = float(rng.uniform(0.027, 0.034)) * (0.78 if artery else 1.0)
        for sense in (-1, 1):
            start = (hilum[0] + float(rng.normal(0, 0.12)) * radius, hilum[1] + sense * 0.1 * radius)
            upright = sense * math.pi / 2
            shared = {"start": start, "sense": sense, "artery": artery, "order": 0}
            arcade = _Shoot(
                heading=upright + float(rng.normal(0.0, 0.2)),
                width=calibre * float(rng.uniform(0.9, 1.1)),
                length=3.0,
                course="arcade",
                orbit=reach * float(rng.uniform(0.78, 0.98)),
                **shared,
            )
            nasal = _Shoot(
                heading=upright * float(rng.uniform(0.25, 0.7)),
                width=calibre * float(rng.uniform(0.55, 0.75)),
                length=1.2,
                course="outward",
                orbit=0.0,
                **shared,
            )
            twig = _Shoot(
                heading=math.pi - sense * float(rng.uniform(0.25, 0.9)),
                width=calibre * float(rng.uniform(0.25, 0.4)),
                length=reach * float(rng.uniform(0.5, 0.9)),
                course="macular",
                orbit=0.0,
                **shared,
            )
            shoots += [arcade, nasal, twig]
    vessels = []
    while shoots:
        vessel, children = _grow(rng, shoots.pop(), disc, fovea)
        shoots += children
        if len(vessel.points) > 3:
            vessels.append(vessel)
    return tuple(vessels)


def _grow(rng: np.random.Generator, shoot: _Shoot, disc: Point, fovea: Point) -> tuple[Vessel, list[_Shoot]]:
    """Walk one vessel with a persistent wobble; at a branching the calibres obey Murray's law."""
    steps = int(shoot.length / STEP)
    (x, y), heading, width, bend = shoot.start, shoot.heading, shoot.width, 0.0
    wobble = rng.normal(0.0, 0.04 if shoot.order == 0 else 0.055, steps)
    branching = rng.random(steps) < STEP / (0.17 if shoot.order == 0 else 0.28)
    points, widths, children = [(x, y)], [width], []
    flip = 1 if rng.random() < 0.5 else -1
    for step in range(steps):
        bend = 0.75 * bend + wobble[step]
        wanted = _course(shoot, x, y, disc, fovea)
        heading += bend + (0.16 if shoot.course == "arcade" else 0.05) * math.remainder(wanted - heading, math.tau)
        x, y = x + STEP * math.cos(heading), y + STEP * math.sin(heading)
        width *= 0.9965
        points.append((x, y))
        widths.append(width)
        macular = math.hypot(x - fovea[0], y - fovea[1])
        if math.hypot(x, y) > OUTSIDE or width < FINEST or (shoot.course != "arcade" and macular < AVASCULAR):
            break
        if branching[step] and step > 8 and shoot.order < 3 and width > 1.35 * FINEST:
            part = float(rng.uniform(0.4, 0.78))
            child, flip = heading + flip * float(rng.uniform(0.45, 0.95)), -flip
            inward = math.cos(child - math.atan2(fovea[1] - y, fovea[0] - x)) > 0.2
            children.append(
                _Shoot(
                    start=(x, y),
                    heading=child,
                    width=max(part * width, FINEST * 1.05),
                    length=float(rng.uniform(0.35, 0.8) if inward else rng.uniform(0.4, 1.1)),
                    course="macular" if inward and x < disc[0] - 0.15 else "outward",
                    sense=shoot.sense,
                    orbit=0.0,
                    artery=shoot.artery,
                    order=shoot.order + 1,
                )
            )
            width *= (1 - part**3) ** (1 / 3)
    calibre = np.array(widths)
    if shoot.order == 0:
        calibre[:6] *= np.linspace(0.5, 1.0, 6)[
            : len(calibre)
        ]  # a trunk comes up through the disc, it has no blunt end
    return Vessel(points=np.array(points), widths=calibre, artery=shoot.artery), children


def _course(shoot: _Shoot, x: float, y: float, disc: Point, fovea: Point) -> float:
    """The heading that leads on: round the macula, towards it, or away from the disc."""
    dx, dy = x - fovea[0], y - fovea[1]
    if shoot.course == "macular":
        return math.atan2(-dy, -dx)
    if shoot.course == "outward":
        return math.atan2(0.5 * (y - disc[1]) + 0.5 * dy, 0.5 * (x - disc[0]) + 0.5 * dx)
    distance = math.hypot(dx, dy) + 1e-9
    if dx < -0.3:  # temporal of the macula the arcades open instead of closing the circle
        return math.atan2(0.35 * dy, dx)
    orbit = shoot.orbit * (1 + 0.3 * max(0.0, -dx))
    pull = 2.0 * (orbit - distance)
    tangent = (-shoot.sense * dy, shoot.sense * dx)
    return math.atan2(tangent[1] + pull * dy, tangent[0] + pull * dx)
