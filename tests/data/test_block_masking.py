import numpy as np
import pytest

from maskedclip_composer.data.block_masking import block_mask


@pytest.mark.parametrize("grid", [(14, 14), (4, 4), (2, 9), (1, 5)])
def test_exactly_the_given_number_of_patches_is_hidden(grid):
    rng, patches = np.random.default_rng(0), grid[0] * grid[1]
    for count in range(patches + 1):
        for _ in range(3):
            mask = block_mask(grid, count, rng)
            assert mask.shape == (patches,)
            assert mask.dtype == bool
            assert mask.sum() == count


def test_the_generator_alone_decides():
    first, again = (block_mask((14, 14), 60, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, block_mask((14, 14), 60, np.random.default_rng(4)))


def neighbours(flat: np.ndarray) -> float:
    """Share of pairs of adjacent patches of a 14 x 14 grid of which both or none are hidden."""
    mask = flat.reshape(14, 14)
    return float(np.mean(np.concatenate([(mask[1:] == mask[:-1]).ravel(), (mask[:, 1:] == mask[:, :-1]).ravel()])))


def test_rows_of_the_result_are_rows_of_the_grid_and_hidden_patches_lie_together():
    """Independent patches at this ratio agree with a neighbour in 1 - 2 * 0.3 * 0.7 = 58 % of cases."""
    rng = np.random.default_rng(1)
    agreement = np.mean([neighbours(block_mask((14, 14), 59, rng)) for _ in range(100)])
    assert agreement > 0.75


def test_every_patch_can_be_hidden_and_none_always_is():
    rng = np.random.default_rng(2)
    often = np.mean([block_mask((8, 8), 20, rng) for _ in range(3000)], axis=0).reshape(8, 8)
    assert often.mean() == pytest.approx(20 / 64)
    # Blocks that lie within the grid cover its middle more often than its corners.
    assert 0.05 < often.min() < often.max() < 0.6
    np.testing.assert_allclose(often, often[::-1, ::-1], atol=0.06)  # 4 standard deviations of a difference
