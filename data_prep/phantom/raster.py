"""From field units to pixels: one place for scale, mirroring and antialiasing."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from data_prep.phantom.anatomy import Side

# Masks are drawn this large and averaged down: OpenCV draws whole pixels only, and the finest vessels are narrower.
CANVAS = 1024


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A square image of `size` pixels whose field has a radius of `radius` half sizes."""

    size: int
    radius: float
    side: Side

    @property
    def oversampling(self) -> int:
        """Canvas pixels per image pixel, at least 1."""
        return max(1, CANVAS // self.size)

    @property
    def pixels(self) -> float:
        """Pixels of the image per field radius."""
        return self.radius * self.size / 2

    @cached_property
    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """x and y in field units at the pixel centres, float32 [size, size] each, mirrored for a left eye."""
        axis = ((np.arange(self.size) + 0.5) / self.size * 2 - 1).astype(np.float32) / self.radius
        x, y = np.meshgrid(axis, axis)
        return (x if self.side == "right" else -x), y

    def to_canvas(self, points: np.ndarray) -> np.ndarray:
        """Turn field units [..., 2] into whole canvas pixels, int32 [..., 2]."""
        mirror = np.array([1.0 if self.side == "right" else -1.0, 1.0])
        return np.rint((points * mirror * self.radius + 1) * self.size * self.oversampling / 2 - 0.5).astype(np.int32)

    def length(self, units: float) -> float:
        """Turn a length in field units into canvas pixels."""
        return units * self.pixels * self.oversampling

    def draw(self, painter: Callable[[np.ndarray], object]) -> np.ndarray:
        """Let `painter` draw on a uint8 canvas and return it averaged down, float32 [size, size] in 0-1."""
        canvas = np.zeros((self.size * self.oversampling,) * 2, np.uint8)
        painter(canvas)
        small = cv2.resize(canvas, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return small.astype(np.float32) / 255

    def blur(self, image: np.ndarray, units: float) -> np.ndarray:
        """Gaussian blur with a standard deviation in field units; below a sixth of a pixel the image is returned."""
        sigma = units * self.pixels
        if sigma < 1 / 6:
            return image
        # A large blur is done small: the result is smooth, and the cost no longer grows with sigma.
        shrink = int(sigma // 4)
        if shrink > 1:
            small = cv2.resize(image, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
            small = cv2.GaussianBlur(small, (0, 0), sigma / shrink, borderType=cv2.BORDER_REFLECT)
            return cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)

    def gaussian(self, centre: tuple[float, float], width: float, height: float | None = None) -> np.ndarray:
        """A Gaussian bump of height 1 with the given standard deviations, float32 [size, size]."""
        x, y = self.grid
        return np.exp(-0.5 * (((x - centre[0]) / width) ** 2 + ((y - centre[1]) / (height or width)) ** 2))


def cloud(rng: np.random.Generator, size: int, cells: Iterable[int]) -> np.ndarray:
    """Smooth noise of about unit variance, float32 [size, size]: one octave for each number of cells across."""
    total = np.zeros((size, size), np.float32)
    octaves = list(cells)
    for count in octaves:
        # One cell more on each side: the cubic kernel of OpenCV repeats the border.
        seed = rng.standard_normal((count + 2, count + 2)).astype(np.float32)
        wide = cv2.resize(seed, (size * (count + 2) // count,) * 2, interpolation=cv2.INTER_CUBIC)
        margin = (wide.shape[0] - size) // 2
        total += wide[margin : margin + size, margin : margin + size]
    return total / np.sqrt(len(octaves), dtype=np.float32)
