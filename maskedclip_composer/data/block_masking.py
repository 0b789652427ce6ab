"""Which patches of a crop are hidden from the student: rectangular blocks, of an exact number of patches."""

import math

import numpy as np
from jaxtyping import Bool

_SMALLEST_BLOCK = 4  # patches
_LOG_RATIO = (math.log(0.3), math.log(1 / 0.3))  # height / width
_MISSES = 10  # draws in a row that fit nowhere, after which single patches make up the number


def block_mask(grid: tuple[int, int], count: int, rng: np.random.Generator) -> Bool[np.ndarray, "rows columns"]:
    """Hide exactly `count` patches, in blocks as far as they fit.

    BEiT (arXiv 2106.08254), algorithm 1, which iBOT (arXiv 2111.07832) takes over: blocks of random area and of an
    aspect ratio log-uniform in [0.3, 1/0.3], at random places, until the number is reached.

    Deviation: the paper lets the last block overshoot and has blocks of 16 patches or more. Here a block of more new
    patches than are missing is drawn anew, blocks have 4 patches or more, and where none fits, single patches at random
    make up the number. So the share of hidden patches is the one that was drawn.

    Args:
        grid: Rows and columns of patches.
        count: 0 to all of them.
        rng: Of this access.

    Returns:
        True where the patch is hidden.
    """
    rows, columns = grid
    mask = np.zeros(grid, bool)
    missing, misses = count, 0
    while missing and misses < _MISSES:
        area = rng.uniform(min(_SMALLEST_BLOCK, missing), missing)
        ratio = math.exp(rng.uniform(*_LOG_RATIO))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        misses += 1
        if 0 < height <= rows and 0 < width <= columns:
            top, left = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
            block = mask[top : top + height, left : left + width]
            new = block.size - int(block.sum())
            if 0 < new <= missing:
                block[:] = True
                missing, misses = missing - new, 0
    if missing:
        mask.flat[rng.choice(np.flatnonzero(~mask), missing, replace=False)] = True
    return mask
