"""The camera: field stop, illumination, media, focus, exposure and noise; nothing here knows the diagnosis."""

from dataclasses import dataclass

import numpy as np

from data_prep.phantom.anatomy import Point
from data_prep.phantom.raster import Frame, cloud


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Settings of one photograph.

    Attributes:
        radius: Radius of the field in half image sizes; above 1 the frame cuts it.
        top: y above which the field is black, in field radii; -1 is round.
        bottom: y below which it is black; 1 is round.
        gain: Overall exposure.
        vignette: Loss of light from the brightest point to the rim, 0-1.
        rim_colour: What remains of red, green and blue at the rim beyond the vignette, about 1 each.
        bright: The brightest point.
        flare: Strength of the bright crescent at the rim.
        flare_angle: Where the crescent lies, radians.
        shadow: Depth of a large dark patch.
        shadow_at: Its centre.
        ghosts: x, y, radius and strength of out-of-focus dust and lens reflexes [n, 4].
        haze: Light scattered by the media, 0 (clear) to 1 (nothing visible).
        blur: Standard deviation of the focus error, field radii.
        noise: Standard deviation of the sensor noise, 0-1.
        seed: Seed of the noise and of the haze's unevenness.
    """

    radius: float
    top: float
    bottom: float
    gain: float
    vignette: float
    rim_colour: tuple[float, float, float]
    bright: Point
    flare: float
    flare_angle: float
    shadow: float
    shadow_at: Point
    ghosts: np.ndarray
    haze: float
    blur: float
    noise: float
    seed: int


def sample_camera(style: np.random.Generator, rng: np.random.Generator) -> Camera:
    """Draw the settings: `style` decides what both eyes share (pass it in the same state), `rng` the rest."""
    shape = style.random()
    cut = float(style.uniform(0.78, 0.95))
    top, bottom = (-1.0, 1.0) if shape < 0.55 else (-cut, 1.0) if shape < 0.65 else (-cut, cut)
    radius = float(style.uniform(1.02, 1.12) if shape > 0.85 else style.uniform(0.95, 0.995))
    exposure = style.normal(0.0, 0.14)
    red, green, blue = style.normal((0.9, 1.0, 1.1), (0.1, 0.1, 0.25)).tolist()
    ghosts = rng.poisson(0.5)
    return Camera(
        radius=radius,
        top=top,
        bottom=bottom,
        gain=float(np.exp(exposure + rng.normal(0.08, 0.08))),
        vignette=float(rng.uniform(0.1, 0.65)),
        rim_colour=(red, green, blue),
        bright=(float(rng.normal(0.15, 0.2)), float(rng.normal(0, 0.2))),
        flare=float(max(0.0, rng.normal(0.0, 0.4))),
        flare_angle=float(rng.uniform(0, 2 * np.pi)),
        shadow=float(max(0.0, rng.normal(-0.2, 0.4))),
        shadow_at=(float(rng.uniform(-1, 1)), float(rng.uniform(-1, 1))),
        ghosts=np.column_stack(
            [
                rng.uniform(-0.8, 0.8, (ghosts, 2)),
                rng.uniform(0.02, 0.09, ghosts),
                np.maximum(rng.normal(0.05, 0.1, ghosts), -0.08),
            ]
        ),
        haze=float(rng.beta(1.2, 9)),
        blur=float(rng.gamma(2.0, 0.0016)),
        noise=float(rng.uniform(0.003, 0.012)),
        seed=int(rng.integers(2**31)),
    )


def expose(reflectance: np.ndarray, camera: Camera, frame: Frame) -> np.ndarray:
    """Photograph a fundus: float32 reflectance [size, size, 3] to uint8 RGB [size, size, 3]."""
    rng = np.random.default_rng(camera.seed)
    x, y = frame.grid
    field = np.hypot(x, y)
    image = reflectance * _illumination(camera, frame, rng)
    uneven = np.clip(camera.haze * (1 + 0.18 * cloud(rng, frame.size, (3,))), 0, 0.92)[..., None]
    light = image.mean(axis=(0, 1))
    # Scattered light has the colour of the fundus, washed out and a little bluer.
    veil = 0.6 * light + 0.9 * light.mean() * np.array([1.0, 0.97, 0.8], np.float32)
    image = (1 - uneven) * image + uneven * veil * np.exp(-0.3 * field**2)[..., None]
    image = frame.blur(image, camera.blur + 0.035 * camera.haze**2)
    image = _add_reflexes(image, camera, frame)
    image *= np.float32(camera.gain)
    # A soft shoulder: a hard limit would turn every disc into a flat white spot.
    image = image / (1 + np.maximum(image, 0) ** 4) ** 0.25
    image += camera.noise * rng.standard_normal(image.shape, np.float32)
    image *= _field_stop(camera, frame)[..., None]
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _illumination(camera: Camera, frame: Frame, rng: np.random.Generator) -> np.ndarray:
    """Light of each colour at each pixel, [size, size, 3]."""
    x, y = frame.grid
    distance = (x - camera.bright[0]) ** 2 + (y - camera.bright[1]) ** 2
    outer = np.clip(distance, 0, 1.8) / 1.8
    light = 1.08 * (1 - camera.vignette * outer) * (1 + 0.06 * cloud(rng, frame.size, (2, 4)))
    light *= 1 - min(camera.shadow, 0.8) * frame.gaussian(camera.shadow_at, 0.3)
    return light[..., None] * (1 + outer[..., None] * (np.array(camera.rim_colour, np.float32) - 1))


def _add_reflexes(image: np.ndarray, camera: Camera, frame: Frame) -> np.ndarray:
    """Stray light adds to the picture, whatever lies behind it."""
    x, y = frame.grid
    if camera.flare > 0:
        towards = x * np.cos(camera.flare_angle) + y * np.sin(camera.flare_angle)
        rim = np.exp(-(np.clip(1.02 - np.hypot(x, y), 0, None) / 0.09)) * np.clip(towards + 0.35, 0, None)
        image = image + min(camera.flare, 0.7) * rim[..., None] * np.array([0.55, 0.6, 0.42], np.float32)
    for centre_x, centre_y, radius, strength in camera.ghosts.tolist():
        spot = 1 / (1 + (((x - centre_x) ** 2 + (y - centre_y) ** 2) / radius**2) ** 3)
        image = image + strength * spot[..., None] * np.array([0.7, 0.75, 0.8], np.float32)
    return image


def _field_stop(camera: Camera, frame: Frame) -> np.ndarray:
    """1 inside the field, 0 outside, over an edge of one pixel."""
    x, y = frame.grid
    inside = np.minimum(1 - np.hypot(x, y), np.minimum(y - camera.top, camera.bottom - y))
    return np.clip(inside * frame.pixels + 0.5, 0, 1)
