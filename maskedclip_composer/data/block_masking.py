"""Block-wise masks of patches."""

import math

import numpy as np
from jaxtyping import Bool

_RATIOS = (math.log(0.3), math.log(1 / 0.3))  # of a block's sides, as in BEiT
_SMALLEST = 4  # patches of a block
_ATTEMPTS = 10


def block_mask(grid: tuple[int, int], hidden: int, rng: np.random.Generator) -> Bool[np.ndarray, " patches"]:
    """Hide exactly `hidden` patches of a grid, in rectangles as far as they go.

    Blocks of random size, shape and place are laid over each other as in BEiT (arXiv 2106.08254), algorithm 1; single
    patches make up what is missing when no block fits, where BEiT would hide fewer.

    Args:
        grid: Rows and columns of patches.
        hidden: How many, at most all.
        rng: Draws the blocks.
    """
    rows, columns = grid
    mask = np.zeros(grid, dtype=bool)
    attempts = 0
    while attempts < _ATTEMPTS and (missing := hidden - int(mask.sum())) >= _SMALLEST:
        area = rng.uniform(_SMALLEST, missing)
        ratio = math.exp(rng.uniform(*_RATIOS))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        attempts += 1
        if not (0 < height <= rows and 0 < width <= columns):
            continue
        top, left = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
        block = mask[top : top + height, left : left + width]
        if 0 < block.size - int(block.sum()) <= missing:
            block[:] = True
            attempts = 0
    flat = mask.reshape(-1)
    rest = rng.permutation(np.flatnonzero(~flat))[: hidden - int(flat.sum())]
    flat[rest] = True
    return flat
