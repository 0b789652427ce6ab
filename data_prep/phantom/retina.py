"""The healthy fundus as a picture of reflectance, before lesions and before the camera."""

from collections.abc import Iterable

import cv2
import numpy as np

from data_prep.phantom.anatomy import Eye, Person, Vessel
from data_prep.phantom.raster import Frame, cloud

# Factors on red, green and blue where the structure covers the fundus completely.
VEIN = np.array([0.72, 0.4, 0.48], np.float32)
ARTERY = np.array([0.89, 0.56, 0.6], np.float32)
REFLEX = np.array([1.06, 1.22, 1.25], np.float32)
DISC = np.array([1.3, 1.42, 1.55], np.float32)
CUP = np.array([1.1, 1.4, 1.6], np.float32)
MACULA = np.array([0.62, 0.45, 0.55], np.float32)
STROMA = np.array([0.88, 0.72, 0.7], np.float32)
CHOROID = np.array([1.3, 1.12, 0.95], np.float32)


def tint(image: np.ndarray, mask: np.ndarray, factor: np.ndarray) -> None:
    """Multiply `image` [H, W, 3] in place by `factor` [3] where `mask` [H, W] is 1, and less where it is less."""
    image *= 1 + mask[..., None] * (factor - 1)


def draw_background(eye: Eye, person: Person, frame: Frame) -> np.ndarray:
    """Everything that lies behind the vessels: pigment, choroid, macula and optic disc; float32 [size, size, 3]."""
    rng = np.random.default_rng(eye.texture)
    image = np.empty((frame.size, frame.size, 3), np.float32)
    image[:] = person.colour
    patches = cloud(rng, frame.size, (3, 6, 12, 30))
    image *= 1 + person.mottling * patches[..., None] * np.array([0.7, 1.2, 1.2], np.float32)
    image *= 1 + 0.02 * cloud(rng, frame.size, (90,))[..., None]
    macular = frame.gaussian(eye.fovea, 0.38)
    # The ridges of a noise look like the choroidal vessels that a thin fundus lets through.
    ridges = 1 - np.clip(np.abs(cloud(rng, frame.size, (11, 17))) * 2.2, 0, 1)
    around = person.tessellation * (1 - 0.8 * macular)
    tint(image, around, STROMA)
    tint(image, around * ridges, CHOROID)
    tint(image, np.float32(0.6 * person.macula) * macular, MACULA)
    tint(image, np.float32(person.macula) * frame.gaussian(eye.fovea, 0.10, 0.085), MACULA)
    tint(image, 0.35 * person.macula * frame.gaussian(eye.fovea, 0.035), MACULA)
    # The nerve fibres thicken towards the disc, above and below more than at the sides.
    fibres = frame.gaussian(eye.disc, 0.28, 0.42)
    tint(image, 0.35 * fibres, np.array([1.08, 1.3, 1.35], np.float32))
    _draw_disc(image, eye, frame)
    return image


def draw_vessels(image: np.ndarray, eye: Eye, person: Person, frame: Frame) -> None:
    """Lay the veins and then the arteries over `image` in place."""
    for artery, factor in ((False, VEIN), (True, ARTERY)):
        vessels = [vessel for vessel in eye.vessels if vessel.artery is artery]
        mask = frame.draw(lambda canvas, vessels=vessels: _stroke(canvas, vessels, frame, 1.0))
        mask = frame.blur(mask, 0.0025)
        # The trunks lie deep in the disc, partly below its tissue.
        veiled = 1 - 0.35 * frame.gaussian(eye.disc, 0.7 * eye.disc_axes[0])
        tint(image, np.clip(mask * veiled * person.contrast, 0, 1), factor)
        if artery:
            wide = [vessel for vessel in vessels if vessel.widths.max() > 0.018]
            core = frame.draw(lambda canvas, wide=wide: _stroke(canvas, wide, frame, 0.3))
            tint(image, 0.7 * frame.blur(core, 0.003), REFLEX)


def _draw_disc(image: np.ndarray, eye: Eye, frame: Frame) -> None:
    horizontal, vertical = eye.disc_axes
    if eye.atrophy > 0:
        crescent = _ellipse(frame, (eye.disc[0] - 0.22 * horizontal, eye.disc[1]), 1.08 * horizontal, 1.08 * vertical)
        tint(image, min(eye.atrophy, 0.7) * frame.blur(crescent, 0.012), DISC)
    disc = frame.blur(_ellipse(frame, eye.disc, horizontal, vertical), 0.009)
    tint(image, disc * eye.rim, DISC)
    # The temporal half of the rim is paler than the nasal half.
    x, _ = frame.grid
    slope = np.clip((eye.disc[0] - x) / horizontal, -1, 1)
    tint(image, disc * 0.1 * slope, np.array([1.4, 2.0, 2.2], np.float32))
    middle = (eye.disc[0] - 0.08 * horizontal, eye.disc[1] + 0.02 * vertical)
    cup = frame.blur(_ellipse(frame, middle, eye.cup * horizontal, 1.06 * eye.cup * vertical), 0.01)
    tint(image, cup * eye.pallor, CUP)


def _ellipse(frame: Frame, centre: tuple[float, float], horizontal: float, vertical: float) -> np.ndarray:
    middle = frame.to_canvas(np.array(centre)).tolist()
    axes = (round(frame.length(horizontal)), round(frame.length(vertical)))
    return frame.draw(lambda canvas: cv2.ellipse(canvas, middle, axes, 0, 0, 360, 255, cv2.FILLED))


def _stroke(canvas: np.ndarray, vessels: Iterable[Vessel], frame: Frame, part: float) -> None:
    """Draw every vessel at `part` of its width, in pieces of one whole width each."""
    for vessel in vessels:
        points = frame.to_canvas(vessel.points)
        widths = np.maximum(np.rint(frame.length(1.0) * part * vessel.widths), 1).astype(int)
        edges = np.flatnonzero(np.diff(widths)) + 1
        for first, last in zip([0, *edges], [*edges, len(points) - 1], strict=True):
            # Narrow vessels hold less blood and are paler.
            shade = min(255, round(95 + 160 * vessel.widths[first] / 0.018))
            cv2.polylines(canvas, [points[first : last + 1]], False, shade, int(widths[first]))
